"""Rebuilds a model from its GGUF file in 16 bits: the folder that transformers reads, and that llama.cpp's converter makes the same file of again."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from builders import front_matter, hollow
from builders.front_matter import CARD
from builders.names import SINGLE, held_in, is_legal
from builders.rebuilt import architectures, headers, layout, origin, vocabulary
from builders.rebuilt.architectures import Architecture
from builders.rebuilt.headers import unreadable
from builders.rebuilt.layout import Source
from builders.rebuilt.stated import heads, shortest
from builders.snapshot import facts
from builders.weights import Tensor
from builders.writing import write_file, write_index
from config.errors import UpstreamError
from config.progress import Tally
from engines.gguf_header import Entry, Header, is_narrow, mapped, matrix_type

if TYPE_CHECKING:
    from torch import Tensor as Values

VERSION = 2  # raise when outputs change

SHARD = 5_000_000_000  # bytes of weights in a file, at most but for a larger tensor: as much as transformers writes
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_ADVICE = "general.sampling."  # before the name of each setting that the file advises for sampling; but for the temperature they are called so here as well


def rebuild(out: Path, *, snapshot: Path, files: Sequence[Mapping[str, Any]], over: Sequence[str] = ()) -> dict[str, Any]:
    """Write the model of which `files` in `snapshot` (the parts of one GGUF file in order, each with `path` and `sha256`) hold config, vocabulary and weights.

    Matrices keep their type and every bit. What GGUF has in 32 bits in any file, vectors and routers of experts, gets the matrices' type where that holds it.
    `over` are other files in 16 bits that were not taken. Terms and card of the snapshot stay; what its card does not say of licence and base model is told
    from the file's header.
    Returns `gguf` (these files), `architecture`, `tensors` and a `remark`. Raises UpstreamError for what GGUF alone does not tell, or Sluice does not know.
    """
    paths = [str(file["path"]) for file in files]
    header = headers.read(snapshot, paths)
    describe(out, header, paths[0])
    written = _write_weights(out, snapshot, header, paths[0])
    _accompany(out, snapshot, header)
    name = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more parts"
    beside = f", the widest of the files in 16 bits or more (the others: {', '.join(over)})" if over else ""
    return {
        "gguf": [dict(file) for file in files],
        "architecture": header.architecture,
        "tensors": written,
        "remark": f"from {name}{beside}",
    }


def describe(out: Path, header: Header, file: str) -> None:
    """Write all but weights, card and terms, as far as the header tells. Raises UpstreamError."""
    _json(out / "config.json", architectures.config(header, file))
    vocabulary.write(out, header, file)
    ids = {f"{role}_token_id": number for role, number in architectures.special_ids(header).items() if role in {"bos", "eos", "pad"}}
    stated = {key.removeprefix(_ADVICE): value for key, value in header.fields.items() if key.startswith(_ADVICE)}
    advised = {"temperature" if name == "temp" else name: value for name, value in stated.items()}
    advised |= {"repetition_penalty": stated["penalty_repeat"]} if "penalty_repeat" in stated else {}
    sampling = {name: shortest(value) if isinstance(value, float) else value for name, value in advised.items()}
    _json(out / "generation_config.json", {**ids, **({"do_sample": True} if sampling else {}), **sampling})


def describe_all(out: Path, folder: Path, header: Header, file: str) -> None:
    """What `rebuild` writes, as far as rules read it: weight files that are all header, from a header whose tensors may not be there; the card in `folder`."""
    describe(out, header, file)
    hollow.of([*layout.tensors(header, file).values()], out / SINGLE)
    _accompany(out, folder, header)


def _accompany(out: Path, snapshot: Path, header: Header) -> None:
    """Terms, and the card with what the header says where it is silent."""
    for name, path in held_in(snapshot):
        if is_legal(name):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, out / name)
    card = snapshot / CARD
    own = facts(front_matter.read(card), known=True)
    names = {"languages": "language", "base_models": "base_model"}
    said = {names.get(name, name): list(value) if isinstance(value, tuple) else value for name, value in origin.lacking(own, header.fields).items()}
    if said:
        there = card if card.is_file() else out / CARD
        there.touch()
        (out / CARD).write_text(front_matter.rewritten(there, said), encoding="utf-8")
    elif card.is_file():
        shutil.copyfile(card, out / CARD)


def _write_weights(out: Path, snapshot: Path, header: Header, file: str) -> int:
    """Write the safetensors, a tensor at a time; how many there are."""
    found, sources = architectures.known(header, file), layout.sources(header, file)
    dtype = matrix_type(header)
    tally = Tally(2 * sum(source.bytes for source in sources.values()), "bytes")
    tensors: dict[str, Tensor] = {}
    for name, source in sources.items():  # what is narrowed decides where each tensor lies, so that is looked at first
        kind = dtype if not is_narrow(source.entries[0]) and _fits(snapshot, source, found, dtype) else source.type
        size = source.bytes // _BYTES[source.type] * _BYTES[kind]
        tensors[name] = Tensor(name=name, dtype=kind, shape=source.shape, bytes=size)
        tally.add(source.bytes)
    shards = list(_shards(tensors))
    for number, held in enumerate(shards, 1):
        target = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors |= {name: replace(tensors[name], file=target) for name in held}

        def values(part: Sequence[tuple[Source, str]]) -> Iterator[bytes]:
            for source, kind in part:
                yield _stored(snapshot, source, found, header, kind, file)
                tally.add(source.bytes)

        write_file(out / target, [tensors[name] for name in held], values([(sources[name], tensors[name].dtype) for name in held]))
    if len(shards) > 1:
        write_index(out, {tensor.name: tensor for tensor in tensors.values()})
    return len(tensors)


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Names of what goes into each file, in order."""
    held: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if held and size + tensor.bytes > SHARD:
            yield held
            held, size = [], 0
        held.append(name)
        size += tensor.bytes
    yield held


