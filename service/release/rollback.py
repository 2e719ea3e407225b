"""Releases that go back: a watched revision that names an older commit again, and a person who wants an older release published.

Nothing else lets an older commit take the place of a newer one: every publication is compared with what its repo holds (`publishers.order`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from huggingface_hub import HfApi

from config.errors import SluiceError, Superseded
from config.words import Hold, Release, Rollback
from publishers import order, target
from publishers.manifest import Manifest
from publishers.order import Line, Point
from service.release.kinds import by_repo
from service.release.work import Work
from service.runs.deciding import Decision
from service.store import ROLLBACK, RunRecord, Sighting, Store, order_of


class RollbackRefused(SluiceError):
    """There is nothing to roll back to, or nothing newer to roll back from."""


# ---- a watched revision that moves -------------------------------------------------------------------------------------------------------------


def seen(line: Line, before: Sighting, release: Release) -> Sighting:
    """What a watched revision names now; `before` is what it named when it was last looked at, nothing at first. Raises HubError."""
    if before.sha == release.sha:
        return before
    newest = point = line.point(release.sha)
    if before.newest:
        newest = line.newer(point, Point(sha=before.newest, place=before.place))
    return replace(before, sha=release.sha, newest=newest.sha, place=newest.place)


def moved(before: Sighting | None, now: Sighting, *, known: bool) -> Rollback | None:
    """What the commit that a watched revision names now may take the place of, where the revision came back to it; `known` says that it was released before."""
    if before is None or before.sha == now.sha or (now.newest == now.sha and not known):
        return None
    way = f"from {before.sha[:12]} {'on' if now.newest == now.sha else 'back'} to {now.sha[:12]}"
    comment = f"The revision {now.revision!r} of {now.repo} moved {way}."
    return Rollback(sha=now.newest, place=now.place, by=None, comment=comment, revision=now.revision)


def standing(store: Store, run: RunRecord) -> Rollback | None:
    """What the run may take the place of by what its watched revision named at the last look: nothing once that moved on."""
    back = run.rollback
    if back is None or back.revision is None:
        return back
    named = store.sighting(run.release.repo, back.revision, run.recipe)
    return back if named is not None and named.sha == run.release.sha else None


def held(store: Store, run: RunRecord, wanted: str) -> Iterator[Hold]:
    """What a person has to decide before the run may take the place of a newer release; `wanted` is the recipe's `on_rollback`."""
    back = standing(store, run)
    if wanted == "hold" and back is not None and back.by is None and back.sha != run.release.sha:
        yield Hold(
            subject=ROLLBACK,
            reason=f"{back.comment} Published is, or will be, what was made of {back.sha[:12]}, which is newer. "
            f"Approved, the older {run.release.sha[:12]} takes its place; until then the newer one stays. `on_rollback: follow` in the recipe would not ask.",
        )


def allowed(work: Work) -> Rollback | None:
    """What the run may take the place of, as it stands now: a watched revision may have moved while the run went on, which nobody has approved."""
    store, run = work.job.store, work.job.store.run(work.job.run.id)
    approved = {item.hold.digest for item in store.holds(run.id) if item.approval is not None}
    return standing(store, run) if all(hold.digest in approved for hold in held(store, run, work.recipe.on_rollback)) else None


def refuse_withdrawn(work: Work, planned: Rollback | None) -> None:
    """Raise Superseded where what the run planned to take the place of something newer by does not stand any more: its watched revision has moved on."""
    if planned is not None and allowed(work) is None:
        own = work.release.sha[:12]
        raise Superseded(f"{planned.comment} That does not stand any more, so what was made of {own} is not published. Nothing was overwritten.")


# ---- a person who wants it ---------------------------------------------------------------------------------------------------------------------


def roll_back(store: Store, api: HfApi, run: int, decision: Decision) -> RunRecord:
    """Queue the run again, and let it take the place of what is published by now of newer commits of its upstream, and of nothing that is newer still.

    One that gave way to an older one comes back so as well.
    Raises UnknownRun, RollbackRefused, HubError, PublishConflict when a manifest cannot be read.
    """
    by, comment = decision.said("A roll-back", RollbackRefused)
    record = store.run(run)
    repos = _repos(store, record)
    line = Line(api, record.release.origin)
    newest = own = line.point(record.release.sha)
    gave_way = False  # to an older one, so that no run brings it back by itself
    for found in _published(store, api, repos):
        newest = line.newer(newest, order.newest_of(found))
        gave_way = gave_way or (found.rollback is not None and found.rollback.newest == own.sha)
    if newest.sha == own.sha and not gave_way:
        raise RollbackRefused(f"Nothing newer than {own.sha[:12]} is published in {', '.join(repos)}, so there is nothing to roll back.")
    told = Rollback(sha=newest.sha, place=newest.place, by=by, comment=comment)
    told_of = {"from": newest.sha, "to": own.sha, "repos": repos, "by": by, "comment": comment}
    queued = store.enqueue(replace(order_of(record, trigger=ROLLBACK), rollback=told), again=True)[0]  # first: what the caller asks to hold is looked at there
    store.audit(decision.source, f"run/{run}", "rollback", {**told_of, **decision.details})
    return queued


def _repos(store: Store, run: RunRecord) -> list[str]:
    """The repos that the run published, or would have. Raises RollbackRefused when there are none, or it is not over."""
    if run.state in {"queued", "running", "interrupted", "held"}:
        raise RollbackRefused(f"Run {run.id} is {run.state}. Wait for its end, or name another run of the commit that is to be published again.")
    if run.target is not None:
        raise RollbackRefused(f"Run {run.id} left its repos in a folder, where nothing has a history. Move what is there away, then run it again.")
    passed = [item.variant for item in store.variants(run.id) if item.verdict is not None and item.verdict.outcome == "passed"]
    repos = [*dict.fromkeys((*(item.repo for item in store.publications(run.id)), *by_repo(passed, run.namespace, run.release.name)))]
    if not repos:
        raise RollbackRefused(f"Run {run.id} has nothing to publish: no variant of it passed its gates. `sluice gates {run.id}` tells why.")
    return repos


def _published(store: Store, api: HfApi, repos: Iterable[str]) -> Iterator[Manifest]:
    """What each of these repos holds."""
    for repo in repos:
        if target.exists(api, repo):
            last = store.last_publication(repo)
            head = target.read_head(api, repo, previously=last.revision if last else None)
            if head.manifest is not None:
                yield head.manifest
