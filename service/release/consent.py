"""Holding what is ready before it is published: whether the recipe asks a person, what that person is shown, and that only this is then published."""

import hashlib
from collections.abc import Iterator

from config.words import Hold, Outcome
from service.release.job import PUBLISHING
from service.release.products import JUDGED, Judged
from service.release.publishing import repos
from service.release.remarks import remarks
from service.release.work import Held, Work


def ask(work: Work) -> None:
    """Hold the run where its recipe wants that and nobody has approved just this. Raises Held."""
    hold = wanted(work)
    if hold is not None and work.job.hold([hold], last=True):
        raise Held([hold])


def wanted(work: Work) -> Hold | None:
    """What a person has to decide; None where nothing is published on a Hub, or the recipe asks nobody."""
    when, judged = work.recipe.publish.hold, work.of(JUDGED, Judged)
    passed = [item for item in judged.built if item.passed]
    if when == "never" or not passed or work.job.run.target is not None:
        return None
    warned = list(warnings(work))
    if when == "on_warnings" and not warned:
        return None
    ready = "; ".join(f"{', '.join(item.variant.tag for item in repo.passed)} in {repo.name}" for repo in repos(work) if repo.passed)
    files = hashlib.sha256("\n".join(sorted(item.output.key for item in passed)).encode()).hexdigest()[:12]
    told = f" To look at: {' '.join(warned)}" if warned else ""
    return Hold(
        subject=PUBLISHING, reason=f"Ready to be published: {ready} (files {files}). The recipe asks for a person's word first, `publish.hold: {when}`.{told}"
    )


def warnings(work: Work) -> Iterator[str]:
    """What a person may want to know before the release is published: what gates kept back or people waived, and remarks of measurements."""
    for record in work.job.store.variants(work.job.run.id):
        verdict, tag = record.verdict, record.variant.tag
        if verdict is None or verdict.outcome is not Outcome.PASSED:
            yield f"{tag} is kept back: {next(iter(verdict.reasons), 'not measured') if verdict else 'not judged'}"
        else:
            yield from (f"{tag} rests on a waiver of the gate {item.gate} by {item.by}: {item.comment}" for item in verdict.waivers)
    yield from remarks(work)
