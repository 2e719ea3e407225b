"""The bundled model through the builders, as in the builders' own tests."""

from tests.builders.conftest import fixed, gguf, imatrix

__all__ = ["fixed", "gguf", "imatrix"]
