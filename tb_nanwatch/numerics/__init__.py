"""Norms, finiteness, clipping and the merge of spans, in NumPy: also what the TensorFlow side is held to."""
