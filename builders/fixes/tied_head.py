"""Ties the output matrix to the embeddings in a model that says it has one of its own and holds none: transformers would make up a random one."""

from collections.abc import Mapping

from builders.fixes.edits import Edit, Files, value_at
from builders.names import EMBEDDINGS, HEAD
from builders.weights import Tensor
from config.rules import Family

KEY = "tie_word_embeddings"


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Only where config.json says that they are not tied, in so many words: what it says nothing of is the architecture's own business."""
    names = list(tensors)
    if any(name.endswith((HEAD, "embed_out.weight", "output.weight")) for name in names) or not any(name.endswith(EMBEDDINGS) for name in names):
        return []
    keys = ((KEY,), ("text_config", KEY))
    stated = [key for key in keys if value_at(files, "config.json", key) is False]
    return [Edit(file="config.json", key=key, after=True, because=f"the release holds no {HEAD}") for key in stated]
