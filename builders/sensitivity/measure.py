"""Measures how sensitive a model's output is to the type of each of its tensors, from calibration text, once for all budgets and recipes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from gguf import ReaderTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from builders.calibrate import adds_bos, chosen, conversations, paragraphs
from builders.sensitivity import fisher, importances, layout, sample
from builders.sensitivity.table import TYPES, Sensitivity
from config.errors import MeasurementError
from engines import hf

VERSION = 2  # raise when outputs change

ERROR = 0.05  # relative standard error of a planned mix's predicted KLD at which no more windows are added
FIRST = 64  # windows before the error is looked at
STEP = 16  # windows are added in multiples of it
ORDER = 0  # seed of the windows' order
HIDDEN = 16  # windows whose hidden states give the output matrix its importances


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
    memory: int | None = None,
) -> dict[str, Any]:
    """Write `sensitivity.json`, `products.npy` and `importances.gguf` from at most `tokens` tokens of calibration text in windows of `context`.

    Windows are added until the predicted KLD of typical mixes is known within ERROR. `memory` bounds the bytes of quantization errors held at a time; without
    it, a third of the machine's. Returns `provider`, `windows`, `tokens`, `relative_error` (of the worst of the typical mixes) and `unreached` (tensor: experts
    that calibration never reached).
    Raises ConfigurationError, MeasurementError.
    """
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads) as (network, text):
        stored = layout.quantizable(gguf)
        placements = layout.find(stored, network)
        unreached = _importances(out / importances.RESULT, imatrix, network, stored, placements, text[:HIDDEN])
        job = fisher.Pass(
            network=network,
            placements=placements,
            stored=stored,
            importances=importances.load(out / importances.RESULT),
            threads=threads,
            memory=memory or psutil.virtual_memory().total // 3,
        )
        sensitivity = _enough(job, text)
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
    model: Path, chat: Sequence[Path], plain: Sequence[Path], *, tokens: int, context: int, threads: int
) -> Iterator[tuple[PreTrainedModel, fisher.Windows]]:
    """While the block runs, the network on the device that there is, and the windows of calibration text, no longer than the model's context."""
    with hf.open_model(model, threads=threads) as engine:
        text = windows(engine.tokenizer, chat, plain, tokens=tokens, context=min(context, engine.context))
        if torch.cuda.is_available():
            engine.network.to("cuda")  # type: ignore[arg-type]
        yield engine.network, text


def windows(tokenizer: PreTrainedTokenizerBase, chat: Sequence[Path], plain: Sequence[Path], *, tokens: int, context: int) -> fisher.Windows:
    """Windows (n, context) of calibration text as llama-imatrix reads it, in an order that mixes its sources; BOS is each one's first token where there is one.

    Raises MeasurementError when the text does not fill two.
    """
    sources = [list(conversations(path, tokenizer)) for path in chat] + [paragraphs(path) for path in plain]
    ids = hf.encode(tokenizer, "".join(piece for piece, _ in chosen(sources, tokenizer, tokens)), add_special=False)
    count = min(len(ids), tokens) // context
    if count < 2:
        raise MeasurementError(f"The calibration text has {len(ids)} tokens and needs two windows of {context} at least. Name more text under `calibration`.")
    cut = np.asarray(ids[: count * context], dtype=np.int64).reshape(count, context)
    if adds_bos(tokenizer):
        cut[:, 0] = tokenizer.bos_token_id
    return np.asarray(cut[np.random.default_rng(ORDER).permutation(count)])


def _importances(
    target: Path,
    imatrix: Path,
    network: PreTrainedModel,
    stored: Sequence[ReaderTensor],
    placements: Sequence[layout.Placement],
    text: fisher.Windows,
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


def _hidden(network: PreTrainedModel, text: fisher.Windows) -> importances.Entry:
    """Squared hidden states that enter the output matrix, summed over the text."""
    sums: list[torch.Tensor] = []
    hook = network.get_output_embeddings().register_forward_pre_hook(  # type: ignore[no-untyped-call]
        lambda _, inputs: sums.append(inputs[0].detach().double().square().sum(dim=(0, 1)).cpu())
    )
    try:
        with torch.inference_mode():
            for window in text:
                network(input_ids=torch.from_numpy(window)[None].to(network.device), use_cache=False)
    finally:
        hook.remove()
    return importances.Entry(sums=torch.stack(sums).sum(0).numpy()[None], counts=np.array([float(text.size)]))


def _enough(job: fisher.Pass, text: fisher.Windows) -> Sensitivity:
    """Sensitivities from as many windows as ERROR asks for, or as the text has."""
    parts: list[fisher.Products] = []
    done, wanted = 0, min(FIRST, len(text))
    while True:
        parts.append(fisher.measure(job, text[done:wanted], done))
        done = wanted
        sensitivity = Sensitivity(
            provider="fisher", tensors=tuple(placement.tensor for placement in job.placements), types=TYPES, products=np.concatenate(parts)
        )
        error = sample.relative_error(sensitivity)
        if error <= ERROR or done == len(text):
            return sensitivity
        # errors fall with the root of the number of windows; at most thrice as many at once, since the error itself is known badly at first
        needed = min(3 * done, int(np.ceil(done * (error / ERROR) ** 2)))
        wanted = min(len(text), max(done + STEP, -(-needed // STEP) * STEP))
