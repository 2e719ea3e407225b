"""What a run would do, need and refuse, before anything of the release is downloaded but headers: `sluice run --dry-run`."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from builders import snapshot
from builders.rounding.sizes import foretold
from config.recipe import Recipe, load_recipe
from config.settings import Settings
from config.words import Release
from qa.gates import condition
from service.execution.kept import StageStore
from service.hubclient import connect
from service.release import checks, prospect
from service.release.prospect import Prospect
from service.release.reuse import Looking, kept, run_of
from service.release.sizes import PlannedVariant, built_before, size_of
from service.release.way import way
from service.release.work import Work
from service.store import Store, open_store


@dataclass(frozen=True, kw_only=True)
class PlannedGate:
    """A gate, and how many variants it will be applied to."""

    name: str
    measure: str
    condition: str  # "at most 0.15"
    variants: int


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage of the run."""

    name: str
    does: str
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
    remarks: tuple[str, ...]  # of the checks: worth reading, and nothing is refused for them
    disk_needed: int  # download, 16-bit GGUF, all variants, and what rounding planned ones takes, at once
    disk_free: int

    def as_json(self) -> dict[str, Any]:
        """The plan as a JSON document."""
        return asdict(self) | {"enough_disk": self.disk_needed <= self.disk_free}


def plan(settings: Settings, repo: str, revision: str, recipe_name: str) -> Plan:
    """Ask the Hub what the release holds, look for all that would refuse it, and size every variant. Raises SluiceError as a run would."""
    recipe, api, store = load_recipe(recipe_name), connect(settings), open_store(settings.database)
    upstream = snapshot.resolve(api, repo, revision)
    ahead, graph = prospect.foresee(store, settings, api, recipe, upstream), way(recipe)
    found = checks.problems(graph, ahead)
    checks.refuse(found)
    reused = _reused(store, ahead)
    known = built_before(store, upstream.release)
    variants = tuple(size_of(variant, ahead.weights, known, recipe.variants.planned.get(variant.tag)) for variant in recipe.variants.listed())
    return Plan(
        release=upstream.release,
        recipe=recipe.name,
        license=upstream.license,
        download_bytes=sum(ahead.sizes.values()),
        targets={target: tuple(variant.tag for variant in held) for target, held in ahead.targets.items()},
        variants=variants,
        stages=tuple(PlannedStage(name=stage.name, does=stage.does, reused=stage.name in reused) for stage in graph.stages),
        gates=_gates(recipe),
        remarks=tuple(problem.sentence for problem in found),
        disk_needed=_disk(ahead, variants, known),
        disk_free=shutil.disk_usage(settings.folder).free,
    )


def _reused(store: Store, ahead: Prospect) -> frozenset[str]:
    """Names of the stages whose products are there already."""
    job = Looking(store=store, run=run_of(store, ahead), recipe=ahead.recipe, settings=ahead.settings, stages=StageStore(ahead.settings.folder))
    return kept(Work(job=job, api=ahead.api, graph=way(ahead.recipe), products={"upstream": ahead.upstream}))


def _gates(recipe: Recipe) -> tuple[PlannedGate, ...]:
    listed = recipe.variants.listed()
    return tuple(
        PlannedGate(name=gate.name, measure=gate.measure, condition=condition(gate), variants=sum(gate.applies_to(variant) for variant in listed))
        for gate in recipe.gates
    )


def _disk(ahead: Prospect, variants: tuple[PlannedVariant, ...], known: dict[str, int]) -> int:
    """Bytes that the run takes at its end; the fixed model shares its weights with the download."""
    recipe = ahead.recipe
    # what is built to be compared with, and not published
    yardsticks = sum(size_of(variant, ahead.weights, known).bytes for variant in recipe.variants.yardsticks)
    anew = {entry.tag for entry in recipe.variants.dynamic if entry.rounding}  # their files are there twice, as llama-quantize rounds them and anew
    rounding = sum(variant.bytes for variant in variants if variant.tag in anew) + (foretold(ahead.shapes) if anew else 0)
    sixteen_bit_gguf = 0 if "BF16" in recipe.variants.gguf else ahead.weights
    return sum(ahead.sizes.values()) + sixteen_bit_gguf + yardsticks + rounding + sum(variant.bytes for variant in variants if variant.tag != "16bit")
