"""Reads, completes and writes importance matrices in llama-imatrix's GGUF format: NAME.in_sum2 and NAME.counts, one row for each expert.

A tied embedding, or an output matrix, has no entry there, experts that calibration never reached have zeros, and a zero or a NaN makes the smallest types fail.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFWriter

from builders.sensitivity.table import Tensor
from config.errors import MeasurementError
from engines.model import Doubles, Floats

RESULT = "importances.gguf"

FLOOR = 1e-4  # of an expert's mean importance: what no calibration text ever used still weighs something


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What llama-imatrix adds up for one tensor."""

    sums: Doubles  # (experts, columns): squared inputs of the matrix, summed over tokens
    counts: Doubles  # (experts,): tokens

    @property
    def means(self) -> Floats:
        """Importances (experts, columns) as llama-quantize takes them: means, and 1 for an expert without tokens (quantize.cpp, load_imatrix)."""
        counts = self.counts[:, None]
        return np.where(counts > 0, self.sums.astype(np.float32) / np.maximum(counts, 1).astype(np.float32), 1).astype(np.float32)


def load(path: Path) -> dict[str, Floats]:
    """Importances by tensor name, (columns,) or (experts, columns), as llama-quantize uses them. Raises MeasurementError."""
    return {name: entry.means[0] if len(entry.counts) == 1 else entry.means for name, entry in read(path).items()}


def read(path: Path) -> dict[str, Entry]:
    """The entries of an importance matrix by tensor name. Raises MeasurementError when the file is not one, or has half an entry."""
    try:
        tensors = {tensor.name: np.asarray(tensor.data, dtype=np.float64) for tensor in GGUFReader(path).tensors}
        names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
        counts = {name: np.rint(tensors[f"{name}.counts"].reshape(-1)) for name in names}
        return {name: Entry(sums=tensors[f"{name}.in_sum2"].reshape(len(counts[name]), -1), counts=counts[name]) for name in names}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise MeasurementError(f"{path} is not an importance matrix of llama-imatrix: {error}. Compute it again.") from error


def complete(entries: Mapping[str, Entry], tensors: Mapping[str, Tensor], own: Mapping[str, Entry]) -> tuple[dict[str, Entry], dict[str, list[int]]]:
    """Entries that every type can be made with, and by tensor the experts that calibration never reached.

    `own` are entries for tensors that have none. Matrices of heads, which stand in one tensor and all see every token, have one count. An expert without tokens
    gets the mean of the others, entries that are zero or not finite get FLOOR times the expert's mean. Raises MeasurementError when an entry has not its
    tensor's shape.
    """
    done, unreached = {}, {}
    for name, stored in {**own, **entries}.items():
        tensor = tensors.get(name)
        entry = stored if tensor is None else _each(stored, tensor)
        if tensor is not None and entry.sums.shape != (tensor.experts, tensor.columns):
            raise MeasurementError(
                f"The importances of {name} are for {entry.sums.shape[0]} experts of {entry.sums.shape[1]} columns, and the tensor has {tensor.experts} of "
                f"{tensor.columns}: they are of another model. Compute the importance matrix again."
            )
        done[name], lost = _safe(entry)
        if lost:
            unreached[name] = lost
    return done, unreached


def _each(entry: Entry, tensor: Tensor) -> Entry:
    """The entry with a row and a count for each matrix of its tensor, where llama-imatrix counted the tokens of all of them at once."""
    if len(entry.counts) == 1 and entry.sums.size == tensor.experts * tensor.columns:
        return Entry(sums=entry.sums.reshape(tensor.experts, tensor.columns), counts=np.repeat(entry.counts, tensor.experts))
    return entry


def _safe(entry: Entry) -> tuple[Entry, list[int]]:
    counts = np.where(np.isfinite(entry.counts) & (entry.counts > 0), entry.counts, 0)
    good = np.isfinite(entry.sums) & (entry.sums > 0)
    means = np.where(good, entry.sums, 0) / np.maximum(counts, 1)[:, None]
    reached = (counts > 0) & good.any(axis=1)
    common = means[reached].mean(axis=0) if reached.any() else np.ones(means.shape[1])
    means = np.where(reached[:, None], means, common)
    means = np.maximum(means, FLOOR * means.mean(axis=1, keepdims=True))
    counts = np.where(reached, counts, 1)
    return Entry(sums=means * counts[:, None], counts=counts), [int(expert) for expert in np.flatnonzero(~reached)]


@dataclass(frozen=True, kw_only=True)
class About:
    """What an importance matrix was made from, as its metadata say."""

    datasets: tuple[str, ...]
    chunks: int
    size: int  # tokens of a chunk

    @classmethod
    def of(cls, path: Path) -> "About":
        """As a file of llama-imatrix says."""
        fields = GGUFReader(path).fields
        datasets = tuple(str(name) for name in fields["imatrix.datasets"].contents())
        return cls(datasets=datasets, chunks=int(fields["imatrix.chunk_count"].contents()), size=int(fields["imatrix.chunk_size"].contents()))


def write(path: Path, entries: Mapping[str, Entry], about: About) -> None:
    """Write entries as llama-imatrix does."""
    writer = _Writer(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", list(about.datasets))
    writer.add_uint32("imatrix.chunk_count", about.chunks)
    writer.add_uint32("imatrix.chunk_size", about.size)
    for name in sorted(entries):
        writer.add_tensor(f"{name}.in_sum2", entries[name].sums.astype(np.float32))
        writer.add_tensor(f"{name}.counts", entries[name].counts.astype(np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Writer(GGUFWriter):
    def add_architecture(self) -> None:
        """An importance matrix has none."""
