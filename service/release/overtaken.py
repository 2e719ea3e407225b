"""Runs of commits that their branch has left behind: where commits come faster than builds the newest is built, and what leads up to it is not."""

from huggingface_hub import HfApi

from config.errors import Superseded
from publishers.order import Line, Point
from service.runs.again import HINTS
from service.store import RunFilter, RunRecord, Store
from service.store.database import now


def refuse_overtaken(store: Store, api: HfApi, run: RunRecord) -> None:
    """Raise Superseded where something newer is published, or waits and nothing of the run is done yet, so that the newest one's turn comes.

    Only of a run that polls and webhooks alone asked for, and whose commit no watched revision names any more. Raises HubError.
    """
    decided = run.trigger not in HINTS or (run.rollback is not None and run.rollback.by is not None)
    if decided or run.release.sha in store.named(run.release.repo, run.recipe):
        return
    line, own = Line(api, run.release.origin), Point(sha=run.release.sha)

    def newer(other: RunRecord) -> bool:
        return line.precedes(own, Point(sha=other.release.sha))

    published = store.published(run)
    if published is not None and newer(published):
        there = f"Run {published.id} has published what was made of {published.release.sha[:12]}, which is newer than {own.sha[:12]}"
        raise Superseded(f"{there}, so that one stays, and nothing more is done for the older one.")
    if any(run.queued is None or step.started >= run.queued for step in store.stages(run.id)):
        return  # else what is begun might be given up for something newer time and again, and nothing ever be published
    waiting = [other for other in store.runs(state="queued", wanted=RunFilter(repo=run.release.repo)) if other.due is None or other.due <= now()]
    if other := next((other for other in waiting if _takes_its_place(other, run) and newer(other)), None):
        there = f"Run {other.id} of {other.release.sha[:12]}, which is newer than {own.sha[:12]}, waits for its turn"
        raise Superseded(f"{there}, so nothing was done for the older one. `sluice retry {run.id}` does it all the same.")


def give_up_held(store: Store, api: HfApi, run: RunRecord) -> None:
    """End the held runs of the run's kind as superseded of whose commits something newer is published: to approve one could come to nothing else.

    Only those that polls and webhooks alone asked for, and whose commits no watched revision names any more; of one that would go back to an older commit on
    purpose, what its revision names decides. Raises HubError.
    """
    published = store.published(run)
    if published is None:
        return
    there, line, named = Point(sha=published.release.sha), Line(api, run.release.origin), store.named(run.release.repo, run.recipe)
    for other in store.undecided(run):
        own = Point(sha=other.release.sha)
        if other.trigger not in HINTS or other.rollback is not None or own.sha in named or own.sha == there.sha:
            continue
        if own.sha in line.before(there.sha) or line.precedes(own, there):  # the first asks the Hub once for all
            newer = f"Run {published.id} has published what was made of {there.sha[:12]}, which is newer than {own.sha[:12]}"
            store.give_up(other.id, error=f"{newer}, so that one stays, and there is nothing to approve any more.")


def _takes_its_place(other: RunRecord, run: RunRecord) -> bool:
    """Whether the one does with another commit what the other was to do, and no later."""
    same = (run.recipe_digest, run.namespace, run.target)
    return (other.recipe_digest, other.namespace, other.target) == same and other.priority >= run.priority
