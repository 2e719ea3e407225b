"""The disk of `home`: what of it stays and why, what goes, and what happens when it is nearly full."""
