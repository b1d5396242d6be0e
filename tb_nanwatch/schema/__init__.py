"""The catalogue of statistics, the records that parts exchange, and their encoding as protobuf and JSON."""
