"""Samples that grow: a first one of every variant, and more of those whose gates it leaves undecided; and what relative gates compare with."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from config.errors import SluiceError
from config.words import Sample, Variant
from publishers import naming
from qa import gates
from qa.relative import Reference, References
from service.release.job import Job
from service.release.kinds import repo_of
from service.release.products import Found, Outcomes, Published

PUBLISHED = "what is published"  # the stage that looks it up

Take = Callable[[Sequence[str], int, Sample], Outcomes]
"""Extends the samples of these variants to a size; what was found about each says that it rests on the given sample."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a sample may become, and what is measured on it."""

    looks: Sequence[int]  # its sizes, one after the other
    basis: Mapping[str, str]  # see `basis`


def take_until_decided(job: Job, variants: Sequence[Variant], published: Published, plan: Plan, take: Take) -> dict[str, Found | SluiceError]:
    """What samples of these sizes say about each variant, by its tag.

    Every variant is looked at once. One with a gate that its sample does not decide is looked at again on a larger one, with those that the gate is relative
    to, until every gate is decided or the largest was taken. Which stages are done follows from what the earlier ones found, so a run that is carried out
    again finds them all.
    """
    found: dict[str, Found | SluiceError] = {}
    pending = [variant.tag for variant in variants]
    for look, size in enumerate(plan.looks, start=1):
        found |= take(pending, size, Sample(basis=plan.basis, look=look, looks=len(plan.looks)))
        pending = _undecided(job, variants, found, published)
        if not pending:
            break
    return found


def since(start: int, end: int, unit: str) -> str:
    """What the name of a stage that extends a sample ends with; nothing for the first sample."""
    return f" from {start} to {end} {unit}" if start else ""


def _undecided(job: Job, variants: Iterable[Variant], found: Outcomes, published: Published) -> list[str]:
    """Tags of the variants with a gate that more of the same could decide, and of those which such a gate is relative to."""
    wanted: set[str] = set()
    judged = set(job.recipe.variants.listed())  # not the stock mixes that planned ones are only compared with
    for variant in judged.intersection(variants):
        item = found[variant.tag]
        if isinstance(item, SluiceError):
            continue
        due = [gate for gate in job.recipe.gates if gate.measure in item.measured]
        compared = references(variant, found, published)
        for result in gates.judge(variant, due, item.measured, {}, samples=item.samples, references=compared).results:
            if result.undecided:
                gate = next(gate for gate in due if gate.name == result.gate)
                other = variant.like if gate.relative_to == "stock" else gate.relative_to
                wanted |= {variant.tag} | ({other} if other is not None and isinstance(found.get(other), Found) else set())
    return [tag for tag in found if tag in wanted]


def references(variant: Variant, found: Outcomes, published: Published) -> References:
    """What the gates of a variant can be relative to, by what they call it."""
    known: dict[str, Reference | None] = {tag: _reference(tag, item) for tag, item in found.items()}
    if variant.like in known:
        known["stock"] = known[variant.like]
    if variant.tag in published:
        known["published"] = published[variant.tag]
    return known


def _reference(tag: str, item: Found | SluiceError) -> Reference:
    if isinstance(item, SluiceError):
        return Reference(name=tag, measurements={}, error=str(item))
    return Reference(name=tag, measurements=item.measured, samples=item.samples, error=" ".join(dict.fromkeys(item.errors.values())))


def published_before(job: Job, variants: Iterable[Variant]) -> dict[str, Reference | None]:
    """By tag what was last published of each variant of the same upstream repo; None where nothing was."""
    before: dict[str, Reference | None] = {}
    for variant in variants:
        repo = repo_of(variant, job.run.namespace, job.run.release.name)
        last = job.store.published_before(job.run.id, naming.place(repo, job.run.target), variant.tag)
        before[variant.tag] = None
        if last is not None:
            run, record = last
            measured = {item.name: item for item in record.measurements}
            before[variant.tag] = Reference(name=f"{variant.tag} as run {run} published it", measurements=measured, samples=record.samples)
    return before


def basis(names: Sequence[str], *parts: object) -> dict[str, str]:
    """For measurements whose names begin with these words a digest of what they are measured on: where it is another, figures cannot be compared."""
    return dict.fromkeys(names, hashlib.sha256(json.dumps(parts).encode()).hexdigest())
