"""The embedded Hub: a server on a folder that speaks the Hugging Face Hub's HTTP protocol to its unmodified client."""
