"""Measurements against peers, side by side in one run. Not a test: nothing fails when a figure is bad."""
