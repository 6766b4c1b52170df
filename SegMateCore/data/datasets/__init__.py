"""Readers of public datasets' layouts: each finds the cases under a folder, one file per dataset."""
