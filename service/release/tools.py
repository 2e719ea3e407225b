"""What had a hand in a run's files: llama.cpp and the libraries, with their versions."""

from functools import cache
from importlib.metadata import version

from engines import toolchain

LIBRARIES = ("torch", "transformers", "bitsandbytes", "huggingface_hub", "gguf", "sluice")


@cache
def tools() -> dict[str, str]:
    """Name and version of everything that had a hand in the files."""
    name, _, number = toolchain.version().partition(" ")
    return {name: number, **{library: version(library) for library in LIBRARIES}}
