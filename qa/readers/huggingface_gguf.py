"""@huggingface/gguf, by which the Hub's pages show a file: its tensors, and the label that stands for its tag."""

from collections.abc import Callable

from engines import gguf_table
from engines.environments import HUGGINGFACE_GGUF
from qa.readers import running
from qa.readers.words import GGUF, Outcome, Reader, Reference, Result, Variant


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """No model is run."""
    command, environment = running.node("gguf.mjs", HUGGINGFACE_GGUF)
    found = running.ask(command, {"file": str(variant.path), "name": variant.path.name}, environment=environment)
    table = gguf_table.read(variant.path).entries
    if [(item["name"], item["values"]) for item in found["tensors"]] != [(entry.name, entry.values) for entry in table]:
        return Outcome(result=Result.OTHER, words="it lists other tensors or sizes than llama.cpp does")
    strange = sorted({f"{item['type']} for {entry.type}" for item, entry in zip(found["tensors"], table, strict=True) if item["type"] != entry.type})
    if strange:
        return Outcome(result=Result.OTHER, words=f"it names types otherwise: {', '.join(strange)}")
    if found["label"] != variant.tag:
        return Outcome(result=Result.OTHER, words=f"the Hub's label of {variant.path.name} is {found['label'] or 'none'}, not {variant.tag}")
    return Outcome(result=Result.SAME, words=f"{len(table)} tensors, label {found['label']}")


READER = Reader(name="@huggingface/gguf", version=lambda: HUGGINGFACE_GGUF.version, forms=frozenset({GGUF}), missing=HUGGINGFACE_GGUF.missing, ask=ask)
