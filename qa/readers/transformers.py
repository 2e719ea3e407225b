"""transformers, the one that Sluice measures with and an older one: folders of safetensors, and GGUF files by `gguf_file`."""

from collections.abc import Callable
from importlib import metadata
from typing import Any

from engines.environments import TRANSFORMERS_4, Environment
from qa.readers import compared, running
from qa.readers.words import BITS16, GGUF, NF4, Outcome, Reader, Reference, Variant

DTYPES = {BITS16: "float32", NF4: "bfloat16", GGUF: "float32"}


def answer(variant: Variant, environment: Environment | None, tokens: tuple[int, ...] = ()) -> dict[str, Any]:
    """What it says of the tokens, its own of the question's text where none are given."""
    where = {"folder": str(variant.path)}
    if variant.form == GGUF:
        where = {"folder": str(variant.path.parent), "gguf_file": variant.path.name}
    command, variables = running.python("causal.py", environment)
    request = {**where, "dtype": DTYPES[variant.form], "text": running.TEXT, "tokens": list(tokens), "last": running.LAST, "most": running.MOST}
    return running.ask(command, request, environment=variables)


def _ask(environment: Environment | None) -> Callable[[Variant, Callable[[], Reference]], Outcome]:
    def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
        known = reference()
        return compared.judge(known, running.reading(answer(variant, environment, known.tokens)))

    return ask


def _readers(name: str, version: Callable[[], str], environment: Environment | None) -> tuple[Reader, Reader]:
    missing = (lambda: None) if environment is None else environment.missing
    return (
        Reader(name=name, version=version, forms=frozenset({BITS16, NF4}), missing=missing, ask=_ask(environment)),
        Reader(name=f"{name} gguf_file", version=version, forms=frozenset({GGUF}), missing=missing, ask=_ask(environment)),
    )


OURS = _readers("transformers 5", lambda: metadata.version("transformers"), None)
OLDER = _readers("transformers 4", lambda: TRANSFORMERS_4.version, TRANSFORMERS_4)
READERS = (*OURS, *OLDER)
