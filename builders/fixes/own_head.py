"""Says in config.json that a model has an output matrix of its own, where it stores one that differs from the embeddings that are said to be it."""

from builders.fixes.edits import Edit, Files, value_at
from builders.ties import KEY, Spare
from config.rules import Family


def repair(files: Files, family: Family | None, *, spare: Spare | None) -> list[Edit]:
    """So transformers 5 and llama.cpp read the weights, and so transformers 4 does then."""
    if spare is None or not spare.differing:
        return []
    because = f"{spare.tensor.name} and {spare.embeddings} differ in {spare.differing:,} of {max(spare.tensor.shape[0], spare.differing):,} rows"
    nested = [("text_config", KEY)] if value_at(files, "config.json", ("text_config", KEY)) is not None else []
    return [Edit(file="config.json", key=key, after=False, because=because) for key in ((KEY,), *nested)]
