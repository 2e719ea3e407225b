"""Makes ids of special tokens tokens of the vocabulary, where they are negative, beyond it, no numbers, lists of them or missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, Key, dict_at, value_at
from builders.fixes.templates import end_of_turn
from builders.fixes.vocabulary import BY_ID, named, special_ids
from builders.fixes.weight_shapes import rows
from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import Family

ROLES = {"bos_token_id": "bos_token", "eos_token_id": "eos_token", "pad_token_id": "pad_token"}
EOS, GENERATION = "eos_token_id", "generation_config.json"


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Set what a sound statement says: another part of the same list, the tokenizer's files, the other file of ids; without any, nothing begins or pads a text.

    Only the end of a text may be several tokens. generation_config.json names it when any file does, for there transformers looks.
    Raises UpstreamError when a file names an unsound end and no file a sound one.
    """
    vocabulary = _vocabulary(files, tensors)
    return [edit for file in BY_ID if file in files for edit in _edits(files, file, vocabulary)]


def _edits(files: Files, file: str, vocabulary: int | None) -> Iterator[Edit]:
    sections: tuple[Key, ...] = ((), ("text_config",)) if file == "config.json" else ((),)
    for section in sections:
        for key, role in ROLES.items() if isinstance(value_at(files, file, section), dict) else ():
            stated = value_at(files, file, (*section, key))
            missing = stated is None and key == EOS and (file == GENERATION or (GENERATION not in files and key in value_at(files, file, section)))
            if not missing and (stated is None or _is_sound(stated, key, vocabulary)):
                continue
            sound = _chosen(_numbers(stated, vocabulary), key)
            found = sound if sound is not None else _elsewhere(files, key, role, vocabulary)
            if found is None and key == EOS and not missing:
                raise UpstreamError(
                    f"{file} of the release says that {key} is {_shown(stated)}, which is no token of its vocabulary{_size(vocabulary)}, and no other file "
                    "names the end of a text, so that answers would never end. Ask its owner which token it is, and write its id there."
                )
            if found is not None or not missing:
                fault = f"it was {_shown(stated)}" if sound is not None else f"{_shown(stated)} is no token of the vocabulary{_size(vocabulary)}"
                yield Edit(file=file, key=(*section, key), after=found, because="it was missing" if missing else fault)


def _elsewhere(files: Files, key: str, role: str, vocabulary: int | None) -> Any:
    """What the rest of the files says of a role: in config.json or generation_config.json, or by its text."""
    for file in reversed(BY_ID):
        stated = value_at(files, file, (key,))
        if _is_sound(stated, key, vocabulary):
            return stated
    texts = [named(files).get(role)] + ([end_of_turn(files)] if key == EOS else [])
    ids = special_ids(files)
    return next((ids[text] for text in texts if text in ids and _is_token(ids[text], vocabulary)), None)


def _chosen(numbers: list[int], key: str) -> Any:
    """Of sound ids in what was stated: all for the end of a text, the first for other roles."""
    if not numbers:
        return None
    return numbers if key == EOS and len(numbers) > 1 else numbers[0]


def _numbers(stated: Any, vocabulary: int | None) -> list[int]:
    items = stated if isinstance(stated, list) else [stated]
    numbers = [int(item) if (isinstance(item, str) and item.isdecimal()) or (isinstance(item, float) and item.is_integer()) else item for item in items]
    return [number for number in numbers if _is_token(number, vocabulary)]


def _is_sound(stated: Any, key: str, vocabulary: int | None) -> bool:
    if isinstance(stated, list):
        return key == EOS and bool(stated) and all(_is_token(item, vocabulary) for item in stated)
    return _is_token(stated, vocabulary)


def _is_token(number: Any, vocabulary: int | None) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0 and (vocabulary is None or number < vocabulary)


def _vocabulary(files: Files, tensors: Mapping[str, Tensor]) -> int | None:
    """How many tokens the model knows: the rows of its embeddings, or what config.json says."""
    stated = [value_at(files, "config.json", key) for key in (("vocab_size",), ("text_config", "vocab_size"))]
    return rows(tensors, dict_at(files, "config.json", ())) or next((size for size in stated if isinstance(size, int) and size > 0), None)


def _shown(stated: Any) -> str:
    return repr(stated)[:100]


def _size(vocabulary: int | None) -> str:
    return "" if vocabulary is None else f" of {vocabulary}"
