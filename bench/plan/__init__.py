"""Planned mixes against stock mixes and other ways to choose types, at equal bytes, on the same files and text: `python -m bench.plan`."""
