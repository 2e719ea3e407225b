"""What a planned GGUF file of a model would take on machines that are not at hand, from the model's shapes alone: nothing is downloaded or run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.errors import ConfigurationError, UnsupportedModel
from config.near import hint
from config.plans import Budget
from config.settings import Settings
from config.texts import GENERATED, Text
from service.machine.speed import NAMED, Speed, speed
from service.release import alone, costs, shapes
from service.release.costs.outline import outline
from service.release.graph import Needs
from service.release.prospect import Prospect

TAG = "planned"
HERE = "this machine"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The needs on one machine."""

    machine: str
    stages: Mapping[str, Needs]  # in order
    windows: int | None  # read forward and backward; None where memory is too small for gradients, and probes stand in
    groups: int  # how often these are read
    streamed: bool  # layers come to the device one at a time
    seconds: float
    memory: int  # bytes, at the peak of the stage that needs most
    there: int | None  # bytes of the machine's own memory; None of the machine at hand
    disk: int  # bytes of all outputs


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """A model on several machines."""

    name: str
    parameters: int
    active: float  # parameters that one token meets
    machines: tuple[Estimate, ...]


def estimate(settings: Settings, shape: str, *, budget: Budget, context: int, rounded: bool = True) -> Estimated:
    """A planned file, from the download on, of a shape: a name in `shapes`, or the path of a config.json. Measures this machine unless that was done today.

    Raises ConfigurationError when there is no such shape, UnsupportedModel when transformers has no code for it, and ToolError when this machine cannot be
    measured.
    """
    seen = _seen(shape)
    last = f"round {TAG}" if rounded else f"build {TAG}"
    text = Text(generated=GENERATED)
    wish = alone.Wish(tag=TAG, budget=budget, profile="any", text=text, context=context, last=last, rounded=rounded, probed=False)
    ahead = alone.prospect(settings, seen, wish)
    model = outline(ahead)
    machines = {HERE: speed(settings), **NAMED}
    return Estimated(
        name=seen.repo.partition("/")[2],
        parameters=ahead.parameters,
        active=model.active,
        machines=tuple(_on(ahead, seen, wish, name, known) for name, known in machines.items()),
    )


def _on(ahead: Prospect, seen: alone.Seen, wish: alone.Wish, name: str, known: Speed) -> Estimate:
    found = alone.leading(ahead, seen, wish, (), known)
    try:
        reading = costs.reading(ahead, known)
    except UnsupportedModel:
        windows, groups, streamed = None, 0, False
    else:
        windows, groups, streamed = reading.windows, reading.groups, reading.streamed
    return Estimate(
        machine=name,
        stages=found.stages,
        windows=windows,
        groups=groups,
        streamed=streamed,
        seconds=found.seconds,
        memory=found.memory,
        there=known.ram,
        disk=found.disk,
    )


def _seen(shape: str) -> alone.Seen:
    """The model of a shape, as if the Hub had it."""
    path = Path(shape).expanduser()
    if path.is_file() or path.is_dir():
        from engines import hf  # torch

        folder = path if path.is_dir() else path.parent
        network = hf.outline(folder)
        found = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        config, name = network.config.get_text_config().to_dict(), folder.resolve().name
    else:
        name = shapes.SHORT.get(shape, shape)
        if name not in shapes.MODELS:
            known = [*shapes.SHORT, *shapes.MODELS]
            raise ConfigurationError(f"There is no shape {shape!r}.{hint(shape, known)} Known ones: {', '.join(known)}; or name a config.json.")
        model = shapes.MODELS[name]
        found, config = model.shapes, dict(model.config)
    weights = 2 * sum(math.prod(size) for size in found.values())
    sizes = {"model.safetensors": weights, "config.json": 1000, "tokenizer.json": 70 * int(config["vocab_size"])}
    return alone.Seen(repo=f"upstream/{name}", sizes=sizes, shapes=found, config=config, remote=True)
