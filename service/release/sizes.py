"""How large a variant will be, before it is built: known from an earlier build of the same release, or estimated."""

from collections.abc import Mapping
from dataclasses import dataclass

from config.words import Release, Variant
from service.release.costs.sizes import weight
from service.release.kinds import kind_of
from service.release.prospect import Prospect
from service.store import Store


@dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """A variant and its size."""

    tag: str
    bytes: int
    exact: bool  # known from an earlier build of the same release, or from the Hub's listing; else estimated


def built_before(store: Store, release: Release) -> dict[str, int]:
    """Sizes of the variants that earlier runs built from this release, by tag."""
    runs = [run.id for run in store.runs(limit=100) if run.release == release]
    return {record.variant.tag: record.bytes for run in runs for record in store.variants(run) if record.bytes is not None}


def size_of(variant: Variant, ahead: Prospect, known: Mapping[str, int]) -> PlannedVariant:
    """A variant's bytes; those of a planned variant are at most its budget."""
    if variant.tag in known:
        return PlannedVariant(tag=variant.tag, bytes=known[variant.tag], exact=True)
    return PlannedVariant(tag=variant.tag, bytes=weight(ahead, variant), exact=kind_of(variant).bytes is not None)
