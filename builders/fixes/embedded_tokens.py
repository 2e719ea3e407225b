"""Drops added tokens that have no row in the embeddings, as a padding token that was added for training and never embedded: a batch that holds one fails."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from builders.fixes.edits import Edit, Files, dict_at, list_at, value_at
from builders.fixes.templates import end_of_turn
from builders.fixes.vocabulary import BY_ID, BY_TEXT, ROLES, added_tokens, role_key, special_ids, text_of
from builders.fixes.weight_shapes import rows
from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import Family

NEEDED = {"eos_token": "ends turns", "bos_token": "begins texts"}
"""Roles that no other token can take."""


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor], candidates: Sequence[str] = ()) -> list[Edit]:
    """Take them out of the tokenizer's files; where one has a role, another token takes that, or nothing has it.

    `candidates` are tokens for padding, in order of preference. Raises UpstreamError when a missing token ends a turn or begins a text.
    """
    count = rows(tensors, dict_at(files, "config.json", ()))
    missing = {} if count is None else {text: number for text, number in _added(files).items() if number >= count}
    if not missing:
        return []
    named = [(file, role) for file in BY_TEXT for role in ROLES if text_of(value_at(files, file, (role,))) in missing]
    for text, does, where in _needed(files, named):
        if text in missing:
            raise UpstreamError(
                f"{text} ({missing[text]}) {does} and has no row in the embeddings ({count} rows): it is {where}, and no engine can compute it. Ask its owner "
                "for weights that were saved after the embeddings were resized; or, where the model was trained with another token there, write that one in "
                f"the tokenizer's files and the chat template, and take {text} out of them."
            )
    ids = special_ids(files)
    pad = next((text for text in candidates if text in ids and text not in missing), None)
    because = f"{', '.join(f'{text} ({number})' for text, number in missing.items())} of {count} rows"
    edits = []
    for file, role in named:
        if role == "pad_token" and pad is not None:
            edits.append(Edit(file=file, key=role_key(files, file, role), after=pad, because=because))
        else:
            edits.append(Edit(file=file, key=(role,), remove=True, because=because))
    numbered = (file for file in BY_ID if value_at(files, file, ("pad_token_id",)) in [*missing.values()])
    edits += [Edit(file=file, key=("pad_token_id",), after=None if pad is None else ids[pad], because=because) for file in numbered]
    return [*edits, *_dropped(files, missing, because)]


def _needed(files: Files, named: Sequence[tuple[str, str]]) -> Iterator[tuple[str | None, str, str]]:
    """Tokens that no other can stand for: their text, what they do, and where that is said."""
    yield from ((text_of(value_at(files, file, (role,))), NEEDED[role], f"{role} of {file}") for file, role in named if role in NEEDED)
    yield end_of_turn(files), NEEDED["eos_token"], "what the chat template puts after an answer"


def _added(files: Files) -> dict[str, int]:
    """Ids of added tokens by text, from every file that lists them."""
    found: dict[str, Any] = {}
    for entry in added_tokens(files):
        if isinstance(entry.get("content"), str):
            found[entry["content"]] = entry.get("id")
    for number, entry in dict_at(files, "tokenizer_config.json", ("added_tokens_decoder",)).items():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and number.isdecimal():
            found.setdefault(entry["content"], int(number))
    found |= {text: number for text, number in dict_at(files, "added_tokens.json", ()).items() if text not in found}
    return {text: number for text, number in found.items() if isinstance(number, int) and not isinstance(number, bool)}


def _dropped(files: Files, missing: Mapping[str, int], because: str) -> list[Edit]:
    edits = []
    listed = list_at(files, "tokenizer.json", ("added_tokens",))
    kept = [entry for entry in listed if not (isinstance(entry, dict) and text_of(entry) in missing)]
    if kept != listed:
        edits.append(Edit(file="tokenizer.json", key=("added_tokens",), after=kept, because=because))
    decoder = dict_at(files, "tokenizer_config.json", ("added_tokens_decoder",))
    gone = [number for number, entry in decoder.items() if text_of(entry) in missing]
    edits += [Edit(file="tokenizer_config.json", key=("added_tokens_decoder", number), remove=True, because=because) for number in gone]
    edits += [Edit(file="added_tokens.json", key=(text,), remove=True, because=because) for text in missing if text in dict_at(files, "added_tokens.json", ())]
    for file in BY_TEXT:
        more = list_at(files, file, ("additional_special_tokens",))
        left = [entry for entry in more if text_of(entry) not in missing]
        if left != more:
            edits.append(Edit(file=file, key=("additional_special_tokens",), after=left, because=because))
    return edits
