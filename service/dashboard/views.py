"""What the pages show, gathered from the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from config.settings import Settings
from service.dashboard.differences import Difference, differences
from service.dashboard.picture import Step, graph_of, phases, picture
from service.dashboard.plot import size_plot
from service.dashboard.signing import Visitor
from service.release.attention import Attention, attention
from service.release.known import UpstreamFilter, UpstreamHead, upstreams
from service.release.listing import WatchList, watch_list
from service.runs import logs, report
from service.runs.attempts import Attempt, attempts_of
from service.runs.gates import GateView, RunGates, gates_of
from service.runs.holds import HoldSummary
from service.runs.report import NoReport
from service.runs.summary import RunSummary, StageSummary, VariantSummary, summarize
from service.store import HintRecord, PublicationRecord, RunFilter, RunRecord, Store

FOLDER = Path(__file__).parent
LATEST = 12  # runs, publications that the first page shows
TAIL = 16 * 1024  # bytes of a log that a run's page shows


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A publication with the run that it came from."""

    record: PublicationRecord
    run: RunRecord


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A repo that is watched."""

    head: UpstreamHead
    hint: HintRecord | None  # why the last look at it came to nothing


@dataclass(frozen=True, kw_only=True)
class Board:
    """What the first page shows."""

    at_work: Sequence[RunSummary]
    waiting: Sequence[RunRecord]
    asking: Sequence[RunRecord]  # a person has to decide, or to look
    attention: Attention  # what else a person should look at
    latest: Sequence[RunRecord]
    published: Sequence[Publication]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What of a run changes while it is carried out."""

    summary: RunSummary
    way: Markup | None  # the graph of its stages
    phases: Sequence[Step]
    at_work: Sequence[StageSummary]
    share: float | None  # of the work that is done, 0 to 1


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A variant with its gates, those that did not pass first."""

    summary: VariantSummary
    gates: Sequence[GateView]


@dataclass(frozen=True, kw_only=True)
class Held:
    """Something that a person has to decide, with what would be changed."""

    summary: HoldSummary
    differences: Sequence[Difference]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Everything about a run."""

    progress: Progress
    variants: Sequence[Judged]
    holds: Sequence[Held]
    plot: Markup | None
    unplotted: Sequence[str]
    differences: Sequence[Difference]
    attempts: Sequence[Attempt]
    report: bool
    logs: Sequence[str]  # stages that have one
    tail: tuple[str, str] | None  # the stage whose log is shown, and its end
    live_log: bool

    @property
    def summary(self) -> RunSummary:
        """What is known of the run."""
        return self.progress.summary


def board(store: Store, settings: Settings, visitor: Visitor) -> Board:
    """What goes on, as far as the visitor may see it."""
    namespaces = visitor.token.namespaces

    def in_state(*states: str) -> list[RunRecord]:
        return [run for state in states for run in store.runs(limit=LATEST, wanted=RunFilter(state=state, namespaces=namespaces))]  # type: ignore[arg-type]

    return Board(
        at_work=[summarize(store, run.id) for run in in_state("running", "interrupted")],
        waiting=[run for run in store.waiting() if visitor.token.sees(run.namespace)][:50],
        asking=in_state("held", "paused"),
        attention=attention(store, settings, visitor.token),
        latest=[run for run in store.runs(limit=3 * LATEST, wanted=RunFilter(namespaces=namespaces)) if run.finished and run.state != "held"][:LATEST],
        published=publications(store, store.all_publications(limit=LATEST, namespaces=namespaces)),
    )


def watch_list_of(store: Store, settings: Settings, visitor: Visitor) -> WatchList | None:
    """The watch list; None for who may see some namespaces alone, of which it says nothing."""
    return watch_list(store, settings) if visitor.token.namespaces is None else None


def watching(store: Store, settings: Settings, visitor: Visitor, *, after: str, limit: int) -> list[Upstream]:
    """What is watched, by name from behind `after` on, as far as the visitor may see it."""
    found = upstreams(store, settings, UpstreamFilter(watched=True, after=after or None), limit=limit, token=visitor.token)
    hints = {hint.repo.lower(): hint for hint in store.hints() if hint.error} if visitor.token.namespaces is None else {}
    return [Upstream(head=head, hint=hints.get(head.repo.lower())) for head in found]


def publications(store: Store, records: Sequence[PublicationRecord]) -> list[Publication]:
    """The publications with their runs."""
    runs = {number: store.run(number) for number in {record.run for record in records}}
    return [Publication(record=record, run=runs[record.run]) for record in records]


def progress(store: Store, settings: Settings, run: int) -> Progress:
    """How far the run has come."""
    found, record, steps = summarize(store, run), store.run(run), store.stages(run)
    at_work = [stage for stage in found.stages if stage.state == "running"]
    foretold = store.forecast(run)
    share = None
    if found.left is not None and (whole := sum(stage.seconds for stage in foretold.values())) > 0:
        share = min(1.0, max(0.0, 1 - found.left / whole))
    graph = graph_of(store, record.recipe, record.recipe_digest)
    return Progress(summary=found, way=picture(graph, record, steps), phases=phases(graph, record, steps), at_work=at_work, share=share)


def whole(store: Store, settings: Settings, run: int) -> Whole:
    """Everything about the run."""
    going = progress(store, settings, run)
    found = going.summary
    written = [stage.name for stage in found.stages if has_log(store, settings, run, stage.name)]
    shown = next((stage.name for stage in reversed(found.stages) if stage.state in {"running", "failed", "interrupted"} and stage.name in written), None)
    tail = None
    if shown is not None:
        tail = shown, logs.Reader(logs.find(store, settings, run, shown), settings, last=TAIL).read(ended=True)
    return Whole(
        progress=going,
        variants=_judged(found, gates_of(store, run)),
        holds=[Held(summary=hold, differences=differences(hold.patches)) for hold in found.held],
        plot=size_plot(found.variants, store.variants(run)),
        unplotted=[item.tag for item in found.variants if item.bytes and not (item.kld.mean and item.kld.mean > 0)],
        differences=differences(store.patches(run)),
        attempts=attempts_of(store, run),
        report=has_report(store, settings, run),
        logs=written,
        tail=tail,
        live_log=any(stage.name == shown and stage.state == "running" for stage in found.stages),
    )


def _judged(found: RunSummary, gates: RunGates) -> list[Judged]:
    """The variants, those that were blocked first."""
    of = {item.tag: sorted(item.gates, key=lambda gate: gate.outcome == "passed") for item in gates.variants}
    judged = [Judged(summary=item, gates=of.get(item.tag, ())) for item in found.variants]
    return sorted(judged, key=lambda item: item.summary.verdict not in {"failed", "error"})


def has_log(store: Store, settings: Settings, run: int, stage: str) -> bool:
    """Whether a stage of the run has a log on this machine."""
    return (settings.folder / "logs" / f"run-{run}" / f"{stage.replace(' ', '-')}.log").is_file()


def has_report(store: Store, settings: Settings, run: int) -> bool:
    """Whether the run has a report on this machine."""
    try:
        report.find(store, settings, run)
    except NoReport:
        return False
    return True
