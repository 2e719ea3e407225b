"""Reads a finished variant again, as its users will: is it whole and finite, and does it carry the 16-bit model's tokenizer and template?"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize

from config.errors import MeasurementError, SluiceError
from config.progress import counted
from config.words import Measurement
from engines import gguf_tensors, llama

MAY_DIFFER = ("general.", "quantize.", "split.")  # metadata that quantizing writes: name, file type, imatrix, shards
SHOWN = 60  # characters of a value that a sentence quotes
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")

CHUNK = 2**22  # values of a tensor that a thread compares at a time

# |quantized - original| / |original| over a tensor, the largest of llama.cpp's stock mixes of the bundled model with its importance matrix, by type. It is much
# the same for any weights: blocks are scaled to their own largest value.
USUAL_ERROR: Mapping[Type, float] = {
    Type.Q8_0: 0.0073, Type.Q6_K: 0.0225, Type.Q5_K: 0.0432, Type.Q5_1: 0.0428, Type.Q5_0: 0.0514, Type.Q4_K: 0.0883, Type.Q4_1: 0.0888, Type.Q4_0: 0.102,
    Type.IQ4_NL: 0.0884, Type.IQ4_XS: 0.0888, Type.Q3_K: 0.175, Type.IQ3_S: 0.195, Type.IQ3_XXS: 0.244, Type.Q2_K: 0.301, Type.IQ2_S: 0.387,
    Type.IQ2_XS: 0.424, Type.IQ2_XXS: 0.504, Type.IQ1_M: 0.566, Type.IQ1_S: 0.615,
}  # fmt: skip
EXACT: Mapping[Type, float] = {Type.F32: 1e-6, Type.F16: 2**-10, Type.BF16: 2**-7}  # rounding, at most
FAR_BEYOND = 2.5  # times the usual error
UNRELATED = 0.9  # zeros are off by 1, other weights of the same size by 1.4, and nothing that was meant comes near
ROWS_UP_TO = 0.35  # usual error of the types whose rows are also looked at one by one: the rows of coarser ones may stray as far by themselves
FAINT = 0.01  # of the median row's length; shorter rows, those of unused tokens for instance, round to anything


def gguf(variant: Path, reference: Path, *, threads: int) -> Measurement:
    """file.failures of a GGUF file: it loads, every tensor is finite, and its metadata (template, special tokens, hyperparameters) equal the 16-bit file's."""
    details = []
    try:
        with llama.open_model(variant, context=llama.BATCH, threads=threads, check_tensors=True) as model, llama.open_vocabulary(reference) as expected:
            details = _differences(expected.metadata, model.vocabulary.metadata)
            if model.vocabulary.tokens != expected.tokens:
                details.append("the vocabulary is not the 16-bit file's")
    except SluiceError as error:
        details = [str(error)]
    return _failures(details)


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    keys = sorted(key for key in expected.keys() | found.keys() if not key.startswith(MAY_DIFFER) and expected.get(key) != found.get(key))
    return [f"{key} is {_shown(found.get(key))} and in the 16-bit file {_shown(expected.get(key))}" for key in keys]


def folder(variant: Path, reference: Path) -> Measurement:
    """file.failures of a transformers folder: every tensor is finite, and tokenizer, template and generation settings equal the 16-bit folder's."""
    from engines import hf  # torch

    details = [f"{name} holds values that are not finite" for name in hf.not_finite(variant)]
    details += [f"{name} is not the 16-bit model's" for name in TOKENIZER_FILES if _content(variant / name) != _content(reference / name)]
    return _failures(details)


def _content(file: Path) -> object:
    """What a file says: JSON by its meaning, other files by their bytes, None when it does not exist."""
    if not file.exists():
        return None
    return json.loads(file.read_text(encoding="utf-8")) if file.suffix == ".json" else file.read_bytes()


def _shown(value: str | None) -> str:
    return "missing" if value is None else repr(value[:SHOWN])


def _failures(details: list[str]) -> Measurement:
    return Measurement(name="file.failures", value=len(details), unit="count", details=tuple(details))


