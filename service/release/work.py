"""A run on its way through the graph: what its stages have made so far, and how a call's inputs are found among that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from huggingface_hub import HfApi

from config.errors import SluiceError
from config.recipe import Recipe
from config.words import Hold, Measurement, Release
from service.execution.kept import Input, Inputs, Output
from service.execution.workbench import Workbench
from service.release.graph import Call, Data, FileOf, Graph, OfHub, OfRelease, Result, Source, Whole
from service.release.job import Job
from service.release.products import measurements
from service.release.route import Route

T = TypeVar("T")

Outputs = Callable[[str], Output]
"""The output of a stage by its name; raises the error of one that failed."""


class Held(SluiceError):
    """The release waits for a person's decision."""

    def __init__(self, holds: Sequence[Hold]) -> None:
        super().__init__(" ".join(hold.reason for hold in holds))
        self.holds = holds


@dataclass(kw_only=True)
class Work:
    """One run being carried out: the products of its stages by their names, and the errors of those that failed alone."""

    job: Job
    api: HfApi
    graph: Graph
    products: dict[str, object] = field(default_factory=dict)
    failed: dict[str, SluiceError] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.job.recipe

    @property
    def release(self) -> Release:
        """The run's release."""
        return self.job.run.release

    @property
    def route(self) -> Route:
        """Where the release comes from and goes to."""
        return Route(api=self.api, folder=self.job.run.folder, target=self.job.run.target)

    def of(self, stage: str, kind: type[T]) -> T:
        """The product of a stage that is done, which is of that kind. Raises the error of one that failed."""
        self._seen(stage)
        if stage in self.failed:
            raise self.failed[stage]
        product = self.products[stage]
        if not isinstance(product, kind):
            raise TypeError(f"the product of {stage} is a {type(product).__name__}, not a {kind.__name__}")
        return product

    def maybe(self, stage: str, kind: type[T]) -> T | None:
        """The same; None where the stage made nothing, failed or was not reached."""
        self._seen(stage)
        return self.of(stage, kind) if self.products.get(stage) is not None else None

    def failure(self, stage: str) -> SluiceError | None:
        """Why a stage has no product; None where it did not fail."""
        self._seen(stage)
        return self.failed.get(stage)

    def _seen(self, stage: str) -> None:
        """What a stage reads without saying so is missing in every picture of the way, and in what a dry run finds."""
        at_hand = self.job.within
        if at_hand and stage != at_hand and stage not in self.graph[at_hand].takes:
            raise LookupError(f"the stage {at_hand} does not say that it takes the product of {stage}")

    def output(self, stage: str) -> Output:
        """What a stage left behind. Raises the error of one that failed."""
        return self.of(stage, Output)

    def call(self, name: str, call: Call, *, helps: Inputs = MappingProxyType({})) -> Output:
        """The output of a call whose inputs are there; `helps` as `Workbench.apart` has them. Raises the stage's error."""
        return perform(self.job, name, call, outputs=self.output, release=self.release, helps=helps)

    def made(self, stage: str) -> Output | None:
        """What a stage has left behind by now, for one that neither waits for it nor comes out otherwise with it; None where there is nothing yet."""
        product = self.products.get(stage)
        return product if isinstance(product, Output) else None

    def input(self, source: Source) -> Input:
        """The file or folder that a source speaks of. Raises the error of a stage that failed."""
        return resolve(self.job, source, self.output)

    @property
    def strange(self) -> bool:
        """Whether it is somebody else's model, taken from a Hub and published on one, which its terms have to allow."""
        return self.job.run.target is None and not self.release.local and not self.route.own(self.job.run.namespace, self.release)

    @property
    def measured(self) -> dict[str, Measurement]:
        """What was measured of the release itself so far."""
        gated = [self.products.get(stage.name) for stage in self.graph.stages if stage.gated]
        return {name: item for output in gated if isinstance(output, Output) for name, item in measurements(output).items()}


def perform(bench: Workbench, name: str, call: Call, *, outputs: Outputs, release: Release | None = None, helps: Inputs = MappingProxyType({})) -> Output:
    """Find a call's inputs and parameters, and its output: the kept one, or that of a process of its own. Raises the stage's error."""
    inputs: dict[str, Input | Sequence[Input]] = {
        key: [resolve(bench, item, outputs) for item in value] if isinstance(value, Sequence) else resolve(bench, value, outputs)
        for key, value in call.inputs.items()
    }
    return bench.apart(name, call.function, inputs, threaded=call.threaded, helps=helps, **_params(bench, call.params, outputs, release))


def resolve(bench: Workbench, source: Source, outputs: Outputs) -> Input:
    """The file or folder that a source speaks of."""
    match source:
        case Whole():
            return outputs(source.stage).whole if source.chosen is None else outputs(source.stage).part(source.chosen)
        case FileOf():
            return outputs(source.stage).file(source.path, numbers=source.numbers)
        case Data():
            return bench.data(source.path)
        case Input():
            return source


def _params(bench: Workbench, params: Mapping[str, Any], outputs: Outputs, release: Release | None) -> dict[str, Any]:
    found = {}
    for key, value in params.items():
        match value:
            case Result():
                found[key] = outputs(value.stage).result[value.name]
            case OfRelease():
                found[key] = getattr(release, value.name)
            case OfHub():
                found[key] = bench.settings.lasting_hub
            case _:
                found[key] = value
    return found
