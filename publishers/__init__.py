"""From verdicts to repos: names, manifest, model card, Ollama files, and the one commit that publishes them."""
