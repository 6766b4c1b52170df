"""What surrounds the panel: dependencies, sample data, the right-click action."""
