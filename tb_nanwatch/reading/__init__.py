"""The viewing side's source: what a watched run left, read through TensorBoard."""
