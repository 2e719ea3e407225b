"""Makes ids of special tokens tokens of the vocabulary, where they are negative, beyond it, no numbers, lists of them or missing."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from builders.fixes.edits import Edit, Files, Key, dict_at, value_at
from builders.fixes.templates import end_of_turn
from builders.fixes.vocabulary import BY_ID, BY_TEXT, added_tokens, named, special_ids, text_of
from builders.fixes.weight_shapes import rows
from builders.weights import Tensor
from config.errors import UpstreamError
from config.rules import Family

ROLES = {f"{role}_token_id": f"{role}_token" for role in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")}
"""What llama.cpp's converter reads of config.json, which ends at a negative number."""
FORCED = {"decoder_start_token_id": None, "forced_bos_token_id": None, "forced_eos_token_id": None}
"""What `generate` of transformers begins or ends with whatever the model says: an id beyond the vocabulary ends in an error there."""
EOS, GENERATION = "eos_token_id", "generation_config.json"
SEVERAL = frozenset({EOS, "decoder_start_token_id", "forced_eos_token_id"})  # may be lists
STANDING_IN = re.compile(r"((?:(?:image|video|audio|vision)(?:_(?:start|end))?|[be]o[ia])_token)_(?:id|index)")
"""For what is no text, or at its beginning or end: numbers for transformers 5, which refuses all else."""
NAMING = (*BY_TEXT, "processor_config.json")


def repair(files: Files, family: Family | None, *, tensors: Mapping[str, Tensor]) -> list[Edit]:
    """Set what a sound statement says: another part of the same list, the tokenizer's files, the other file of ids; without any, nothing begins or pads a text.

    Only the end of a text may be several tokens, and what an answer is forced to begin or end with. generation_config.json names the end when any file does,
    for there transformers looks. A token that stands in for an image, video or sound, or at its beginning or end, is one with that name in tokenizer or
    processor, or else `<|vision_start|>` and such in the vocabulary. Where there is none, a number stays: text needs it not, and several of transformers'
    models take one beyond the vocabulary (Gemma 3's). So does a token that another file calls otherwise: which of its tokens a processor puts in place of
    an image is said in its code alone (Aya Vision's `image_token` is not that one), and `qa.image_prompts` asks it.
    Raises UpstreamError when a file names an unsound end and no file a sound one, or for such a token something that is no number.
    """
    vocabulary = _vocabulary(files, tensors)
    return [edit for file in BY_ID if file in files for edit in _edits(files, file, vocabulary)]


def _edits(files: Files, file: str, vocabulary: int | None) -> Iterator[Edit]:
    sections: tuple[Key, ...] = ((), ("text_config",)) if file == "config.json" else ((),)
    for section in sections:
        if isinstance(value_at(files, file, section), dict):
            for key, role in (ROLES | FORCED).items():
                yield from _settled(files, file, (*section, key), role, vocabulary)
            yield from _standing_in(files, file, section, vocabulary)


def _settled(files: Files, file: str, place: Key, role: str | None, vocabulary: int | None) -> Iterator[Edit]:
    key, stated = str(place[-1]), value_at(files, file, place)
    missing = stated is None and key == EOS and (file == GENERATION or (GENERATION not in files and key in value_at(files, file, place[:-1])))
    if not missing and (stated is None or _is_sound(stated, key, vocabulary)):
        return
    sound = _chosen(_numbers(stated, vocabulary), key)
    found = sound if sound is not None else _elsewhere(files, key, role, vocabulary)
    if found is None and key == EOS and not missing:
        raise UpstreamError(
            f"{file} of the release says that {key} is {_shown(stated)}, which is no token of its vocabulary{_size(vocabulary)}, and no other file "
            "names the end of a text, so that answers would never end. Ask its owner which token it is, and write its id there."
        )
    if found is not None or not missing:
        fault = f"it was {_shown(stated)}" if sound is not None else f"{_shown(stated)} is no token of the vocabulary{_size(vocabulary)}"
        yield Edit(file=file, key=place, after=found, because="it was missing" if missing else fault)


def _standing_in(files: Files, file: str, section: Key, vocabulary: int | None) -> Iterator[Edit]:
    for key, stated in dict_at(files, file, section).items():
        kind = STANDING_IN.fullmatch(key)
        if kind is None or stated is None or _is_sound(stated, key, vocabulary):
            continue
        sound = _chosen(_numbers(stated, vocabulary), key)
        found = sound if sound is not None else _named(files, kind[1], vocabulary)
        if found is None and not (isinstance(stated, int) and not isinstance(stated, bool)):
            raise UpstreamError(
                f"{file} of the release says that {'.'.join(map(str, (*section, key)))} is {_shown(stated)}, which is no id, and neither tokenizer nor "
                f"processor names the {kind[1]}, so that transformers would not load the model. Ask its owner which token it is, and write its id there."
            )
        if found is not None:
            yield Edit(file=file, key=(*section, key), after=found, because=f"{_shown(stated)} is no token of the vocabulary{_size(vocabulary)}")


def _named(files: Files, role: str, vocabulary: int | None) -> int | None:
    """The id of the token that a tokenizer or processor names for that, or that is called so itself, as no token in place of an image is."""
    listed = {entry.get("content"): entry.get("id") for entry in added_tokens(files)}
    texts = [text_of(value_at(files, file, key)) for file in NAMING for key in ((role,), ("extra_special_tokens", role))]
    texts += [f"<|{role.removesuffix('_token')}|>"] if role.endswith(("_start_token", "_end_token")) else []
    return next((listed[text] for text in texts if text in listed and _is_token(listed[text], vocabulary)), None)


def _elsewhere(files: Files, key: str, role: str | None, vocabulary: int | None) -> Any:
    """What the rest of the files says of a role: in config.json or generation_config.json, or by its text."""
    for file in reversed(BY_ID):
        stated = value_at(files, file, (key,))
        if _is_sound(stated, key, vocabulary):
            return stated
    if role is None:
        return None
    texts = [named(files).get(role) or next(filter(None, (text_of(value_at(files, file, (role,))) for file in BY_TEXT)), None)]
    texts += [end_of_turn(files)] if key == EOS else []
    ids = special_ids(files)
    return next((ids[text] for text in texts if text in ids and _is_token(ids[text], vocabulary)), None)


def _chosen(numbers: list[int], key: str) -> Any:
    """Of sound ids in what was stated: all for the end of a text, the first for other roles."""
    if not numbers:
        return None
    return numbers if key in SEVERAL and len(numbers) > 1 else numbers[0]


def _numbers(stated: Any, vocabulary: int | None) -> list[int]:
    items = stated if isinstance(stated, list) else [stated]
    numbers = [int(item) if (isinstance(item, str) and item.isdecimal()) or (isinstance(item, float) and item.is_integer()) else item for item in items]
    return [number for number in numbers if _is_token(number, vocabulary)]


def _is_sound(stated: Any, key: str, vocabulary: int | None) -> bool:
    if isinstance(stated, list):
        return key in SEVERAL and bool(stated) and all(_is_token(item, vocabulary) for item in stated)
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
