"""Runs: one segmentation, batches of them, and what drives them in small steps."""
