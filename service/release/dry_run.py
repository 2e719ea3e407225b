"""What a run would do, need and refuse, before anything of the release is downloaded but headers: `sluice run --dry-run`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from config.recipe import Recipe
from config.settings import Settings
from config.words import Release
from qa.gates import condition
from service.hubclient import connect
from service.release import checks, datasets, foreseen, prospect
from service.release.checks.room import exceeded, room
from service.release.forecast import Forecast
from service.release.graph import Graph
from service.release.intake import ReleaseRequest
from service.release.outlook import outlook
from service.release.sizes import PlannedVariant, built_before, size_of
from service.release.way import way
from service.store import open_store


@dataclass(frozen=True, kw_only=True)
class PlannedGate:
    """A gate, and how many variants it will be applied to."""

    name: str
    measure: str
    condition: str  # "at most 0.15"
    variants: int


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage of the run, with what it is expected to need."""

    name: str
    does: str
    seconds: float  # none where it is reused
    memory: int  # bytes, at its peak
    disk: int  # bytes
    gpu: bool  # uses one where there is one
    reused: bool  # what it makes is there already


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run would do."""

    release: Release
    recipe: str
    license: str | None
    download_bytes: int
    targets: Mapping[str, tuple[str, ...]]  # tags of the variants by the repo that they will be published in
    variants: tuple[PlannedVariant, ...]
    stages: tuple[PlannedStage, ...]
    gates: tuple[PlannedGate, ...]
    remarks: tuple[str, ...]  # worth reading; nothing is refused for them
    seconds: float  # one stage after another
    memory: int  # bytes, of the stage that needs most
    memory_total: int  # bytes that a stage may have
    disk_needed: int  # bytes, of everything at once
    disk_missing: int  # bytes that the disk lacks for what is not there yet
    disk_free: int

    def as_json(self) -> dict[str, Any]:
        """The plan as a JSON document."""
        return asdict(self) | {"disk": self.disk_needed, "enough_disk": self.disk_missing == 0, "enough_memory": self.memory <= self.memory_total}


def plan(settings: Settings, wanted: ReleaseRequest) -> Plan:
    """Ask the Hub or the folder what the release holds, look for all that would refuse it, and say what it needs. Raises SluiceError as a run would."""
    api, store = connect(settings), open_store(settings.database)
    recipe, route = datasets.recipe_for(settings, wanted.recipe, api), wanted.route(api)
    upstream = route.resolve(wanted.repo, wanted.revision)
    ahead, graph = prospect.foresee(store, settings, route, recipe, upstream), way(recipe)
    found = checks.problems(graph, ahead)
    checks.refuse(found)
    expected, known = outlook(store, ahead), built_before(store, upstream.release)
    there = room(settings)
    return Plan(
        release=upstream.release,
        recipe=recipe.label,
        license=upstream.license,
        download_bytes=sum(ahead.sizes.values()),
        targets={route.place(target): tuple(variant.tag for variant in held) for target, held in ahead.targets.items()},
        variants=tuple(size_of(variant, ahead, known) for variant in recipe.variants.listed()),
        stages=_stages(graph, expected),
        gates=_gates(recipe),
        remarks=(*(problem.sentence for problem in found), *foreseen.held(store, ahead), *exceeded(expected, there)),
        seconds=expected.seconds,
        memory=expected.memory,
        memory_total=there.memory,
        disk_needed=expected.disk,
        disk_missing=max(0, expected.more_disk - there.disk),
        disk_free=there.disk,
    )


def _stages(graph: Graph, expected: Forecast) -> tuple[PlannedStage, ...]:
    return tuple(
        PlannedStage(
            name=stage.name,
            does=stage.does,
            seconds=needs.seconds,
            memory=needs.memory,
            disk=needs.disk,
            gpu=needs.gpu,
            reused=stage.name in expected.kept,
        )
        for stage in graph.stages
        for needs in [expected.stages[stage.name]]
    )


def _gates(recipe: Recipe) -> tuple[PlannedGate, ...]:
    listed = recipe.variants.listed()
    return tuple(
        PlannedGate(name=gate.name, measure=gate.measure, condition=condition(gate), variants=sum(gate.applies_to(variant) for variant in listed))
        for gate in recipe.gates
    )
