"""Which of two commits of an upstream is the newer one, and whether a publication may take the place of what a repo holds.

The order is that of the upstream's history: a commit is older than those that it leads up to. Where history was rewritten, so that neither of two leads up
to the other, the dates decide; where they are not known either, and of folders, which have no history, neither is older.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from config.errors import Superseded
from config.settings import REPO_ID
from config.words import Place, Rollback
from publishers import manifest as manifests
from publishers.manifest import Manifest
from publishers.wire import hub_errors


@dataclass(frozen=True, kw_only=True)
class Point:
    """A commit of an upstream, and where it stands as far as that is known."""

    sha: str
    place: Place | None = None


class Line:
    """The history of one upstream. What the Hub says of a commit is asked once, since the commits before it do not change."""

    def __init__(self, api: HfApi | None, upstream: str) -> None:
        """`upstream` as manifests say it: a folder has no history, and nobody is asked about it; nor where there is no client to ask with."""
        self._api, self._upstream = api, upstream
        self._known: dict[str, Mapping[str, str]] = {}

    def before(self, sha: str) -> Mapping[str, str]:
        """The commits that lead up to this one, itself included, newest first, with their dates; none when the Hub does not know it (any more).

        Raises HubError.
        """
        if sha not in self._known:
            self._known[sha] = self._asked(sha)
        return self._known[sha]

    def _asked(self, sha: str) -> dict[str, str]:
        if self._api is None or re.fullmatch(REPO_ID, self._upstream) is None:
            return {}
        with hub_errors(self._api, f"read the history of {self._upstream}"):
            try:
                listed = self._api.list_repo_commits(self._upstream, revision=sha)
            except (RepositoryNotFoundError, RevisionNotFoundError):
                return {}
        return {commit.commit_id: commit.created_at.astimezone(UTC).isoformat() for commit in listed}

    def point(self, sha: str) -> Point:
        """The commit with its place. Raises HubError."""
        found = self.before(sha)
        return Point(sha=sha, place=Place(position=len(found), date=found[sha]) if sha in found else None)

    def precedes(self, one: Point, other: Point) -> bool:
        """Whether `one` is older than `other`. Raises HubError."""
        if one.sha == other.sha or other.sha in self.before(one.sha):
            return False
        if one.sha in self.before(other.sha):
            return True
        dates = [self.before(point.sha).get(point.sha, None if point.place is None else point.place.date) for point in (one, other)]
        return dates[0] is not None and dates[1] is not None and dates[0] < dates[1]

    def newer(self, one: Point, other: Point) -> Point:
        """The newer of two; `one` where neither is. Raises HubError."""
        return other if self.precedes(one, other) else one


def point_of(manifest: Manifest) -> Point:
    """The commit that a publication was made from."""
    return Point(sha=manifest.upstream.sha, place=_place(manifest.upstream.place))


def newest_of(manifest: Manifest) -> Point:
    """The newest commit that a publication stands for: that which it was made from, or which gave way to it."""
    if manifest.rollback is None:
        return point_of(manifest)
    return Point(sha=manifest.rollback.newest, place=_place(manifest.rollback.place))


def settled(line: Line, own: Point, rollback: Rollback | None, there: Manifest | None, *, where: str) -> manifests.Rollback | None:
    """What the manifest of a publication of `own` has to say of newer ones that gave way, in the place of what is `there`.

    `rollback` is what it was allowed to take the place of, newer though that is. Raises Superseded when what is there is newer still, HubError.
    """
    allowed = own if rollback is None else line.newer(own, Point(sha=rollback.sha, place=rollback.place))
    if there is None:
        newest = allowed
    else:
        held, newest = point_of(there), newest_of(there)
        over = rollback is not None and allowed.sha == newest.sha
        if own.sha != held.sha and not over and (own.sha == newest.sha or line.precedes(allowed, newest)):
            raise Superseded(_refusal(own, held, newest, where))
        newest = line.newer(allowed, newest)
    if newest.sha == own.sha:
        return None
    if rollback is not None and newest.sha == rollback.sha:
        place = None if rollback.place is None else manifests.Place(**vars(rollback.place))
        return manifests.Rollback(newest=rollback.sha, place=place, by=rollback.by, comment=rollback.comment)
    return None if there is None else there.rollback


def _refusal(own: Point, held: Point, newest: Point, where: str) -> str:
    if newest.sha == held.sha:
        there = f"{where} holds the publication of the upstream's commit {held.sha[:12]}, which is newer than {own.sha[:12]}, so that one stays"
    else:
        there = f"{where} was rolled back from the upstream's commit {newest.sha[:12]} to {held.sha[:12]}, and {own.sha[:12]} is not newer than that first one"
    return f"{there}. Nothing was overwritten. If {own.sha[:12]} is to be published all the same, `sluice rollback RUN` does that on purpose."


def _place(place: manifests.Place | None) -> Place | None:
    return None if place is None else Place(position=place.position, date=place.date)
