"""How large a variant will be, before it is built: known from an earlier build of the same release, or estimated from its budget or type."""

from dataclasses import dataclass

from config.recipe import Dynamic, DynamicNf4
from config.words import Kind, Release, Variant
from service.release.kinds import kind_of
from service.runs.summary import summary
from service.store import Store


@dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """A variant and its size."""

    tag: str
    bytes: int
    exact: bool  # known from an earlier build of the same release, or from the Hub's listing; else estimated


def built_before(store: Store, release: Release) -> dict[str, int]:
    """Sizes of the variants that earlier runs built from this release, by tag."""
    found: dict[str, int] = {}
    for run in store.runs(limit=100):
        if run.release == release:
            found |= {row["tag"]: row["bytes"] for row in summary(store, run.id)["variants"] if row["bytes"] is not None}
    return found


def size_of(variant: Variant, weights: int, known: dict[str, int], dynamic: Dynamic | DynamicNf4 | None = None) -> PlannedVariant:
    """A variant's bytes; `weights` are those of the 16-bit safetensors, and of a planned variant they are at most its budget."""
    if variant.tag in known:
        return PlannedVariant(tag=variant.tag, bytes=known[variant.tag], exact=True)
    if variant.kind is Kind.SIXTEEN_BIT:
        return PlannedVariant(tag=variant.tag, bytes=weights, exact=True)
    if dynamic is not None:
        return PlannedVariant(tag=variant.tag, bytes=_budget(dynamic, weights), exact=False)
    return PlannedVariant(tag=variant.tag, bytes=round(weights * kind_of(variant).bits(variant) / 16), exact=False)


def _budget(dynamic: Dynamic | DynamicNf4, weights: int) -> int:
    """The most bytes that a planned variant may have; of a memory to fit into all of it, for the cache's share is not known before the model is."""
    if dynamic.bytes is not None:
        return min(dynamic.bytes, weights)
    bits = kind_of(dynamic.variant).bits(dynamic.variant)
    if isinstance(dynamic, DynamicNf4):
        return min(weights, round(weights * (dynamic.bpw or bits * (1 + (dynamic.above or 0.0))) / 16))
    if dynamic.fit is not None:
        return min(dynamic.fit.memory, weights)
    return round(weights * (bits if dynamic.like else dynamic.bpw or 16.0) / 16)
