"""llama.cpp and transformers behind small typed functions, and the pinned llama.cpp tools."""
