"""States the scaling of positions of models that were trained on short texts and announce a long context, which without it they cannot use."""

from typing import Any

from builders.fixes.edits import Edit, Files, value_at
from config.rules import Family

FILE = "config.json"
_NONE = {None, "default"}


def repair(files: Files, family: Family | None, *, context: int, original: int, factor: float) -> list[Edit]:
    """Where the config announces `context` tokens, which is `factor` times the `original` ones, and scales nothing, write YaRN with these."""
    stated = value_at(files, FILE, ("max_position_embeddings",))
    if stated != context or any(_kind(value_at(files, FILE, (key,))) not in _NONE for key in ("rope_scaling", "rope_parameters")):
        return []
    scaling = {"factor": factor, "original_max_position_embeddings": original, "type": "yarn"}
    because = f"it announces {context} tokens, which are {original} extended by a factor of {factor:g}"
    return [Edit(file=FILE, key=("rope_scaling",), after=scaling, because=because)]


def _kind(section: Any) -> Any:
    """The kind of scaling that a section names; None where it names none."""
    return section.get("rope_type", section.get("type")) if isinstance(section, dict) else None
