"""llama-cpp-python's class `Llama`, over the libraries that `make setup` builds."""

from collections.abc import Callable

from engines import toolchain
from qa.readers import compared, running
from qa.readers.words import GGUF, Outcome, Reader, Reference, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """Tokens, all distributions and a greedy answer."""
    known = reference()
    command, environment = running.python("llama_python.py")
    return compared.judge(known, running.reading(running.ask(command, {"file": str(variant.path), **running.question(known)}, environment=environment)))


READER = Reader(name="llama-cpp-python", version=lambda: toolchain.VERSION, forms=frozenset({GGUF}), missing=lambda: None, ask=ask)
