"""The panel: its sections, what they offer, and what is remembered."""
