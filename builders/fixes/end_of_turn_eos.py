"""Makes the token that ends the assistant's turn the end-of-sequence token, in every file that names one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at, value_at
from builders.fixes.templates import end_of_turn
from builders.fixes.vocabulary import BY_ID, BY_TEXT, role_key, special_ids, text_of
from builders.fixes.weight_shapes import rows
from builders.weights import Tensor
from config.rules import Family


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor] = MappingProxyType({})) -> list[Edit]:
    """Set eos to the token that the chat template puts after an answer. A list of ids that lacks it gets it as its first, and so does a single id where a list
    may stand, in generation_config.json; one that has it is left alone.

    A token that has no row in the embeddings ends nothing: no model can write it.
    """
    token, count = end_of_turn(files), rows(tensors, dict_at(files, "config.json", ()))
    if token is None:
        return []
    number = special_ids(files)[token]
    if count is not None and number >= count:
        return []
    because = f"the chat template ends the turn with {token}"
    edits = []
    for file in BY_TEXT:
        stated = value_at(files, file, ("eos_token",))
        if file in files and text_of(stated) != token and not (stated is None and file == "special_tokens_map.json"):
            edits.append(Edit(file=file, key=role_key(files, file, "eos_token"), after=token, because=because))
    for file in BY_ID:
        stated = value_at(files, file, ("eos_token_id",))
        if file in files and number not in _as_list(stated):
            others = stated if isinstance(stated, list) else [stated] if isinstance(stated, int) else []
            after = number if file == "config.json" and not isinstance(stated, list) else [number, *others]
            edits.append(Edit(file=file, key=("eos_token_id",), after=after, because=because))
    return edits


def _as_list(stated: Any) -> list[Any]:
    return stated if isinstance(stated, list) else [stated]
