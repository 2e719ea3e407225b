"""Rebuilds a SentencePiece model from tokenizer.json, where transformers 5 saved nothing else, or where it holds other pieces than tokenizer.json.

llama.cpp's converter reads such vocabularies from this file only.

Pieces have the ids of tokenizer.json. A piece's score is minus the place of the first merge that makes it, so that llama.cpp joins pieces in the order of the
merges; pieces that no merge makes come after all others. Added tokens are control pieces where they are special, and such as text is cut at where not.
"""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it has no stubs
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import Tokenizer

from builders.fixes.edits import Edit, Files, dict_at, list_at, value_at
from builders.fixes.vocabulary import added_tokens, named
from config.rules import Family
from engines import sentencepiece
from engines.battery import TEXTS
from engines.sentencepiece import FILE

_PROTOCOL: Any = sentencepiece_model_pb2  # its classes are made when it is imported, so that nobody knows their types
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BPE = 2
ADDED_SCORE = -1000.0  # as the converter gives them; never looked at


def repair(files: Files, family: Family | None) -> list[Edit]:
    """Make the file where there is none, or a wrong one, and tokenizer.json holds such a vocabulary.

    Nothing is changed unless every text of the battery has the same tokens in both.
    """
    pieces = _pieces(files) if sentencepiece.is_one(dict_at(files, "tokenizer.json", ())) else None
    if pieces is None or (FILE in files and not _contradicted(files, pieces)):
        return []
    prefix = _dummy_prefix(files)
    model = _model(files, pieces, prefix)
    if (count := _agreeing(model, pieces, files)) is None:
        return []
    because = f"{count} texts have the same tokens in both"
    edits = [Edit(file=FILE, key=(), after=model, because=because)]
    unstated = "tokenizer_config.json" in files and value_at(files, "tokenizer_config.json", ("add_prefix_space",)) is None
    if FILE not in files and unstated:
        edits.append(Edit(file="tokenizer_config.json", key=("add_prefix_space",), after=prefix, because="llama.cpp adds a space unless told otherwise"))
    return edits


def _contradicted(files: Files, pieces: list[tuple[str, float, int]]) -> bool:
    """Whether an ordinary piece of the file that is there is another in tokenizer.json. That added tokens take the places of unused ones is usual."""
    stated = _PROTOCOL.ModelProto()
    try:
        stated.ParseFromString(files[FILE])
    except DecodeError:
        return True
    both = zip(stated.pieces, pieces, strict=False)
    return any(one.piece != text for one, (text, _, kind) in both if kind in {NORMAL, BYTE})


def _pieces(files: Files) -> list[tuple[str, float, int]] | None:
    """Text, score and kind of each id; None where ids are not 0, 1, 2 and so on, or a merge is none."""
    vocabulary = dict_at(files, "tokenizer.json", ("model", "vocab"))
    added = {entry["id"]: entry for entry in added_tokens(files) if isinstance(entry.get("id"), int)}
    stated: dict[int, Any] = {number: text for text, number in vocabulary.items() if isinstance(number, int)}
    stated |= {number: entry.get("content") for number, entry in added.items()}
    texts: dict[int, str] = {number: text for number, text in stated.items() if isinstance(text, str) and text}
    if sorted(stated) != list(range(len(texts))):
        return None
    made: dict[str, int] = {}
    for merge in list_at(files, "tokenizer.json", ("model", "merges")):
        match merge.split(" ", 1) if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                made.setdefault(left + right, len(made))
            case _:
                return None
    unknown = value_at(files, "tokenizer.json", ("model", "unk_token"))
    found, last = [], len(made)
    for number in range(len(texts)):
        text, kind, score = texts[number], _kind(texts[number], added.get(number), unknown), ADDED_SCORE
        if kind == NORMAL:
            score = -float(made.get(text, last))
            last += text not in made
        found.append((text, score if kind != BYTE else 0.0, kind))
    return found


def _kind(text: str, added: Mapping[str, Any] | None, unknown: object) -> int:
    if text == unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added.get("special") else USER_DEFINED
    return BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else NORMAL


def _dummy_prefix(files: Files) -> bool:
    """Whether a space is put before every text."""
    whole = [value_at(files, "tokenizer.json", (part,)) for part in ("normalizer", "pre_tokenizer")]
    parts = [*whole, *list_at(files, "tokenizer.json", ("normalizer", "normalizers")), *list_at(files, "tokenizer.json", ("pre_tokenizer", "pretokenizers"))]
    return any(part.get("type") == "Prepend" or part.get("prepend_scheme") in {"first", "always"} for part in parts if isinstance(part, dict))


def _model(files: Files, pieces: list[tuple[str, float, int]], prefix: bool) -> bytes:
    built = _PROTOCOL.ModelProto()
    for text, score, kind in pieces:
        built.pieces.add(piece=text, score=score, type=kind)
    trainer, normalizer, places = built.trainer_spec, built.normalizer_spec, {text: number for number, (text, _, _) in enumerate(pieces)}
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = BPE, len(pieces), True
    roles = named(files)
    for role in ("unk", "bos", "eos", "pad"):
        token = roles.get(f"{role}_token", "")
        setattr(trainer, f"{role}_id", places.get(token, -1))
        if token in places:
            setattr(trainer, f"{role}_piece", token)
    unknown = next((number for number, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN), None)
    if unknown is not None:
        trainer.unk_id, trainer.unk_piece = unknown, pieces[unknown][0]
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = "identity", prefix, False, True
    return bytes(built.SerializeToString(deterministic=True))


def _agreeing(model: bytes, pieces: list[tuple[str, float, int]], files: Files) -> int | None:
    """How many texts both read alike; None when one of them is read otherwise, or the model cannot be read at all."""
    try:
        sentences, tokenizer = SentencePieceProcessor(model_proto=model), Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    except Exception:  # noqa: BLE001 - the vocabulary is a stranger's: either library may find anything wrong with it
        return None
    control = [text for text, _, kind in pieces if kind in {CONTROL, UNKNOWN}]
    texts = [text for text in TEXTS if "\0" not in text and not any(piece in text for piece in control)]  # SentencePiece never reads a control piece from text
    for text in texts:
        if sentences.encode(text) != tokenizer.encode(text, add_special_tokens=False).ids:
            return None
    return len(texts)
