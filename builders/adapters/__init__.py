"""Adapters as releases: an upstream that holds a LoRA of PEFT's and no whole weights is merged into its base model, and the result is what is released."""
