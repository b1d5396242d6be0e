"""``model.fit``: the callback, and what it replaces in the model while it trains."""
