"""Norms, finiteness, clipping and the merging of spans, in NumPy: also the oracle that the TensorFlow side is held to."""
