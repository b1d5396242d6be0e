"""Graphs and sessions of TensorFlow 1."""
