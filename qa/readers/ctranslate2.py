"""CTranslate2, which converts a folder of safetensors with a converter of its own, and reads no text by itself."""

from collections.abc import Callable

from engines.environments import CTRANSLATE2
from qa.readers import compared, running
from qa.readers.words import BITS16, Outcome, Reader, Reference, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """All distributions and a greedy answer, in float32."""
    known = reference()
    command, environment = running.python("ctranslate.py", CTRANSLATE2)
    return compared.judge(known, running.reading(running.ask(command, {"folder": str(variant.path), **running.question(known)}, environment=environment)))


READER = Reader(name="CTranslate2", version=lambda: CTRANSLATE2.version, forms=frozenset({BITS16}), missing=CTRANSLATE2.missing, ask=ask)
