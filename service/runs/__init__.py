"""What is known of runs: their summaries, their gates, and the waivers of these."""
