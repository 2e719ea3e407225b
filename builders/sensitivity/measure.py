"""Measures how sensitive a model's output is to the type of each of its tensors, from calibration text, once for all budgets and recipes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import ReaderTensor
from transformers import PreTrainedModel

from builders import calibrate
from builders.calibrate import Windows
from builders.sensitivity import activations, fisher, importances, layout, probes, room, sample
from builders.sensitivity.table import TYPES, Mix, Sensitivity, Tensor
from config.errors import UnsupportedModel
from config.progress import counted
from engines import hf, streaming

VERSION = 7  # raise when outputs change

ERROR = 0.05  # relative standard error of a planned mix's predicted KLD at which no more windows are added
FIRST = 32  # windows before the error is looked at
STEP = 16  # windows are added in multiples of it
HIDDEN = 16  # windows whose hidden states give the output matrix its importances
ROUNDED = 8  # windows that tell what rounding activations costs, which differs less between them


def measure(
    out: Path,
    *,
    model: Path,
    gguf: Path,
    imatrix: Path,
    chat: list[Path],
    plain: list[Path],
    tokens: int,
    context: int,
    threads: int,
    probed: bool = False,
) -> dict[str, Any]:
    """The table of sensitivities: from gradients, or by probes where transformers cannot run the model, and when `probed` asks for them.

    `model` is the folder in the transformers form; the GGUF file itself where there is none, which `probed` goes with. Returns what `by_gradients` or
    `probes.measure` does, `reason`: why there are no gradients, None when there are or none were wanted, and `remark`: the same for a person who watches.
    Raises ConfigurationError, MeasurementError, ToolError.
    """
    wanted: dict[str, Any] = {"model": model, "gguf": gguf, "imatrix": imatrix, "chat": chat, "plain": plain}
    wanted |= {"tokens": tokens, "context": context, "threads": threads}
    reason = None
    if not probed:
        try:
            return {**by_gradients(out, **wanted), "reason": None, "remark": None}
        except UnsupportedModel as error:
            reason = str(error)
    return {**probes.measure(out, **wanted), "reason": reason, "remark": f"by probes through llama.cpp: {reason or 'as was asked for'}"}


def by_gradients(
    out: Path,
    *,
    model: Path,
    gguf: Path,
    imatrix: Path,
    chat: list[Path],
    plain: list[Path],
    tokens: int,
    context: int,
    threads: int,
    memory: int | None = None,
) -> dict[str, Any]:
    """Write what `Sensitivity.save` does and `importances.gguf` from at most `tokens` tokens of calibration text in windows of `context`.

    Windows are added until the predicted KLD of typical mixes is known within ERROR. `memory` is how many bytes may be used, by default what `room.memory`
    says. Returns `provider`, `windows`, `tokens`, `relative_error` (of the worst of the typical mixes) and `unreached` (tensor: experts that calibration never
    reached).
    Raises ConfigurationError, MeasurementError, and UnsupportedModel when transformers cannot run the model here.
    """
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads, memory=memory) as (network, text, space):
        stored = layout.quantizable(gguf, imatrix)
        placements = layout.find(stored, network)
        unreached = _importances(out / importances.RESULT, imatrix, network, stored, placements, text[:HIDDEN])
        job = fisher.Pass(
            network=network,
            placements=placements,
            stored=stored,
            importances=importances.load(out / importances.RESULT),
            threads=threads,
            memory=space.free,
            frequent=_by_frequency(text),
        )
        tensors = tuple(placement.tensor for placement in placements)
        sensitivity = enough(lambda part, first: fisher.measure(job, part, first), text, tensors, TYPES)
        sensitivity = replace(sensitivity, activations=activations.measure(network, placements, text[:ROUNDED]))
    sensitivity.save(out)
    return {
        "provider": sensitivity.provider,
        "windows": len(sensitivity.products),
        "tokens": len(sensitivity.products) * text.shape[1],
        "relative_error": sample.relative_error(sensitivity),
        "unreached": unreached,
    }


@contextmanager
def opened(
    model: Path, chat: Sequence[Path], plain: Sequence[Path], *, tokens: int, context: int, threads: int, memory: int | None = None
) -> Iterator[tuple[PreTrainedModel, Windows, room.Room]]:
    """While the block runs, the network on the device that there is, its layers streamed where they do not fit into `memory` bytes otherwise; the windows of
    calibration text, no longer than the model's context; and what of the memory is free for errors.

    Raises UnsupportedModel when the memory is too small for the model, or transformers cannot run it.
    """
    outline, stored, device = hf.outline(model), hf.stored_dtype(model), room.device()
    length = min(context, hf.context(outline))
    space = room.room(room.shape(outline, stored), context=length, memory=memory or room.memory(device), homes=device.type == "cpu")
    with hf.open_model(model, threads=threads, dtype=stored if space.streamed else torch.float32) as engine:
        text = calibrate.windows(hf.speaking(engine.tokenizer), chat, plain, tokens=tokens, context=length)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32: errors of 2^-11 in a gradient are nothing beside its noise
        if space.streamed:
            streaming.stream(engine.network, device, dict(outline.named_buffers()))
        else:
            engine.network.to(device)  # type: ignore[arg-type]
        yield engine.network, text, space


def _importances(
    target: Path,
    imatrix: Path,
    network: PreTrainedModel,
    stored: Sequence[ReaderTensor],
    placements: Sequence[layout.Placement],
    text: Windows,
) -> dict[str, list[int]]:
    """Write the completed importance matrix; returns the experts that calibration never reached."""
    entries = importances.read(imatrix)
    parameters = dict(network.named_parameters())
    output = network.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    own: dict[str, importances.Entry] = {}
    for tensor, placement in zip(stored, placements, strict=True):
        if tensor.name in entries:
            continue
        about = placement.tensor
        if all(parameters[segment.parameter] is output for segment in placement.segments):
            own[tensor.name] = _hidden(network, text)
        else:  # an embedding that is only looked up: no column of it is known to matter more
            own[tensor.name] = importances.Entry(sums=np.ones((about.experts, about.columns)), counts=np.ones(about.experts))
    done, unreached = importances.complete(entries, {placement.tensor.name: placement.tensor for placement in placements}, own)
    importances.write(target, done, like=imatrix)
    return unreached


def _hidden(network: PreTrainedModel, text: Windows) -> importances.Entry:
    """Squared hidden states that enter the output matrix, summed over the text."""
    sums: list[torch.Tensor] = []
    hook = network.get_output_embeddings().register_forward_pre_hook(  # type: ignore[no-untyped-call]
        lambda _, inputs: sums.append(inputs[0].detach().double().square().sum(dim=(0, 1)).cpu())
    )
    try:
        with torch.inference_mode():
            for window in counted(text, "windows"):
                network(input_ids=torch.from_numpy(window)[None].to(network.device), use_cache=False)
    finally:
        hook.remove()
    return importances.Entry(sums=torch.stack(sums).sum(0).numpy()[None], counts=np.array([float(text.size)]))


def _by_frequency(text: Windows) -> list[int]:
    """The tokens of the text, the most frequent first."""
    tokens, counts = np.unique(text, return_counts=True)
    return [int(token) for token in tokens[np.argsort(-counts, kind="stable")]]


def enough(
    products: Callable[[Windows, int], fisher.Products],
    text: Windows,
    tensors: tuple[Tensor, ...],
    types: tuple[str, ...],
    typical: Callable[[Sensitivity], Iterable[Mix]] = sample.mixes,
) -> Sensitivity:
    """Sensitivities from as many windows as ERROR asks for in the `typical` mixes, or as the text has; `products` takes windows and the first's number."""
    parts: list[fisher.Products] = []
    done, wanted = 0, min(FIRST, len(text))
    while True:
        parts.append(products(text[done:wanted], done))
        done = wanted
        sensitivity = Sensitivity(provider="fisher", tensors=tensors, types=types, products=np.concatenate(parts))
        error = sample.relative_error(sensitivity, typical)
        if error <= ERROR or done == len(text):
            return sensitivity
        # errors fall with the root of the number of windows; at most thrice as many at once, since the error itself is known badly at first
        needed = min(3 * done, int(np.ceil(done * (error / ERROR) ** 2)))
        wanted = min(len(text), max(done + STEP, -(-needed // STEP) * STEP))