def weights(variant: Path, reference: Path, *, threads: int = 1) -> Measurement:
    """weights.failures of a GGUF file: tensors that are missing, not finite, all zero, or further from the 16-bit file's than their type explains.

    Both files are read by themselves, without llama.cpp. Rows are compared as well as whole tensors, so that two exchanged rows of an embedding are found.
    Raises MeasurementError when the 16-bit file cannot be read.
    """
    expected = {tensor.name: tensor for tensor in _tensors(reference)}
    try:
        found = {tensor.name: tensor for tensor in _tensors(variant)}
        details = [f"{name} is missing" for name in expected if name not in found]
        details += [f"{name} is not in the 16-bit file" for name in found if name not in expected]
        details += [f"{name} {fault}" for name in counted(expected, "tensors") if name in found and (fault := _fault(found[name], expected[name], threads))]
    except MeasurementError as error:
        details = [str(error)]
    return Measurement(name="weights.failures", value=len(details), unit="count", n=len(expected), details=tuple(details))


def _fault(found: ReaderTensor, expected: ReaderTensor, threads: int) -> str | None:
    """What is wrong with a tensor, in words that follow its name."""
    if _shape(found) != _shape(expected):
        return f"has the shape {_shape(found)}, and in the 16-bit file {_shape(expected)}"
    usual = USUAL_ERROR.get(found.tensor_type)
    bound = EXACT.get(found.tensor_type, UNRELATED) if usual is None else min(UNRELATED, FAR_BEYOND * usual)
    errors, lengths, sizes = _rows(found, expected, threads)
    if not np.isfinite(sizes).all():
        return "holds values that are not finite"
    if not np.isfinite(lengths).all():
        return "is finite, and in the 16-bit file it is not"
    if not sizes.any() and (lengths.any() or (len(lengths) > 1 and not found.name.endswith(".bias"))):  # experts' biases make a matrix, and may be zero
        return "holds only zeros"
    error = float(np.sqrt(errors.sum() / lengths.sum())) if lengths.any() else float("inf") if sizes.any() else 0.0
    if error > bound:
        return f"differs from the 16-bit file's by {error:.2g} of its length, {bound:.2g} is possible in {found.tensor_type.name}: it holds other weights"
    audible = lengths > FAINT**2 * np.median(lengths)
    strange = np.flatnonzero(audible & (errors > UNRELATED**2 * lengths))
    if len(strange) and (usual is None or usual <= ROWS_UP_TO):
        return f"holds other weights in {len(strange)} of {len(lengths)} rows, first in row {strange[0]}"
    return None


def _shape(tensor: ReaderTensor) -> list[int]:
    """Columns, rows and so on; llama.cpp writes no dimensions of 1 behind the last other one."""
    sizes = [int(size) for size in tensor.shape]
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _rows(found: ReaderTensor, expected: ReaderTensor, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row, the sums of squares of its difference from the expected row, of the expected row, and of the row itself, each float64 (rows)."""
    columns = int(found.shape[0])
    raw = [tensor.data.reshape(-1, tensor.data.shape[-1]) for tensor in (found, expected)]
    step = max(1, CHUNK // columns)

    def part(start: int) -> np.ndarray:
        with np.errstate(all="ignore"):  # scales that are not finite are what is looked for
            value, original = (dequantize(rows[start : start + step], tensor.tensor_type) for rows, tensor in zip(raw, (found, expected), strict=True))
            return np.stack([_squares(value - original), _squares(original), _squares(value)])

    with ThreadPoolExecutor(threads) as pool:
        errors, lengths, sizes = np.concatenate(list(pool.map(part, range(0, len(raw[0]), step))), axis=1)
    return errors, lengths, sizes


def _squares(values: np.ndarray) -> np.ndarray:
    """Of each row, the sum of its squares. In float64, squares of 32-bit floats neither overflow nor vanish."""
    return np.asarray(np.einsum("rc,rc->r", values, values, dtype=np.float64))


def open_gguf(file: Path) -> GGUFReader:
    """A GGUF file's metadata and tensors, mapped and not read. Raises MeasurementError when it is damaged or ends too early."""
    with _told(file):
        return GGUFReader(file)


def _tensors(file: Path) -> list[ReaderTensor]:
    with _told(file):
        return gguf_tensors.read(file)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, KeyError, OSError, OverflowError) as error:  # what numpy and the reader raise on wrong offsets
        raise MeasurementError(f"{file} cannot be read as GGUF: {error}. It is damaged, or its data end too early.") from error