def _raw(snapshot: Path, source: Source) -> npt.NDArray[Any]:
    """The numbers of a tensor as they are stored; mapped, but for one that is several in the file. Raises UpstreamError."""
    parts = []
    for entry in source.entries:
        try:
            parts.append(mapped(snapshot, entry))
        except (OSError, ValueError) as error:
            raise unreadable(entry.file, error) from error
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return whole if source.expert is None else whole[source.expert]


def _stored(snapshot: Path, source: Source, found: Architecture, header: Header, dtype: str, file: str) -> bytes:
    """The bytes of a tensor as transformers has it."""
    raw, entry = _raw(snapshot, source), source.entries[0]
    if found.permuted and (part := entry.name.rpartition(".")[0].rpartition(".")[2]) in {"attn_q", "attn_k"}:
        queries, keys = heads(header)
        raw = _halves(raw, queries if part == "attn_q" else keys, entry.name, file)
    if dtype == entry.type and not _is_shifted(entry, found):
        return raw.tobytes()
    values = _narrowed(raw, entry, found, dtype)
    return values.view(_integer(dtype)).numpy().tobytes()


def _halves(raw: npt.NDArray[Any], heads: int, name: str, file: str) -> npt.NDArray[Any]:
    """Rows in transformers' order, a head's first halves of rotated pairs before its second ones; llama.cpp has the pairs beside each other."""
    if len(raw) % (2 * heads):
        raise UpstreamError(f"{file} holds {name[:200]} of {len(raw)} rows, which its {heads} heads do not divide. It is damaged; ask its owner.")
    return raw.reshape(heads, len(raw) // heads // 2, 2, *raw.shape[1:]).swapaxes(1, 2).reshape(raw.shape)


def _is_shifted(entry: Entry, found: Architecture) -> bool:
    return found.shifted and entry.name.endswith("norm.weight")


def _integer(dtype: str) -> Any:
    """What PyTorch calls whole numbers of as many bits."""
    import torch

    return torch.int32 if dtype == "F32" else torch.int16


def _values(raw: npt.NDArray[Any], entry: Entry) -> "Values":
    import torch

    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return torch.from_numpy(np.array(raw).view(np.int32 if entry.type == "F32" else np.int16)).view(kinds[entry.type])


def _narrowed(raw: npt.NDArray[Any], entry: Entry, found: Architecture, dtype: str) -> "Values":
    """A tensor in that type, without the one that the converter adds."""
    import torch

    values = _values(raw, entry).float() - (1.0 if _is_shifted(entry, found) else 0.0)
    return values.to({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype])


def _fits(snapshot: Path, source: Source, found: Architecture, dtype: str) -> bool:
    """Whether the converter makes the same tensor of one in that type."""
    raw, entry = _raw(snapshot, source), source.entries[0]
    narrow = _narrowed(raw, entry, found, dtype)
    wide = narrow if dtype == "F16" else narrow.float()  # it computes in 16 bits where they are float16's
    again = (wide + 1 if _is_shifted(entry, found) else wide).float()
    return again.equal(_values(raw, entry).float())


def _json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
