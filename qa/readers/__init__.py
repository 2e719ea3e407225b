"""What people's programs make of published files: each reader is asked in a process of its own, and compared with llama.cpp's own reading of the same file."""
