"""Is a model that was rebuilt from a GGUF file the model in that file? Converted back it has to give the same file, and its tokenizer the same tokens.

Compared are every value of every tensor, all of the header that llama.cpp computes or tokenizes with, templates, and ids of the battery's texts. Not compared
is what only describes the model, and what a header need not say because llama.cpp takes the same without it.
"""

import struct
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from config.errors import ConversionError, MeasurementError, UpstreamError
from config.progress import Tally
from engines import converted, gguf_header, hf, llama, tools
from engines.gguf_header import Header, mapped
from qa import templates

VERSION = 1  # raise when outputs change

CHUNK = 2**24  # values that are compared at a time
SHOWN = 60  # characters of a value that a sentence quotes
_TOKENIZER = "tokenizer."
# what says nothing of how the model computes, or is compared otherwise: ids by llama.cpp's own reading of them
_PASSED = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token")
_UNREAD = (
    *("tokenizer.huggingface.json", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id", "tokenizer.ggml.cls_token_id"),
    *("tokenizer.ggml.seperator_token_id", "tokenizer.ggml.mask_token_id", "tokenizer.ggml.add_sep_token", "tokenizer.ggml.eot_token_id"),
    *("tokenizer.ggml.eom_token_id", "tokenizer.ggml.remove_extra_whitespaces", "tokenizer.ggml.precompiled_charsmap"),
)


def prove(out: Path, *, model: Path, snapshot: Path, files: Sequence[str]) -> dict[str, Any]:
    """Convert `model` back, and compare that with `files`, the GGUF file or its parts in `snapshot` that it was rebuilt from.

    Returns how many `tensors`, `fields` and `texts` were the same. Raises UpstreamError that says what differs, ToolError when the converter is not installed
    or was killed.
    """
    header = gguf_header.joined({path: gguf_header.read(snapshot / path) for path in files})
    again = _converted(out, model, header, files[0])
    try:
        other = gguf_header.joined({again.name: gguf_header.read(again)})
        for what in chain(_tensors(header, snapshot, other, out), _fields(header, other), _vocabularies(snapshot / files[0], again)):
            raise _refused(files[0], what)
    finally:
        again.unlink(missing_ok=True)
    texts = _tokenized(model, snapshot / files[0])
    return {"tensors": len(header.tensors), "fields": len(_computing(header)), "texts": texts}


def _converted(out: Path, model: Path, header: Header, file: str) -> Path:
    """The model as the converter makes it, in the types of the file. Raises UpstreamError when it does not take it."""
    target = out / "again.gguf"
    with tempfile.TemporaryDirectory(prefix="sluice-proof-") as folder:
        named = Path(folder) / "model"
        named.mkdir()
        converted.link(model, named)
        try:
            tools.convert(named, "--outtype", gguf_header.matrix_type(header).lower(), "--outfile", target.resolve(), cwd=Path(folder))
        except ConversionError as error:
            target.unlink(missing_ok=True)
            said = str(error).strip().splitlines()[-1]
            raise _refused(file, f"llama.cpp's converter, whose file it would have to be, does not take the model: {said[:300]}") from error
    return target


def _refused(file: str, what: str) -> UpstreamError:
    return UpstreamError(
        f"{file} was rebuilt, and the proof failed: {what}. It was made by another program or version than llama.cpp's own converter, or changed afterwards. "
        "Release the repo that it was made from, which its card should name, or `sluice quantize` the file alone."
    )


def _tensors(header: Header, folder: Path, other: Header, out: Path) -> Iterator[str]:
    """The first tensor that is another one."""
    ours, theirs = ({entry.name: entry for entry in found.tensors} for found in (other, header))
    if lacking := sorted(ours.keys() ^ theirs.keys()):
        yield f"the tensor {lacking[0][:200]} is {'not in it' if lacking[0] in ours else 'lost'}"
        return
    tally = Tally(sum(entry.bytes for entry in theirs.values()), "bytes")
    for name, entry in theirs.items():
        if entry.shape != ours[name].shape:
            yield f"{name[:200]} is {entry.shape} there and {ours[name].shape} converted back"
            return
        if not _same(mapped(folder, entry), entry.type, mapped(out, ours[name]), ours[name].type):
            yield f"{name[:200]} has other values when it is converted back"
            return
        tally.add(entry.bytes)


def _same(one: npt.NDArray[Any], type: str, other: npt.NDArray[Any], other_type: str) -> bool:
    """Whether all bits are the same; of two types, those of the values in float32, which holds either's."""
    one, other = one.reshape(-1), other.reshape(-1)
    for at in range(0, len(one), CHUNK):
        ours, theirs = one[at : at + CHUNK], other[at : at + CHUNK]
        if type != other_type:
            ours, theirs = _wide(ours, type), _wide(theirs, other_type)
        if not np.array_equal(ours, theirs):
            return False
    return True


def _wide(raw: npt.NDArray[Any], type: str) -> npt.NDArray[np.uint32]:
    """The bits in float32."""
    if type == "BF16":
        return np.left_shift(raw.astype(np.uint32), np.uint32(16))
    wide: npt.NDArray[np.uint32] = raw.view(np.float16).astype(np.float32).view(np.uint32) if type == "F16" else raw
    return wide


def _computing(header: Header) -> dict[str, Any]:
    """The fields that the network or the tokenizer is made by, and what the model advises for sampling."""
    kept = (f"{header.architecture}.", _TOKENIZER, "general.sampling.")
    return {key: value for key, value in header.fields.items() if key.startswith(kept) and key not in (*_PASSED, *_UNREAD)}


def _fields(header: Header, other: Header) -> Iterator[str]:
    """Fields that say something else. What only one of the two states must be what llama.cpp takes without it."""
    theirs, ours = _computing(header), _computing(other)
    for key in sorted(theirs.keys() | ours.keys()):
        stated, made = theirs.get(key), ours.get(key)
        if stated is None or made is None:
            usual = _unstated(key, header)
            stated, made = (usual if value is None else value for value in (stated, made))
        if not _alike(stated, made):
            yield f"{key} is {_shown(stated)} there and {_shown(made)} converted back{_where(stated, made)}"


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same to a program that reads numbers of 32 bits."""
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<f", one) == struct.pack("<f", other)
    return type(one) is type(other) and bool(one == other)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "not stated" if value is None else repr(value)[:SHOWN]


def _where(one: Any, other: Any) -> str:
    """At which entry two lists part."""
    if not isinstance(one, list) or not isinstance(other, list):
        return ""
    place = next((at for at, (ours, theirs) in enumerate(zip(one, other, strict=False)) if ours != theirs), min(len(one), len(other)))
    said = [repr(found[place])[:SHOWN] if place < len(found) else "nothing" for found in (one, other)]
    return f", from entry {place} on ({said[0]}, {said[1]})"


def _unstated(key: str, header: Header) -> Any:
    """What llama.cpp (0.3.36) takes where a header does not say it; None where it would not do without."""
    architecture, _, name = key.partition(".")
    if architecture == "tokenizer":
        spm = header.fields.get("tokenizer.ggml.model") == "llama"
        return {"tokenizer.ggml.add_space_prefix": spm, "tokenizer.ggml.pre": "default" if spm else None}.get(key)
    queries = header.of("attention.head_count", 1)
    width = header.of("attention.key_length", header.of("embedding_length", 0) // max(queries, 1))
    return {
        "attention.head_count_kv": queries,
        "attention.key_length": width,
        "attention.value_length": width,
        "expert_shared_feed_forward_length": 0,
        "rope.dimension_count": width,
        "rope.freq_base": 10_000.0,
        "rope.freq_base_swa": 10_000.0,
        "rope.scaling.type": "none" if not header.of("rope.scaling.factor") else "linear",
        "rope.scaling.finetuned": False,
        "vocab_size": len(header.fields.get("tokenizer.ggml.tokens", ())),
    }.get(name)


def _vocabularies(original: Path, again: Path) -> Iterator[str]:
    """Tokens with a role that llama.cpp takes from the two files."""
    with llama.open_vocabulary(original) as one, llama.open_vocabulary(again) as other:
        for what, ours, theirs in (
            ("the token that begins a text", one.bos, other.bos),
            ("the token that ends a text", one.eos, other.eos),
            ("whether a text begins with it", one.adds_bos, other.adds_bos),
            ("the set of tokens that end an answer", sorted(one.end_of_generation), sorted(other.end_of_generation)),
            ("what is put around a text", one.tokenize("a", add_special=True), other.tokenize("a", add_special=True)),
        ):
            if ours != theirs:
                yield f"{what} is {ours} there and {theirs} converted back"


def _tokenized(model: Path, original: Path) -> int:
    """How many texts have the same tokens in the rebuilt tokenizer and, by the file, in llama.cpp. Raises UpstreamError."""
    try:
        tokenizer = hf.load_tokenizer(model)
    except MeasurementError as error:
        raise _refused(original.name, f"the rebuilt tokenizer cannot be loaded ({error})") from error
    with llama.open_vocabulary(original) as vocabulary:
        mismatches, known, departures = templates.tokenizer_mismatches(tokenizer, vocabulary)
        for what in (
            *mismatches.details,
            *departures.details,
            *templates.alike_in_bos(tokenizer, vocabulary),
            *templates.unread_specials(tokenizer, vocabulary),
        ):
            raise _refused(original.name, f"its tokenizer reads a text otherwise than llama.cpp does by the file: {what}")
        around = hf.encode(tokenizer, "a", add_special=True), vocabulary.tokenize("a", add_special=True)
    if around[0] != around[1]:
        raise _refused(original.name, f"'a' is {around[0]} with what is put around a text, and {around[1]} in llama.cpp")
    return int((mismatches.n or 0) - known.value)
