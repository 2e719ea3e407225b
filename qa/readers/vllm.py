"""vLLM, as far as it goes without a GPU: whether it takes a folder's config.json, and whether it looks for each layer in the form in which that is stored."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.environments import VLLM
from qa.readers import running
from qa.readers.words import BITS16, NF4, Outcome, Reader, Reference, Result, Variant

CONTEXT = 128  # tokens; nothing is computed
NAMED = 2  # layers that a sentence names
PACKED = "U8"  # the type of what holds two values of 4 bits
NOTHING = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run."""
    command, environment = running.python("vllm_layers.py", VLLM)
    found = running.ask(command, {"folder": str(variant.path), "context": CONTEXT}, environment={**environment, **NOTHING})
    return compared(found["architecture"], found["quantization"], found["layers"])


def compared(architecture: str, quantization: str | None, layers: Sequence[Mapping[str, Any]]) -> Outcome:
    """What came of a folder, by its layers: each with its name, whether vLLM looks for it in 16 bits, and the types in which its parts, so many, are stored."""
    absent = [layer["name"] for layer in layers if len(layer["stored"]) < layer["parts"]]
    if absent:
        return Outcome(result=Result.OTHER, words=f"it looks for {_named(absent)}, which no file holds")
    wrong = [layer["name"] for layer in layers if any((kind == PACKED) is layer["plain"] for kind in layer["stored"])]
    if wrong:
        return Outcome(result=Result.OTHER, words=f"it looks for {_named(wrong)} in another form than is stored")
    four = sum(not layer["plain"] for layer in layers)
    return Outcome(result=Result.SAME, words=f"{architecture} with {quantization or 'no quantization'}, {four} of {len(layers)} layers in 4 bits; not run")


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more layers" if len(names) > NAMED else "")


READER = Reader(name="vLLM's config", version=lambda: VLLM.version, forms=frozenset({BITS16, NF4}), missing=VLLM.missing, ask=ask)
