"""OpenVINO GenAI, which reads GGUF files of some architectures and types by itself."""

from collections.abc import Callable

from engines.environments import OPENVINO
from qa.readers import compared, running
from qa.readers.words import GGUF, Outcome, Reader, Reference, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """Tokens and a greedy answer: it gives no distributions."""
    known = reference()
    command, environment = running.python("genai.py", OPENVINO)
    return compared.judge(known, running.reading(running.ask(command, {"file": str(variant.path), **running.question(known)}, environment=environment)))


READER = Reader(name="OpenVINO GenAI", version=lambda: OPENVINO.version, forms=frozenset({GGUF}), missing=OPENVINO.missing, ask=ask)
