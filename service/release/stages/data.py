"""Which texts and questions the release is measured on: recorded with the run, said on card and manifest."""

from collections.abc import Iterator

from builders import datasets as published
from config.recipe import Recipe
from service.execution.kept import Output
from service.release import datasets
from service.release.graph import Phase, Stage
from service.release.products import DATA
from service.release.work import Work


def stages(recipe: Recipe) -> Iterator[Stage]:
    """One stage, after the texts were looked at."""
    yield Stage(
        name=DATA,
        phase=Phase.EXAMINE,
        does="record which texts and questions are used, with commit, digest and licence of what is from the Hub",
        work=_record,
        after=("text overlap",),
    )


def _record(work: Work) -> Output:
    job = work.job
    found = datasets.sources(job.settings, work.recipe, lambda path: job.data(path).digest) if job.sources is None else list(job.sources)
    return job.here(DATA, published.record, {"sources": found}, sources=found)
