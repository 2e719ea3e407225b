"""Merges an adapter into its base model, a tensor at a time in float32, and proves it: the targeted weights changed, every other bit is the base's."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders import hollow
from builders.adapters import description, files
from builders.adapters.changes import Change, Changes, changes
from builders.links import link_or_copy
from builders.names import ADAPTER, ADAPTER_WEIGHTS, EMBEDDINGS, HEAD, INDEX
from builders.weights import Tensor, read_header, weight_files
from builders.writing import write_file, write_index
from config.errors import StageError, UpstreamError
from config.progress import Tally

if TYPE_CHECKING:
    import torch

VERSION = 3  # raise when outputs change

SHOWN = 3  # tensors that a sentence names


def merge(out: Path, *, adapter: Path, base: Path, repo: str, below: str, headers: bool = False) -> dict[str, Any]:
    """Write the model that the adapter in one folder makes of the base in another; `repo` and `below` are what these are called in errors.

    With `headers`, weight files are all header, and those of the folders may be. Otherwise returns how many tensors were `changed`, how many `unchanged`
    although the adapter is about them, of how many `tensors`, and what `rounded` of the change: the norm of what storing it in the base's types took away,
    as a share of the norm of the change. Raises UpstreamError when the adapter does not fit, a result is not finite, or nothing changes.
    """
    described = description.read(adapter / ADAPTER, repo)
    own, stored = _tensors([adapter / ADAPTER_WEIGHTS]), _tensors(weight_files(base))
    names, model_type = (repo, below), _model_type(base)
    found = changes(described, own, stored, model_type=model_type, names=names)
    if found.untied and not headers and _held_together(found, adapter / ADAPTER_WEIGHTS):
        found = changes(replace(described, tied=True), own, stored, model_type=model_type, names=names)
    files.assemble(out, base=base, adapter=adapter, found=found)
    made = _Made(found=found, tally=Tally(2 * sum(tensor.bytes for tensor in found.tensors.values()), "bytes"))
    with ExitStack() as opened:
        reading = _Reading(opened=opened, base=base, stored=stored, adapter=adapter / ADAPTER_WEIGHTS)
        for path in weight_files(base):
            there = [tensor for tensor in found.tensors.values() if tensor.file == path.name]
            if headers:
                hollow.of(there, out / path.name)
            elif any(tensor.name in found.changed for tensor in there):
                write_file(out / path.name, there, made.values(there, reading, names))
            else:
                link_or_copy(path, out / path.name)
    if (base / INDEX).is_file():
        write_index(out, found.tensors)
    return {} if headers else {**_proved(out, base, stored, made, names), "tensors": len(found.tensors), "untied": found.untied}


def _tensors(paths: Sequence[Path]) -> dict[str, Tensor]:
    return {tensor.name: tensor for path in paths for tensor in read_header(path)}


def _model_type(base: Path) -> str:
    """What config.json calls the architecture; nothing where it cannot be read, which the fixes say."""
    try:
        content = json.loads((base / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return str(content.get("model_type", "")) if isinstance(content, dict) else ""


def _held_together(found: Changes, file: Path) -> bool:
    """Whether the adapter holds embeddings and output of a tied base as two equal copies, as PEFT saves them when tokens were added."""
    import torch
    from safetensors import safe_open

    head = found.changed[HEAD]
    table = next((change for name, change in found.changed.items() if name.endswith(EMBEDDINGS)), None)
    if table is None or head.whole is None or table.whole is None or head.a or table.a:
        return False
    with safe_open(file, framework="pt") as tensors:
        return torch.equal(tensors.get_tensor(head.whole), tensors.get_tensor(table.whole))


@dataclass(kw_only=True)
class _Reading:
    """Tensors of both models, read where they are asked for."""

    opened: ExitStack
    base: Path  # folder
    stored: Mapping[str, Tensor]
    adapter: Path  # file
    files: dict[Path, Any] = field(default_factory=dict)

    def _read(self, file: Path, name: str) -> "torch.Tensor":
        from safetensors import safe_open

        if file not in self.files:
            self.files[file] = self.opened.enter_context(safe_open(file, framework="pt"))
        values: torch.Tensor = self.files[file].get_tensor(name)
        return values

    def below(self, name: str) -> "torch.Tensor":
        """A tensor of the base."""
        return self._read(self.base / self.stored[name].file, name)

    def own(self, name: str) -> "torch.Tensor":
        """One of the adapter, in float32."""
        return self._read(self.adapter, name).float()


@dataclass(kw_only=True)
class _Made:
    """What comes of the merge, and how exactly it is stored."""

    found: Changes
    tally: Tally
    change: float = 0.0  # sum of squares of what low-rank changes add
    lost: float = 0.0  # of what rounding took away from the sums

    def values(self, tensors: Sequence[Tensor], reading: _Reading, names: tuple[str, str]) -> Iterator[bytes]:
        """The bytes of each tensor as they are to be written. Raises UpstreamError when a result is not finite."""
        import torch

        for tensor in tensors:
            change = self.found.changed.get(tensor.name)
            values = reading.below(tensor.name) if change is None else self._merged(change, reading)
            if change is not None and not torch.isfinite(values).all():
                raise UpstreamError(
                    f"Merging {names[0]} into {names[1]} makes values of {tensor.name[:200]} that are infinite or no numbers in {tensor.dtype}. The adapter is "
                    "damaged, or was made for another base: ask its owner."
                )
            yield values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            self.tally.add(tensor.bytes)

    def _merged(self, change: Change, reading: _Reading) -> "torch.Tensor":
        before = reading.below(change.source)
        exact = before.float() if change.whole is None else reading.own(change.whole)
        if change.a is None or change.b is None:
            return before if change.whole is None else exact.to(before.dtype)
        product = reading.own(change.b) @ reading.own(change.a)
        delta = (product.T if change.turned else product) * change.scale
        merged = exact + delta
        if change.magnitude is not None:
            norm = merged.norm(dim=0 if change.turned else 1)
            factor = reading.own(change.magnitude) / norm
            merged = merged * (factor if change.turned else factor[:, None])
            delta = merged - exact
        rounded = merged.to(before.dtype)
        self.change += float(delta.double().square().sum())
        self.lost += float((rounded.double() - merged.double()).square().sum())
        return rounded


def _proved(out: Path, base: Path, stored: Mapping[str, Tensor], made: _Made, names: tuple[str, str]) -> dict[str, Any]:
    """Read what was written again, beside the base. Raises StageError when a tensor changed that is no target, UpstreamError when no target did."""
    import torch

    written, changed, unchanged, wrong = _tensors(weight_files(out)), 0, [], []
    with ExitStack() as opened:
        now = _Reading(opened=opened, base=out, stored=written, adapter=out)
        before = _Reading(opened=opened, base=base, stored=stored, adapter=out)
        for name, expected in made.found.tensors.items():
            tensor, target = written.get(name), name in made.found.changed
            same = False
            if tensor is not None and name in stored and (tensor.dtype, tensor.shape) == (stored[name].dtype, stored[name].shape):
                same = torch.equal(*(side.below(name).reshape(-1).view(torch.uint8) for side in (now, before)))
            if tensor != expected or not (same or target):
                wrong.append(name)
            elif target and same:
                unchanged.append(name)
            changed += target and not same
            made.tally.add(expected.bytes)
    if wrong or written.keys() != made.found.tensors.keys():
        raise StageError(f"The merge of {names[0]} wrote other tensors than it should have, among them {', '.join(wrong[:SHOWN])}. Report this with the log.")
    if not changed:
        raise UpstreamError(
            f"Merging {names[0]} changes nothing of {names[1]}: what it adds to {', '.join(unchanged[:SHOWN])} is zero, or less than their type can tell. It "
            "was saved before it was trained, or is damaged: ask its owner."
        )
    return {"changed": changed, "unchanged": len(unchanged), "rounded": math.sqrt(made.lost / made.change) if made.change else 0.0}
