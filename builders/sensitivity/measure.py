"""Measures how sensitive a model's output is to the type of each of its tensors, from calibration text, once for all budgets and recipes.

Where mixes are rounded anew, the same pass over the text sums up their Hessians.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from builders import calibrate
from builders.calibrate import Windows
from builders.rounding import hessians, sizes
from builders.sensitivity import activations, fisher, gather, importances, layout, probes, room, sample, weigh
from builders.sensitivity.gather import Gathered, Pass
from builders.sensitivity.importances import About
from builders.sensitivity.table import TYPES, Mix, Sensitivity, Tensor
from config.errors import MeasurementError, UnsupportedModel
from config.progress import counted
from engines import hf, streaming
from engines.model import Doubles, Floats

VERSION = 9  # raise when outputs change

ERROR = 0.05  # relative standard error of a planned mix's predicted KLD at which no more windows are added
KNOWN = 0.1  # the same of GGUF mixes: types are chosen as well long before, a third of these windows gives plans within 1 % of the best
FIRST = 32  # windows before the error is looked at
STEP = 16  # windows are added in multiples of it


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
    rounding: bool = False,
) -> dict[str, Any]:
    """The table of sensitivities: from gradients, or by probes where transformers cannot run the model, and when `probed` asks for them.

    `model` is the folder in the transformers form; the GGUF file itself where there is none, which `probed` goes with. `rounding` wants Hessians too, which
    only gradients give. Returns what `by_gradients` or `probes.measure` does, `reason`: why there are no gradients, None when there are or none were wanted,
    and `remark`: the same for a person who watches.
    Raises ConfigurationError, MeasurementError, ToolError.
    """
    wanted: dict[str, Any] = {"model": model, "gguf": gguf, "imatrix": imatrix, "chat": chat, "plain": plain}
    wanted |= {"tokens": tokens, "context": context, "threads": threads}
    reason = None
    if not probed:
        try:
            return {**by_gradients(out, **wanted, rounding=rounding), "reason": None, "remark": None}
        except UnsupportedModel as error:
            reason = str(error)
    return {**probes.measure(out, **wanted), "rounding": False, "reason": reason, "remark": f"by probes through llama.cpp: {reason or 'as was asked for'}"}


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
    rounding: bool = False,
    memory: int | None = None,
) -> dict[str, Any]:
    """Write what `Sensitivity.save` does and `importances.gguf` from at most `tokens` tokens of calibration text in windows of `context`.

    With `rounding`, also `hessians.json` and for each tensor a file (experts or 1, columns, columns), mean diagonals 1; matrices that the importance matrix
    says nothing about have none, nor those without any gradient. Windows are added until the predicted KLD of mixes is known within KNOWN, and sizes.TOKENS
    tokens are read where Hessians are wanted. `memory` is how many bytes may be used, by default what `room.memory` says.
    Returns `provider`, `windows`, `tokens`, `relative_error` (of the worst of the typical mixes), `unreached` (tensor: experts that calibration never reached),
    `rounding`: whether there are Hessians, and `groups`: how often the windows ran.
    Raises ConfigurationError, MeasurementError, and UnsupportedModel when transformers cannot run the model here.
    """
    with opened(model, chat, plain, tokens=tokens, context=context, threads=threads, memory=memory, rounding=rounding) as (network, text, space):
        stored = layout.quantizable(gguf, imatrix)
        placements = layout.find(stored, network)
        rounded = activations.Rounding.of(network, placements)
        job = Pass(
            network=network,
            placements=placements,
            stored=stored,
            memory=space.free,
            rounding=rounding,
            frequent=_by_frequency(text),
            watched=rounded.watched,
        )
        read = _Read(out=out, job=job, threads=threads)
        unreached: dict[str, list[int]] = {}
        groups = 0
        with _entering(network) as hidden:
            for groups, found in enumerate(gather.gather(job, text, _more(job, text)), start=1):
                if groups == 1:
                    unreached = _importances(out / importances.RESULT, imatrix, job, hidden())
                read.take(found)
        sensitivity = read.table(rounded)
    sensitivity.save(out)
    if rounding:
        hessians.save(out, read.files)
    return {
        "provider": sensitivity.provider,
        "windows": len(sensitivity.products),
        "tokens": len(sensitivity.products) * text.shape[1],
        "relative_error": sample.relative_error(sensitivity),
        "unreached": unreached,
        "rounding": rounding,
        "groups": groups,
    }


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What is made of the sums, group by group."""

    out: Path
    job: Pass
    threads: int
    means: dict[int, Doubles] = field(default_factory=dict)
    energies: dict[int, Floats] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # with the Hessians, by tensor

    def take(self, group: list[Gathered]) -> None:
        """Weigh all types by the sums of a group, and write its Hessians; what it held is gone."""
        known = importances.load(self.out / importances.RESULT)
        for found in counted(group, "tensors"):
            tensor, windows = self.job.placements[found.place].tensor, len(found.energies)
            stored = self.job.stored[found.place]
            self.means[found.place] = weigh.means(tensor, found.parts, stored, known, windows=windows, threads=self.threads)
            self.energies[found.place] = found.energies.cpu().numpy()
            if found.sums is not None and (file := hessians.write(self.out, tensor.name, found.sums, windows)) is not None:
                self.files[tensor.name] = file
        group.clear()

    def table(self, rounded: activations.Rounding) -> Sensitivity:
        """The table, when all groups are read. Raises MeasurementError when gradients were not finite."""
        places = range(len(self.job.placements))
        products = weigh.products(np.stack([self.means[place] for place in places]), np.stack([self.energies[place] for place in places], axis=1))
        if np.isinf(products).any():
            raise MeasurementError(fisher.NOT_FINITE)
        tensors = tuple(placement.tensor for placement in self.job.placements)
        costs = rounded.costs(min(gather.WATCHED, len(products)))
        return Sensitivity(provider="fisher", tensors=tensors, types=TYPES, products=products, activations=costs)


