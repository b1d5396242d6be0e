"""From rows and incidents to the event file and the saved batch."""
