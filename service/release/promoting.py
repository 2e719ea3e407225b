"""Repos on their way: all of a release lie on the Hub beside what is published, and were tried, before the first of them takes its place."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from builders.snapshot import Upstream
from publishers import folder, hub
from publishers.order import Line
from service.execution.leaving import checkpoint, left_by
from service.release import gathering, publishing, rollback, unpublishing
from service.release.offering import offer
from service.release.publishing import Repo
from service.release.reading_back import read_back
from service.release.work import Work
from service.store import Published, Unpublished


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A repo of which all is done but what others see."""

    name: str
    planned: hub.Plan
    promote: Callable[[], hub.Publication]


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """What holds for all repos of a release."""

    private: bool
    fence: Callable[[], None]
    beside: ExitStack


def publish(work: Work) -> list[str]:
    """Publish each repo of which a variant passed, with the run's report, and put them into one collection; or leave them in the run's folder. The repos.

    A repo that cannot be uploaded, or does not do what was measured, leaves all of them as they are. What is published is done: a collection that cannot be
    made is tried again later. The fixes are offered to the upstream before, where they are to be: cards say where. Raises HubError, PublishConflict,
    StageError.
    """
    job, hindrance, line = work.job, offer(work), Line(work.api, work.release.origin)
    private = job.run.private or work.of("upstream", Upstream).private  # upstream may have been made private since the run was queued
    published: list[str] = []
    with ExitStack() as beside:

        def fence() -> None:
            job.fence(pausing=not published)  # of a release of which others see a part already the rest follows within seconds

        ready = [_ready(work, repo, line, _Bounds(private=private, fence=fence, beside=beside)) for repo in publishing.repos(work) if repo.passed]
        with left_by(lambda whole: None):  # but by the fence: a commit that was sent is not left before it is known what became of it, and told
            for item in ready:
                _promote(work, item)
                published.append(item.name)
            if published and job.run.target is None:
                gathering.gather(work, published, private=private)
    if hindrance is not None:
        raise hindrance
    return published


def _ready(work: Work, repo: Repo, line: Line, bounds: _Bounds) -> _Ready:
    """Plan a repo; on the Hub have it lie beside what is there, until `beside` ends."""
    job, store, target = work.job, work.job.store, work.job.run.target
    checkpoint(whole=True)
    with job.limited(f"planning {repo.name}"):
        hidden = bounds.private or (target is None and unpublishing.removed(store, work.api, repo.name))
        planned = publishing.plan(work, repo, private=hidden, line=line)
    if target is not None:
        return _Ready(name=repo.name, planned=planned, promote=partial(folder.publish, Path(target), planned, line))

    def used(commit: str, sent: Collection[str]) -> None:
        read_back(work, repo.name, repo.passed, commit, sent)

    def fence() -> None:
        bounds.fence()
        rollback.refuse_withdrawn(work, planned.rollback)

    def made(publication: hub.Publication) -> None:
        _keep(work, planned, publication)

    before = store.last_publication(repo.name)
    known = hub.Known(previously=before.revision if before else None, line=line, openings=store, fence=fence, made=made, used=used)
    with job.noted(f"upload {repo.name}", planned.manifest.digest()):
        return _Ready(name=repo.name, planned=planned, promote=bounds.beside.enter_context(hub.staged(work.api, planned, known)))


def _promote(work: Work, item: _Ready) -> None:
    """Let others see it; that they do is kept at once."""
    job, store, elsewhere = work.job, work.job.store, work.job.run.target is not None
    with job.noted(f"publish {item.name}" if not elsewhere else f"leave {item.name.rpartition('/')[2]}", item.planned.manifest.digest()) as noted:
        result = item.promote()
        noted.message = result.remark or ""
        if not result.changed:
            noted.state, noted.message = "reused", "already holds exactly this"
        opened = None if elsewhere else unpublishing.opened(store, work.api, item.name)
        back = None if elsewhere or opened is not None else unpublishing.taken_back(store, item.name)
        noted.message = "; ".join(part for part in (noted.message, unpublishing.remark(back)) if part)
        if elsewhere or opened is not None:
            _keep(work, item.planned, result if elsewhere else replace(result, changed=False), opened=opened)


def _keep(work: Work, planned: hub.Plan, result: hub.Publication, *, opened: Unpublished | None = None) -> None:
    """Keep that it is public; `opened` as in `Results.record_publication`."""
    job = work.job
    record = {name: value for name, value in asdict(result).items() if name != "remark"}
    lease = None if job.run.worker is None else job.run.lease
    job.store.record_publication(job.run.id, Published(**record), rollback=planned.rollback, lease=lease, opened=opened)
