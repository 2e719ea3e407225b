"""May the model be offered in float16? The largest activation and the weights of the 16-bit model against what float16 can hold.

bfloat16 reaches 3e38, float16 65504: a model that was trained in the one can overflow in the other, where llama.cpp rounds what a float16 matrix is multiplied
with to float16 as well. What a text does not bring forth is not seen, so this is evidence, not proof. Attention scores are no module's output and are not seen
either; llama.cpp keeps them in float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config.errors import MeasurementError
from config.progress import counted
from config.words import Measurement
from engines import ggml, gguf_tensors, hf
from qa.texts import pieces

VERSION = 2  # raise when outputs change

LARGEST = 65504.0  # of float16
COARSEST = 2.0**-9  # relative rounding error of bfloat16: float16 that loses more is worse than what the weights were stored in
CONTEXT = 512  # tokens in a window
WINDOWS = 8  # of each file at most: outliers sit in few channels and at the first tokens, and every window shows them


def check(out: Path, *, model: Path, texts: Sequence[Path], threads: int) -> dict[str, Any]:
    """activation.max (magnitude, over the inputs and outputs of all modules) and float16.failures: modules and matrices that float16 cannot hold.

    A matrix fails when a weight is beyond float16's largest, or when so much of it is below its smallest normal numbers (6e-5) that the matrix as a whole loses
    more than bfloat16's rounding, 2^-9 of its norm. Vectors stay in float32 in GGUF. `texts` are conversations (.jsonl) or plain text.
    Raises MeasurementError when there is no text or the model cannot be loaded.
    """
    largest: dict[str, float] = {}
    with hf.open_model(model, threads=threads) as engine, watched(engine.network, largest):
        begin = engine.tokenize("", add_special=True)
        size = min(CONTEXT, engine.context) - len(begin)
        windows: list[list[int]] = []
        for path in texts:
            read = (engine.tokenize(text, add_special=False, parse_special=special) for text, special in pieces(engine.tokenizer, [path]))
            ids = list(islice(chain.from_iterable(read), WINDOWS * size))
            windows += [[*begin, *ids[start : start + size]] for start in range(0, len(ids), size)]
        for window in counted(windows, "windows"):
            engine.logits(window, len(window) - 1)
    tokens = sum(map(len, windows))
    if not tokens:
        raise MeasurementError("There is no text to look for the largest activation in. Name evaluation text in the recipe.")
    peak = max(largest.values(), key=lambda value: np.inf if np.isnan(value) else value)
    over = [f"{name} reaches {value:.4g}" for name, value in largest.items() if not value <= LARGEST]
    failures = [*over, *_weights(model)]
    # what is not finite has no place in JSON; it is as far beyond float16 as can be
    shown = float(peak) if np.isfinite(peak) else float(np.finfo(np.float32).max)
    measurements = [
        Measurement(name="activation.max", value=shown, unit="magnitude", n=tokens, details=tuple(over)),
        Measurement(name="float16.failures", value=len(failures), unit="count", details=tuple(failures)),
    ]
    return {"measurements": [asdict(measurement) for measurement in measurements]}


def weights(out: Path, *, gguf: Path, threads: int) -> dict[str, Any]:
    """float16.failures of the matrices of a GGUF file that is not quantized, which transformers cannot run: its activations are not seen."""
    failures, looked = [], 0
    for stored in gguf_tensors.read(gguf):
        if len(stored.shape) > 1 and stored.tensor_type.name != "F16":
            rows = np.ascontiguousarray(stored.data).view(np.uint8).reshape(int(np.prod(stored.shape[1:])), -1)
            wrong = fault(torch.from_numpy(ggml.dequantize(rows, stored.tensor_type.name, int(stored.shape[0]), threads=threads)))
            failures += [f"{stored.name} {wrong}"] if wrong else []
            looked += 1
    return {"measurements": [asdict(Measurement(name="float16.failures", value=len(failures), unit="count", n=looked, details=tuple(failures)))]}


@contextmanager
def watched(network: torch.nn.Module, largest: dict[str, float]) -> Iterator[None]:
    """Note the largest magnitude that each module takes or gives while the block runs; NaN counts as not finite."""

    def note(name: str, values: object) -> None:
        if isinstance(values, torch.Tensor) and values.is_floating_point() and values.numel():
            found = float(values.detach().abs().max())  # NaN where one value is
            largest[name] = float("nan") if np.isnan(found) else max(found, largest.get(name, 0.0))
        elif isinstance(values, (tuple, list)):
            for value in values:
                note(name, value)
        elif isinstance(values, dict):
            note(name, list(values.values()))

    def watch(name: str, _module: torch.nn.Module, taken: object, given: object) -> None:
        note(f"the input of {name}", taken)
        note(f"the output of {name}", given)

    handles = [module.register_forward_hook(partial(watch, name)) for name, module in network.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weights(folder: Path) -> list[str]:
    """What is wrong with the matrices in float16, in words. Raises MeasurementError when a file cannot be read."""
    return [f"{name} {wrong}" for _, name, values in hf.weights(folder) if values.ndim > 1 and (wrong := fault(values.float()))]


def fault(values: torch.Tensor) -> str:
    """What float16 makes of a matrix that it cannot hold, in words; the empty text where it can."""
    peak = float(values.abs().max())
    if not peak <= LARGEST:
        return f"holds the weight {peak:.4g}"
    norm = float(torch.linalg.vector_norm(values))
    lost = float(torch.linalg.vector_norm(values - values.half().float()))
    return f"loses {lost / norm:.2%} of its norm, because its weights are too small" if lost > COARSEST * norm else ""
