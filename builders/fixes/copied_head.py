"""Leaves out a copy of the embeddings that stands as output matrix in a model whose embeddings are its output matrix; `builders.float8` writes the weights."""

from builders.fixes.edits import Edit, Files
from builders.ties import Spare
from config.rules import Family


def repair(files: Files, family: Family | None, *, spare: Spare | None) -> list[Edit]:
    """The tensor is taken out of the file that holds it. What differs in a single row is no copy."""
    if spare is None or spare.differing:
        return []
    size = spare.tensor.bytes / 1e6
    because = f"{size:,.0f} MB, the values of {spare.embeddings}" if size >= 1 else f"the values of {spare.embeddings}"
    return [Edit(file=spare.tensor.file, key=(spare.tensor.name,), remove=True, before=f"a copy of {spare.embeddings}", because=because)]
