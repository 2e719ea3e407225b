"""What an operator edits: settings, recipes, fix rules and model families, and the vocabulary that all rooms share."""
