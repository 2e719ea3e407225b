"""What one file of a model will take outside of a release, told before it is made: the stages of a release that lead to it, with their costs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from builders.snapshot import Upstream
from builders.weights import Tensor
from config.plans import Budget, Profile
from config.recipe import Dynamic, Recipe, Variants
from config.settings import Settings
from config.texts import Text
from config.words import Release
from config.written import load_recipe
from engines import gguf_tensors
from service.hubclient import connect
from service.machine.speed import Speed, speed
from service.release import costs
from service.release.forecast import Forecast, forecast
from service.release.graph import Graph, Stage, nothing
from service.release.prospect import Prospect
from service.release.way import way

_SAFETENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}  # names that outlines know, by those in a GGUF


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A model as its headers show it."""

    repo: str
    sizes: Mapping[str, int]  # bytes of each file that is still to be downloaded or is there, by path
    shapes: Mapping[str, tuple[int, ...]]  # of each tensor, by the name that it has in safetensors
    config: Mapping[str, Any]
    remote: bool = False  # is still to be downloaded
    gguf: bool = False  # is a GGUF file, which nobody repairs or converts
    stored: Mapping[str, Tensor] = field(default_factory=dict)  # each tensor as it is stored, by the same name


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which file of it is to be made."""

    tag: str  # a planned mix's own; else that of a stock mix
    budget: Budget | None  # of a planned mix
    profile: Profile
    text: Text
    context: int  # tokens of a calibration window
    last: str  # stage of a release after which it is done
    rounded: bool  # a planned mix is rounded anew
    probed: bool  # sensitivities by probes


def of_gguf(path: Path) -> Seen:
    """The model in a GGUF file. Raises OSError, ValueError, KeyError or IndexError when it is none."""
    reader = gguf_tensors.Reader(path)
    shapes = {_renamed(tensor.name): tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
    return Seen(repo=f"local/{path.stem}", sizes={}, shapes=shapes, config={}, gguf=True)


def _renamed(name: str) -> str:
    return _SAFETENSORS.get(name) or (f"model.layers.{name.removeprefix('blk.')}" if name.startswith("blk.") else name)


def expected(settings: Settings, seen: Seen, wish: Wish, kept: Collection[str]) -> Forecast:
    """The needs of the stages that lead to the file; `kept` names those whose outputs are there. Measures this machine unless that was done today.

    Raises ToolError when it cannot be measured.
    """
    return leading(prospect(settings, seen, wish), seen, wish, kept, speed(settings))


def leading(ahead: Prospect, seen: Seen, wish: Wish, kept: Collection[str], on: Speed) -> Forecast:
    """The same of a prospect of that file, on any machine."""
    whole = way(ahead.recipe)
    wanted = _leading(whole, wish.last)
    stages = [_own(stage, seen, wish) for stage in whole.stages if stage.name in wanted]
    passed = {"upstream"} if seen.remote else {"upstream", "snapshot"}
    if seen.gguf:
        passed |= {"fix"} | {stage.name for stage in stages if stage.family == "round"}
    graph = Graph(stages=tuple(stage for stage in stages if stage.name not in passed))
    return forecast(graph, ahead, on, {}, kept)


def prospect(settings: Settings, seen: Seen, wish: Wish) -> Prospect:
    """A release of nothing but that file."""
    return _prospect(settings, connect(settings), _recipe(wish), seen)


def _recipe(wish: Wish) -> Recipe:
    """The default recipe with nothing to build but that file."""
    standard = load_recipe("default", data=False)
    if wish.budget is None:
        variants = Variants.model_validate({"gguf": [wish.tag]})
    else:
        variants = Variants(dynamic=(Dynamic(tag=wish.tag, profile=wish.profile, rounding=wish.rounded, **dict(wish.budget)),))
    divergence = standard.evaluation.divergence.model_copy(update={"generated": 0})  # nothing is measured
    evaluation = standard.evaluation.model_copy(update={"context": wish.context, "divergence": divergence})
    return standard.model_copy(update={"variants": variants, "calibration": wish.text, "evaluation": evaluation})


def _prospect(settings: Settings, api: HfApi, recipe: Recipe, seen: Seen) -> Prospect:
    upstream = Upstream(release=Release(repo=seen.repo, sha="0" * 40), private=False, gated=False)
    return Prospect(
        settings=settings, api=api, recipe=recipe, upstream=upstream, sizes=seen.sizes, shapes=seen.shapes, config=seen.config, namespace="", stored=seen.stored
    )


def _leading(graph: Graph, last: str) -> frozenset[str]:
    """Names of a stage and of all whose products it needs, directly or not."""
    found, waiting = set[str](), [last]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name].takes
    return frozenset(found)


def _own(stage: Stage, seen: Seen, wish: Wish) -> Stage:
    """The stage with the cost that it has here."""
    if stage.name == "sensitivity" and (seen.gguf or wish.probed):
        return replace(stage, cost=costs.probed)
    return replace(stage, cost=nothing) if stage.name == "convert" and seen.gguf else stage
