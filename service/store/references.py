"""Which runs the outputs of stages belong to, and which of these runs still need them: what decides whether an output may be thrown away."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select

from service.store.database import Database
from service.store.queue import state_of
from service.store.records import Referrer
from service.store.tables import PublicationRow, RunRow, StageRow

ENDED = ("done", "blocked", "superseded", "failed", "cancelled")  # states of runs that nobody goes on with unless they are queued again
_BATCH = 500  # keys in one query


class References(Database):
    """Runs as they refer to outputs."""

    def referrers(self) -> tuple[Referrer, ...]:
        """Every run, by number, as far as it matters for what becomes of its outputs."""
        published = select(PublicationRow.repo, PublicationRow.run_id).join(RunRow).where(RunRow.target.is_(None))
        with self.read() as session:
            ordered = session.execute(published.order_by(PublicationRow.at, PublicationRow.id))
            current: dict[str, int] = {repo: run for repo, run in ordered}  # noqa: C416 - of each repo the last one; rows are no tuples to mypy
            repos: dict[int, list[str]] = {}
            for repo, run in current.items():
                repos.setdefault(run, []).append(repo)
            return tuple(_referrer(row, repos.get(row.id, ())) for row in session.scalars(select(RunRow).order_by(RunRow.id)))

    def outputs_of_runs(self, keys: Collection[str]) -> dict[str, dict[int, bool]]:
        """The runs that refer to each of these outputs, and whether they did so the last time that they came by the step which makes it."""
        found: dict[str, dict[int, bool]] = {key: {} for key in keys}
        with self.read() as session:
            rows = [row for some in _batches(keys) for row in session.execute(select(StageRow.id, StageRow.run_id, StageRow.key).where(StageRow.key.in_(some)))]
            newest: set[int] = set()
            for some in _batches({run for _, run, _ in rows}):
                newest.update(session.scalars(select(func.max(StageRow.id)).where(StageRow.run_id.in_(some)).group_by(StageRow.run_id, StageRow.name)))
        for id, run, key in rows:
            found[key][run] = found[key].get(run, False) or id in newest
        return found

    @contextmanager
    def unneeded(self, key: str, *, since: datetime) -> Iterator[bool]:
        """Whether no run that refers to an output waits or is at work, or has done so or begun to be held since then; none begins to until the block ends."""
        with self.write() as session:  # on SQLite no other writer comes in between, on PostgreSQL none to these runs
            referring = select(StageRow.run_id).where(StageRow.key == key)
            rows = session.scalars(select(RunRow).where(RunRow.id.in_(referring)).order_by(RunRow.id).with_for_update(of=RunRow))
            moved = or_(RunRow.state.not_in((*ENDED, "held")), RunRow.queued >= since, RunRow.finished >= since)
            ids = [row.id for row in rows]
            yield not ids or session.scalars(select(RunRow.id).where(RunRow.id.in_(ids), moved).limit(1)).first() is None


def _referrer(row: RunRow, published: Iterable[str]) -> Referrer:
    return Referrer(
        run=row.id,
        repo=row.release.repo,
        sha=row.release.sha,
        like=(row.release.repo, row.recipe, row.namespace),
        state=state_of(row),
        last=row.finished or row.started or row.queued,
        published=tuple(sorted(published)),
    )


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    listed = list(values)
    for begin in range(0, len(listed), _BATCH):
        yield listed[begin : begin + _BATCH]
