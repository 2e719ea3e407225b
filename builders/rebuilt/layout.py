"""Where a GGUF file has each tensor of the model, by its name in transformers.

Of a mixture of experts the file has one tensor for each kind of matrix in a layer, with those of all experts one above the other. Most architectures have a
tensor for each expert in transformers; Granite's has two of the file's in one, in each expert the rows of one above the other's.
"""

from dataclasses import dataclass

from builders.rebuilt.architectures import EACH, OUTSIDE, Architecture, known
from builders.rebuilt.stated import refused
from builders.weights import Tensor
from engines.gguf_header import Entry, Header

EXPERTS = "_exps.weight"  # ends the name of what holds the matrices of all experts


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a tensor of the model is in the file."""

    entries: tuple[Entry, ...]  # several, all of one type and shape, where the model has their rows in one tensor
    expert: int | None = None  # which of those in the entry it is, where it is one of them

    @property
    def type(self) -> str:
        """Of ggml."""
        return self.entries[0].type

    @property
    def shape(self) -> tuple[int, ...]:
        """In PyTorch's order: experts, rows, columns."""
        shape = self.entries[0].shape
        if self.expert is not None:
            return shape[1:]
        return shape if len(self.entries) == 1 else (shape[0], len(self.entries) * shape[1], shape[2])

    @property
    def bytes(self) -> int:
        """In the file."""
        return sum(entry.bytes for entry in self.entries) // (1 if self.expert is None else self.entries[0].shape[0])


def sources(header: Header, file: str) -> dict[str, Source]:
    """What each tensor of the model is in the file, by its name in transformers. Raises UpstreamError for a tensor that the architecture does not have."""
    found, experts = known(header, file), header.of("expert_count") or 0
    listed: dict[str, list[Entry]] = {}
    for entry in header.tensors:
        if entry.name in found.derived:
            continue
        name = _name(entry.name, found, header.of("block_count"))
        if name is None:
            raise refused(file, f"holds the tensor {entry.name[:200]}, which none of the models has that Sluice knows as {found.model_type}")
        if entry.name.endswith(EXPERTS) and (len(entry.shape) != 3 or entry.shape[0] != experts):
            raise refused(file, f"holds {entry.name[:200]} of the shape {entry.shape}, which are not the matrices of {experts} experts")
        listed.setdefault(name, []).append(entry)
    made: dict[str, Source] = {}
    for name, entries in listed.items():
        if EACH in name:
            made |= {name.format(expert): Source(entries=tuple(entries), expert=expert) for expert in range(experts)}
        else:
            made[name] = Source(entries=_together(entries, file))
    return made


def _together(entries: list[Entry], file: str) -> tuple[Entry, ...]:
    """What makes one tensor, in order. Raises UpstreamError where that cannot be."""
    one, *others = sorted(entries, key=lambda entry: entry.name)  # "ffn_gate_exps" before "ffn_up_exps", as Granite's `input_linear` has their rows
    for other in others:
        if (one.type, one.shape) != (other.type, other.shape):
            raise refused(file, f"holds {one.name[:200]} in {one.type} of the shape {one.shape}, but {other.name[:200]} in {other.type} of {other.shape}")
    return one, *others


def _name(name: str, found: Architecture, layers: int) -> str | None:
    """That in transformers; None where the architecture has no such tensor."""
    stem, _, form = name.rpartition(".")
    if form not in {"weight", "bias"}:
        return None
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{form}"
    block, _, rest = stem.partition(".")
    number, _, part = rest.partition(".")
    if block != "blk" or not number.isdecimal() or number != str(int(number)) or int(number) >= layers:
        return None
    if part not in found.layer or (found.is_mixture and form == "bias"):
        return None
    return f"model.layers.{number}.{found.layer[part]}.{form}"


def tensors(header: Header, file: str) -> dict[str, Tensor]:
    """Each tensor by its name in transformers, stored as in the file. Raises UpstreamError."""
    return {
        name: Tensor(name=name, dtype=source.type, shape=source.shape, bytes=source.bytes, file=source.entries[0].file or file)
        for name, source in sources(header, file).items()
    }
