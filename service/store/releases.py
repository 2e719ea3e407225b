"""Upstream repos, whichever of their commits: those that are known, the last run of each, and what is published for it."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, func, select, union

from service.store.database import Database
from service.store.queue import matching, run_record
from service.store.records import PublicationRecord, RunFilter, RunRecord, Seen
from service.store.results import publication_record
from service.store.tables import LookRow, PublicationRow, ReleaseRow, RunRow, SightingRow


class Releases(Database):
    """What is known of upstream repos."""

    def known_repos(self) -> frozenset[str]:
        """The repos that a run is of, or that a watch entry was looked at for."""
        with self.read() as session:
            return frozenset(session.scalars(union(*(select(row.repo) for row in (ReleaseRow, LookRow, SightingRow)))))

    def last_runs(self, wanted: RunFilter, *, repos: Collection[str] | None = None) -> dict[str, RunRecord]:
        """The run of each upstream repo that was queued last, of those that are in such a state; of a namespace's runs only these are looked at.

        Of `repos`, where they are given, else of all.
        """
        newest = func.row_number().over(partition_by=ReleaseRow.repo, order_by=(RunRow.queued.desc(), RunRow.id.desc()))
        with self.read() as session:
            ranked = select(RunRow.id, newest.label("place")).join(ReleaseRow, ReleaseRow.id == RunRow.release_id)
            ranked = ranked.where(*matching(session, RunFilter(namespaces=wanted.namespaces)), *_among(repos))
            last = ranked.subquery()
            rows = select(RunRow).where(RunRow.id.in_(select(last.c.id).where(last.c.place == 1)), *matching(session, RunFilter(state=wanted.state)))
            return {row.release.repo: run_record(row) for row in session.scalars(rows)}

    def seen(self, repos: Collection[str]) -> tuple[Seen, ...]:
        """What the watched revisions of these repos named when they were last looked at, the latest look first."""
        with self.read() as session:
            found = [
                Seen(repo=repo, revision=revision, sha=sha, at=at)
                for row in (LookRow, SightingRow)
                for repo, revision, sha, at in session.execute(select(row.repo, row.revision, row.sha, row.at).where(row.repo.in_(repos)))
            ]
        latest: dict[tuple[str, str], Seen] = {}
        for item in sorted(found, key=lambda item: (item.at, item.sha)):
            latest[item.repo, item.revision] = item
        return tuple(sorted(latest.values(), key=lambda item: item.at, reverse=True))

    def published_for(self, repos: Collection[str]) -> tuple[tuple[RunRecord, PublicationRecord], ...]:
        """The publications that are current, unless they were taken back, and their runs, of these upstream repos; by the names of what was published."""
        newest = func.row_number().over(partition_by=PublicationRow.repo, order_by=(PublicationRow.at.desc(), PublicationRow.id.desc()))
        ranked = select(PublicationRow.id, newest.label("place")).subquery()
        current = select(PublicationRow, RunRow).join(RunRow, RunRow.id == PublicationRow.run_id).join(ReleaseRow, ReleaseRow.id == RunRow.release_id)
        current = current.join(ranked, ranked.c.id == PublicationRow.id).where(ranked.c.place == 1, PublicationRow.unpublished.is_(None), *_among(repos))
        with self.read() as session:
            rows = session.execute(current.order_by(PublicationRow.repo)).all()
            return tuple((run_record(run), publication_record(publication)) for publication, run in rows)


def _among(repos: Collection[str] | None) -> list[ColumnElement[bool]]:
    return [] if repos is None else [ReleaseRow.repo.in_(repos)]
