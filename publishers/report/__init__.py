"""The report of a run: one self-contained HTML page with every gate, the figures behind it, and plots."""
