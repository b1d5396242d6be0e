"""The TensorBoard plugin: routes that answer in JSON, and the page that asks them."""
