"""Whether an update runs, and the state that comes back if it does not."""
