"""What things cost here: time, memory and disk, measured on the user's own machine and data."""
