"""Norms, counts, clip ratios and the merge of spans in NumPy. The tests compare the TensorFlow side with them."""
