"""What the records come to, counted by the database: for metrics, which ask every few seconds and must not read each record."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, TableValuedAlias, func, select

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
    gates: Mapping[tuple[str, ...], int]  # results of variants that did not pass, by gate and outcome
    publications: int
    published: datetime | None  # the last time that something changed on the Hub or in a folder


class Counting(Database):
    """Counts over all records."""

    def counts(self) -> Counts:
        """Everything at one moment."""
        with self.read() as session:
            state, stage = RunRow.state, func.coalesce(StageRow.stage, StageRow.name)
            gate, outcome, results = self._results()
            judged = select(gate, outcome, func.count()).select_from(VerdictRow, results).where(VerdictRow.outcome != Outcome.PASSED.value)
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
                gates={(name, how): count for name, how, count in session.execute(judged.group_by(gate, outcome))},
                publications=session.scalar(select(func.count()).select_from(PublicationRow)) or 0,
                published=session.scalar(select(func.max(PublicationRow.at)).where(PublicationRow.changed)),
            )

    def _results(self) -> tuple[ColumnElement[str], ColumnElement[str], TableValuedAlias]:
        """Gate and outcome of each result in a verdict's list of them, and the list as a table."""
        if self._engine.dialect.name == "sqlite":
            rows = func.json_each(VerdictRow.results).table_valued("value", name="results", joins_implicitly=True)
            return func.json_extract(rows.c.value, "$.gate"), func.json_extract(rows.c.value, "$.outcome"), rows
        rows = func.json_array_elements(VerdictRow.results).table_valued("value", name="results", joins_implicitly=True)
        return func.json_extract_path_text(rows.c.value, "gate"), func.json_extract_path_text(rows.c.value, "outcome"), rows
