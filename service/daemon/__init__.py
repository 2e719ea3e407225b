"""The running service: clock, hints, worker, and the API in front."""
