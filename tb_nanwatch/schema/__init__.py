"""What is measured and what is stored: the catalogue, the records, and how both are written down."""
