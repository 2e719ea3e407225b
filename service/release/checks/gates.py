"""Check: every gate is on something that is measured of the variants that it is for, and every variant has a gate."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config.near import meant
from config.recipe import Gate, Recipe
from config.words import Kind, Variant
from service.release.checks.problem import Remark
from service.release.graph import Check, Graph

if TYPE_CHECKING:
    from service.release.prospect import Prospect

ON_REQUEST = ("activation.max", "float16.failures")  # measured where a gate asks for them, which one with a mistyped name does not


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Names of what a recipe measures."""

    once: Collection[str]  # on the 16-bit model, before any variant is built
    each: Collection[str]  # on variants
    own: Mapping[str, Collection[str]]  # by the tag of a variant: in a stage of its own

    def of(self, measure: str, variant: Variant) -> bool:
        """Whether something that is measured of some variants is measured of this one."""
        if variant.kind == Kind.MMPROJ or measure.startswith("mmproj."):
            return variant.kind == Kind.MMPROJ and measure.startswith("mmproj.")
        if any(measure in names for names in self.own.values()):
            return measure in self.own.get(variant.tag, ())
        return measure not in {"plan.stock", "plan.replaced"} or variant.like is not None


def measured(graph: Graph) -> Measured:
    """What the stages of a recipe's graph measure."""
    once = frozenset(name for stage in graph.stages if stage.gated for name in stage.measures)
    own = {stage.variant: stage.measures for stage in graph.stages if stage.variant and stage.measures}
    return Measured(once=once, each=graph.measures - once, own=own)


def wrong(recipe: Recipe, names: Measured) -> Iterator[str]:
    """A sentence for each gate that could not be judged, or would judge nothing, whatever the release; and for each variant that no gate is for."""
    variants, parts = recipe.variants.listed(), recipe.variants.projectors()
    for gate in recipe.gates:
        if gate.measure not in {*names.once, *names.each}:
            yield _unmeasured(gate, names)
        elif gate.scope == "release" and gate.measure not in names.once:
            yield (
                f"Gate {gate.name} is on {gate.measure}, which is measured on variants, and its scope is the release, which is judged before any is built. "
                "Leave out `scope: release`."
            )
        else:
            yield from _misplaced(gate, (*variants, *parts), names)
    for variant in variants:
        if not any(gate.applies_to(variant) for gate in recipe.gates):
            yield f"No gate is for the variant {variant.tag}, and nothing unmeasured is published. Add a gate for it, or do not build it."


def look(prospect: "Prospect") -> Iterator[str]:
    """What is wrong with the gates of the recipe."""
    from service.release.way import way  # which gives this check to a stage

    return wrong(prospect.recipe, measured(way(prospect.recipe)))


CHECKS = (Check(name="gates", stage="judge", look=look),)


def _unmeasured(gate: Gate, names: Measured) -> str:
    known = sorted({*names.once, *names.each, *ON_REQUEST})
    near = meant(gate.measure, known)
    hint = f"Did you mean {near}?" if near is not None else f"What it measures: {', '.join(sorted({*names.once, *names.each}))}."
    return f"Gate {gate.name} is on {gate.measure}, which nothing in this recipe measures. {hint}"


def _misplaced(gate: Gate, variants: Collection[Variant], names: Measured) -> Iterator[str]:
    """What is wrong with the variants that a gate is for."""
    there = [variant for variant in variants if gate.names(variant)]
    if gate.tags and not there:
        yield f"Gate {gate.name} is for {', '.join(gate.tags)}, and none of these is of the kinds {', '.join(gate.kinds)}. Correct its `tags` or its `kinds`."
    elif not there:
        yield Remark(f"Gate {gate.name} is for variants of the kinds {', '.join(gate.kinds)}, of which this recipe builds none, so it judges nothing.")
    lacking = [variant.tag for variant in there if gate.applies_to(variant) and not names.of(gate.measure, variant)]
    if lacking:
        yield (
            f"Gate {gate.name} is on {gate.measure}, which is not measured of {', '.join(lacking)}, so that it would block them. "
            "Say by `kinds` or `tags` which variants it is for."
        )
