"""Operations on the database of this machine."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.settings import Settings
from config.watch import Watched
from publishers.naming import NOBODY
from service.release.attention import Attention, attention
from service.runs import deciding, holds, logs, report, steering
from service.runs import gates as judged
from service.runs.changing import GOING_ON, substance
from service.runs.going import Going, going
from service.runs.heads import RunHead, run_head
from service.runs.recipe import RunRecipe, recipe_of
from service.runs.summary import PublicationSummary, RunSummary, publication_summary, summarize
from service.store import AuditFilter, AuditRecord, RunFilter, RunRecord, Store

if TYPE_CHECKING:
    from service.release.inventory import DataView
    from service.release.known import UpstreamFilter, UpstreamHead
    from service.release.library import RecipeCheck, RecipeHead, RecipePreview, RecipeView
    from service.release.listing import WatchEntry, WatchList
    from service.runs.entries import DeliveryView, TokenView

_ME = steering.Actor()


@dataclass(frozen=True, kw_only=True)
class Here:
    """See `Operations`, of which this is one."""

    store: Store
    settings: Settings

    def runs(self, wanted: RunFilter, *, limit: int) -> list[RunHead]:
        """The newest runs first."""
        return [run_head(run) for run in self.store.runs(limit=limit, wanted=wanted)]

    def releases(self, wanted: "UpstreamFilter", *, limit: int) -> "list[UpstreamHead]":
        """Upstream repos by name."""
        from service.release.known import upstreams

        return upstreams(self.store, self.settings, wanted, limit=limit)

    def run(self, run: int) -> RunSummary:
        """Everything about a run."""
        return summarize(self.store, run)

    def changes(self, run: int, *, seconds: float) -> Iterator[RunSummary]:
        """The run at each change."""
        told = None
        while True:
            found = summarize(self.store, run)
            if (seen := substance(found.model_dump(mode="json"))) != told:
                told = seen
                yield found
            if found.state not in GOING_ON:
                return
            time.sleep(seconds)

    def going(self, run: int) -> Going:
        """How a run goes at the moment."""
        return going(self.store, run)

    def attention(self) -> Attention:
        """What a person should look at beside the runs."""
        return attention(self.store, self.settings)

    def gates(self, run: int) -> judged.RunGates:
        """Every gate of a run."""
        return judged.gates_of(self.store, run)

    def recipe_of(self, run: int) -> RunRecipe:
        """The recipe that a run was queued with."""
        return recipe_of(self.store, run)

    def report(self, run: int) -> bytes:
        """The run's page."""
        return report.find(self.store, self.settings, run).read_bytes()

    def report_place(self, run: RunSummary) -> str | None:
        """Its path."""
        try:
            return str(report.find(self.store, self.settings, run.run))
        except report.NoReport:
            return None

    def again(self, run: int) -> list[str] | None:
        """The command that would make the same run."""
        record = self.store.run(run)
        taken = ["run", record.release.repo, "--revision", record.release.sha]
        if record.folder is not None:
            taken = ["release", record.folder, "--name", record.release.name]
        named = [] if record.namespace == NOBODY else ["--namespace", record.namespace]
        hidden = ["--private"] if record.private and record.target is None else []
        left = ["--to", record.target] if record.target is not None else []
        offered = ["--fixes-as-pr"] if record.fixes_as_pr else []
        return [*taken, "--recipe", record.recipe, *named, *hidden, *left, *offered]

    def log(self, run: int, stage: str, *, tail: int) -> str:
        """The end of a stage's log."""
        return logs.Reader(logs.find(self.store, self.settings, run, stage), self.settings, last=tail).read(ended=True)

    def log_growing(self, run: int, stage: str, *, tail: int, seconds: float) -> Iterator[str]:
        """A stage's log as it grows."""
        for text in logs.growing(self.store, self.settings, run, stage, last=tail):
            if text is None:
                time.sleep(seconds)
            else:
                yield text

    def publications(self, repo: str | None, *, limit: int) -> list[PublicationSummary]:
        """What was published, the newest first."""
        return [publication_summary(item) for item in self.store.all_publications(limit=limit, repo=repo)]

    def watch_list(self) -> "WatchList":
        """Everything that is watched."""
        from service.release.listing import watch_list

        return watch_list(self.store, self.settings)

    def audit(self, wanted: AuditFilter, *, limit: int) -> list[AuditRecord]:
        """The audit trail."""
        return list(self.store.audit_events(limit=limit, wanted=wanted))

    def tokens(self) -> "list[TokenView]":
        """The tokens there are or were."""
        from service.runs.entries import token_view

        return [token_view(token) for token in self.store.tokens()]

    def deliveries(self, *, limit: int) -> "list[DeliveryView]":
        """What the places of `notify` were sent."""
        from service.runs.entries import delivery_view

        return [delivery_view(item) for item in self.store.deliveries(limit=limit)]

    def recipes(self) -> "list[RecipeHead]":
        """The recipes that are known by name."""
        from service.release import library

        return library.known()

    def recipe(self, name: str) -> "RecipeView":
        """One of them."""
        from service.release import library

        return library.known_recipe(name)

    def check(self, text: str) -> "RecipeCheck":
        """Whether a text is a recipe."""
        from service.release import library

        return library.checked(text)

    def preview(self, run: int, *, name: str | None, text: str | None, folder: Path) -> "RecipePreview":
        """What a recipe would do for the release of a run."""
        from service.hubclient import connect
        from service.release import library

        record = self.store.run(run)
        written = library.written(name) if name is not None else library.from_text(text or "", folder)
        return library.preview(self.store, self.settings, connect(self.settings), record, written)

    def data(self, recipe: str) -> "list[DataView]":
        """What a recipe is calibrated and measured on."""
        from config.written import named_data
        from service.hubclient import connect
        from service.release.inventory import inventory

        return inventory(self.settings, connect(self.settings), named_data(recipe))

    def cancel(self, run: int) -> RunSummary:
        """End a run."""
        return self._told(steering.cancel(self.store, run, _ME))

    def pause(self, run: int) -> RunSummary:
        """Put a run aside."""
        return self._told(steering.pause(self.store, run, _ME))

    def resume(self, run: int) -> RunSummary:
        """Let a paused run go on."""
        return self._told(steering.resume(self.store, run, _ME))

    def retry(self, run: int) -> RunSummary:
        """Carry a run out again."""
        return self._told(steering.retry(self.store, run, _ME))

    def redo(self, run: int, stages: Sequence[str]) -> RunSummary:
        """The same, and do some stages anew."""
        from service.release.redoing import redo

        return self._told(redo(self.store, self.settings, run, stages, _ME))

    def prioritize(self, run: int, priority: int) -> RunSummary:
        """Put a run before others."""
        return self._told(steering.prioritize(self.store, run, priority, _ME))

    def approve(self, run: int, decision: holds.Decision) -> RunSummary:
        """Let a held run go on."""
        return self._told(holds.approve(self.store, run, decision))

    def withdraw_approval(self, run: int, decision: holds.Decision) -> RunSummary:
        """Take approvals back."""
        return self._told(holds.withdraw(self.store, run, decision))

    def waive(self, run: int, decision: judged.Decision, *, unmeasured: bool) -> None:
        """Set a gate aside."""
        judged.waive(self.store, run, decision, unmeasured=unmeasured)

    def withdraw_waiver(self, run: int, decision: judged.Decision) -> None:
        """Take a waiver back."""
        judged.withdraw(self.store, run, decision)

    def roll_back(self, run: int, decision: deciding.Decision) -> RunSummary:
        """Publish an older release."""
        from service.hubclient import connect
        from service.release.rollback import roll_back

        return self._told(roll_back(self.store, connect(self.settings), run, decision))

    def republish(self, publication: int) -> RunSummary:
        """Publish again."""
        from service.release.republishing import republish

        return self._told(republish(self.store, self.settings, publication, _ME))

    def unpublish(self, publication: int, *, by: str, reason: str) -> PublicationSummary:
        """Make a published repo private."""
        from service.hubclient import connect
        from service.release.unpublishing import unpublish

        return publication_summary(unpublish(self.store, connect(self.settings), publication, by=by, reason=reason, actor=_ME))

    def add_watch(self, entry: Watched) -> "WatchEntry":
        """Watch more."""
        from service.release.checks.watch import refuse_unusable
        from service.release.listing import watch_entry

        refuse_unusable(entry, self.settings)
        return watch_entry(self.store.add_watch(entry, by=_ME.source, source=_ME.source))

    def change_watch(self, id: int, entry: Watched) -> "WatchEntry":
        """Let an entry be another one."""
        from service.release.checks.watch import refuse_unusable
        from service.release.listing import watch_entry

        refuse_unusable(entry, self.settings)
        return watch_entry(self.store.change_watch(id, entry, by=_ME.source, source=_ME.source))

    def remove_watch(self, id: int) -> None:
        """Watch an entry no more."""
        self.store.remove_watch(id, by=_ME.source, source=_ME.source)

    def close(self) -> None:
        """Let go of the database."""
        self.store.close()

    def _told(self, run: RunRecord) -> RunSummary:
        return summarize(self.store, run.id)
