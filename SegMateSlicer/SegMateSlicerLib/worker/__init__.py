"""The process in which networks run, and talking to it."""
