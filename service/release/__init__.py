"""The way of a release: its stages and how one run goes through them."""