def _more(job: Pass, text: Windows) -> gather.More:
    """Windows until the error is KNOWN, and Hessians have their tokens."""
    values = np.array([placement.tensor.parameters for placement in job.placements])
    least = min(len(text), max(FIRST, -(-sizes.TOKENS // text.shape[1]) if job.rounding else 0))

    def more(energies: gather.Energies) -> int:
        return _wanted(len(energies), sample.spread(energies, values[: energies.shape[1]]), least=least, enough=KNOWN)

    return more


def _wanted(done: int, error: float, *, least: int, enough: float) -> int:
    """How many windows there should be when so many gave a mean with this relative standard error, and one that is `enough` is wanted."""
    if done < least:
        return least
    if error <= enough:
        return done
    # errors fall with the root of the number of windows; at most thrice as many at once, since the error itself is known badly at first
    needed = min(3 * done, int(np.ceil(done * (error / enough) ** 2)))
    return max(done + STEP, -(-needed // STEP) * STEP)


@contextmanager
def opened(
    model: Path,
    chat: Sequence[Path],
    plain: Sequence[Path],
    *,
    tokens: int,
    context: int,
    threads: int,
    memory: int | None = None,
    rounding: bool = False,
    whole: bool = False,
) -> Iterator[tuple[PreTrainedModel, Windows, room.Room]]:
    """While the block runs, the network on the device that there is, its layers streamed where they do not fit into `memory` bytes otherwise; the windows of
    calibration text, no longer than the model's context; and what of the memory is free for sums, Hessians among them where `rounding` wants them.
    `whole`: in float32, also where bfloat16 is faster.

    Raises UnsupportedModel when the memory is too small for the model, or transformers cannot run it.
    """
    outline, stored, device = hf.outline(model), hf.stored_dtype(model), room.device()
    dtype = torch.float32 if whole else room.working(stored, device)
    length = min(context, hf.context(outline))
    about = room.shape(outline, stored, dtype)
    sums = gather.foretold(outline, rounding=rounding)
    space = room.room(about, context=length, memory=memory or room.memory(device), homes=device.type == "cpu", sums=sums)
    with hf.open_model(model, threads=threads, dtype=stored if space.streamed else dtype) as engine:
        text = calibrate.windows(hf.speaking(engine.tokenizer), chat, plain, tokens=tokens, context=length)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32: errors of 2^-11 in a gradient are nothing beside its noise
        if space.streamed:
            buffers = (outline if dtype == torch.float32 else engine.network).named_buffers()
            streaming.stream(engine.network, device, dict(buffers), dtype)
        else:
            engine.network.to(device)  # type: ignore[arg-type]
        yield engine.network, text, space


def _importances(target: Path, imatrix: Path, job: Pass, output: importances.Entry) -> dict[str, list[int]]:
    """Write the completed importance matrix, in which `output` is of what enters the output matrix; returns the experts that calibration never reached."""
    entries = importances.read(imatrix)
    parameters = dict(job.network.named_parameters())
    last = job.network.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    own: dict[str, importances.Entry] = {}
    for placement in job.placements:
        about = placement.tensor
        if about.name in entries:
            continue
        if all(parameters[segment.parameter] is last for segment in placement.segments):
            own[about.name] = output
        else:  # an embedding that is only looked up: no column of it is known to matter more
            own[about.name] = importances.Entry(sums=np.ones((about.experts, about.columns)), counts=np.ones(about.experts))
    done, unreached = importances.complete(entries, {placement.tensor.name: placement.tensor for placement in job.placements}, own)
    importances.write(target, done, About.of(imatrix))
    return unreached


@contextmanager
def _entering(network: PreTrainedModel) -> Iterator[Callable[[], importances.Entry]]:
    """While it is open, squared hidden states that enter the output matrix are summed up; the function tells of all so far."""
    sums: list[torch.Tensor] = []
    tokens = 0

    def see(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal tokens
        squares = inputs[0].detach().double().square().sum(dim=(0, 1))
        sums[:] = [squares + sums[0]] if sums else [squares]
        tokens += inputs[0].shape[0] * inputs[0].shape[1]

    hook = network.get_output_embeddings().register_forward_pre_hook(see)  # type: ignore[no-untyped-call]
    try:
        yield lambda: importances.Entry(sums=sums[0].cpu().numpy()[None], counts=np.array([float(tokens)]))
    finally:
        hook.remove()


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
        wanted = min(len(text), _wanted(done, sample.relative_error(sensitivity, typical), least=FIRST, enough=ERROR))
        if wanted <= done:
            return sensitivity
