"""From a variant to measurements to a verdict: divergence, multiple-choice questions, templates, generation, files, gates."""
