"""What the records come to, counted by the database: for metrics, which ask every few seconds and must not read each record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, String, TableValuedAlias, cast, func, select
from sqlalchemy.orm import Session

from config.words import Outcome
from service.store.database import Database
from service.store.tables import HintRow, PublicationRow, RunRow, StageRow, VerdictRow


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many there are of each."""

    runs: Mapping[str, int]  # by state
    waiting_since: datetime | None  # the run that has been queued longest
    hints: int  # repos that are to be looked at
    stages: Mapping[tuple[str, ...], int]  # by name and state
    stage_seconds: Mapping[str, float]  # of ended stages, by name
    variants: Mapping[str, int]  # by outcome
    gates: Mapping[tuple[str, ...], int]  # results, by gate, outcome and why it did not pass: one of a few words, empty where it did
    publications: int
    published: datetime | None  # the last time that something changed on the Hub or in a folder


class Counting(Database):
    """Counts over all records."""

    def counts(self) -> Counts:
        """Everything at one moment."""
        with self.read() as session:
            state, stage = RunRow.state, func.coalesce(StageRow.stage, StageRow.name)
            outcomes = select(VerdictRow.outcome, func.count()).group_by(VerdictRow.outcome)
            ended = select(stage, StageRow.state, func.count(), func.coalesce(func.sum(StageRow.seconds), 0.0)).group_by(stage, StageRow.state)
            stages = session.execute(ended).all()
            seconds: dict[str, float] = {}
            for name, _, _, taken in stages:
                seconds[name] = seconds.get(name, 0.0) + float(taken or 0.0)
            return Counts(
                runs=dict(session.execute(select(state, func.count()).group_by(state)).all()),
                waiting_since=session.scalar(select(func.min(RunRow.queued)).where(state == "queued")),
                hints=session.scalar(select(func.count()).select_from(HintRow)) or 0,
                stages={(name, state): count for name, state, count, _ in stages},
                stage_seconds=seconds,
                variants={name or "unjudged": count for name, count in session.execute(outcomes)},
                gates=self._gates(session),
                publications=session.scalar(select(func.count()).select_from(PublicationRow)) or 0,
                published=session.scalar(select(func.max(PublicationRow.at)).where(PublicationRow.changed)),
            )

    def _gates(self, session: Session) -> dict[tuple[str, ...], int]:
        """How many results of gates there are of each kind."""
        rows, field = self._results()
        marks = [field(name).is_not(None) for name in ("waiver", "value", "limit")]
        told: list[ColumnElement[Any]] = [field("gate"), field("outcome"), *marks, field("undecided").in_(("1", "true"))]
        found: dict[tuple[str, ...], int] = {}
        for gate, outcome, *shown, count in session.execute(select(*told, func.count()).select_from(VerdictRow, rows).group_by(*told)):
            key = gate, outcome, _reason(outcome, *map(bool, shown))
            found[key] = found.get(key, 0) + count
        return found

    def _results(self) -> tuple[TableValuedAlias, Callable[[str], ColumnElement[str]]]:
        """Each result in a verdict's list of them as a row, and a field of it as text."""
        if self._engine.dialect.name == "sqlite":
            rows = func.json_each(VerdictRow.results).table_valued("value", name="results", joins_implicitly=True)
            return rows, lambda name: cast(func.json_extract(rows.c.value, f"$.{name}"), String)
        rows = func.json_array_elements(VerdictRow.results).table_valued("value", name="results", joins_implicitly=True)
        return rows, lambda name: func.json_extract_path_text(rows.c.value, name)


def _reason(outcome: str, waived: bool, measured: bool, limited: bool, undecided: bool) -> str:
    """Why a gate did not pass, in one of a few words: what it says itself is for people, and never twice the same."""
    if outcome == Outcome.PASSED:
        return ""
    if waived:
        return "waived"
    if outcome == Outcome.FAILED:
        return "undecided" if undecided else "limit_exceeded"
    return "not_comparable" if measured and not limited else "not_measured"  # a relative one has no limit before it is compared
