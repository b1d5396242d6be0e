"""The ways to train: a thin driver for each."""
