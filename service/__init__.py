"""The running program: command, API, watch list, pipeline, and the store that remembers."""
