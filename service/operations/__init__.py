"""What commands ask of runs and what belongs to them: of the database of this machine, or of a service elsewhere, in the same words."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from config.settings import Settings
    from config.watch import Watched
    from service.release.attention import Attention
    from service.release.inventory import DataView
    from service.release.known import UpstreamFilter, UpstreamHead
    from service.release.library import RecipeCheck, RecipeHead, RecipePreview, RecipeView
    from service.release.listing import WatchEntry, WatchList
    from service.runs import deciding, holds
    from service.runs import gates as judged
    from service.runs.entries import DeliveryView, TokenView
    from service.runs.going import Going
    from service.runs.heads import RunHead
    from service.runs.recipe import RunRecipe
    from service.runs.summary import PublicationSummary, RunSummary
    from service.store import AuditFilter, AuditRecord, RunFilter


class Operations(Protocol):
    """Everything raises SluiceError in words, of which ConfigurationError says that what was given is wrong."""

    # ---- looking -------------------------------------------------------------------------------------------------------------------------------

    def runs(self, wanted: "RunFilter", *, limit: int) -> "list[RunHead]":
        """The newest runs first."""

    def releases(self, wanted: "UpstreamFilter", *, limit: int) -> "list[UpstreamHead]":
        """Upstream repos by name."""

    def run(self, run: int) -> "RunSummary":
        """Everything about a run."""

    def changes(self, run: int, *, seconds: float) -> "Iterator[RunSummary]":
        """The run now, and each time that something has changed in it but the clock, until it is carried out no more; looked at so often."""

    def going(self, run: int) -> "Going":
        """How a run goes at the moment."""

    def attention(self) -> "Attention":
        """What a person should look at beside the runs."""

    def gates(self, run: int) -> "judged.RunGates":
        """Every gate of a run."""

    def recipe_of(self, run: int) -> "RunRecipe":
        """The recipe that a run was queued with."""

    def report(self, run: int) -> bytes:
        """The run's page."""

    def report_place(self, run: "RunSummary") -> str | None:
        """Where that is; None where there is none."""

    def again(self, run: int) -> list[str] | None:
        """The words after `sluice` that carry the run out again; None where a service does so anyway."""

    def log(self, run: int, stage: str, *, tail: int) -> str:
        """The end of a stage's log, so many bytes."""

    def log_growing(self, run: int, stage: str, *, tail: int, seconds: float) -> Iterator[str]:
        """The same, and what is added until the stage has ended."""

    def publications(self, repo: str | None, *, limit: int) -> "list[PublicationSummary]":
        """What was published, the newest first."""

    def watch_list(self) -> "WatchList":
        """Everything that is watched."""

    def audit(self, wanted: "AuditFilter", *, limit: int) -> "list[AuditRecord]":
        """The audit trail, the newest event first."""

    def tokens(self) -> "list[TokenView]":
        """The tokens there are or were."""

    def deliveries(self, *, limit: int) -> "list[DeliveryView]":
        """What the places of `notify` were sent, the newest first."""

    def recipes(self) -> "list[RecipeHead]":
        """The recipes that are known by name."""

    def recipe(self, name: str) -> "RecipeView":
        """One of them."""

    def check(self, text: str) -> "RecipeCheck":
        """Whether a text is a recipe."""

    def preview(self, run: int, *, name: str | None, text: str | None, folder: "Path") -> "RecipePreview":
        """What a recipe, by its name or its text, would do for the release of a run; relative paths in a text are of that folder of this machine."""

    def data(self, recipe: str) -> "list[DataView]":
        """What a recipe is calibrated and measured on."""

    # ---- steering ------------------------------------------------------------------------------------------------------------------------------

    def cancel(self, run: int) -> "RunSummary":
        """End a run."""

    def pause(self, run: int) -> "RunSummary":
        """Put a run aside."""

    def resume(self, run: int) -> "RunSummary":
        """Let a paused run go on."""

    def retry(self, run: int) -> "RunSummary":
        """Carry a run out again that has ended."""

    def redo(self, run: int, stages: Sequence[str]) -> "RunSummary":
        """The same, and do some stages anew."""

    def prioritize(self, run: int, priority: int) -> "RunSummary":
        """Put a run before others."""

    def approve(self, run: int, decision: "holds.Decision") -> "RunSummary":
        """Let a held run go on."""

    def withdraw_approval(self, run: int, decision: "holds.Decision") -> "RunSummary":
        """Take approvals back."""

    def waive(self, run: int, decision: "judged.Decision", *, unmeasured: bool) -> None:
        """Set a gate aside for a variant."""

    def withdraw_waiver(self, run: int, decision: "judged.Decision") -> None:
        """Take a waiver back."""

    def roll_back(self, run: int, decision: "deciding.Decision") -> "RunSummary":
        """Publish an older release in the place of the newer one."""

    def republish(self, publication: int) -> "RunSummary":
        """Publish again what a run published."""

    def unpublish(self, publication: int, *, by: str, reason: str) -> "PublicationSummary":
        """Make a published repo private."""

    def add_watch(self, entry: "Watched") -> "WatchEntry":
        """Watch more, from the next poll on."""

    def change_watch(self, id: int, entry: "Watched") -> "WatchEntry":
        """Let an entry that was added so be another one, as a whole."""

    def remove_watch(self, id: int) -> None:
        """Watch an entry no more that was added so."""

    def close(self) -> None:
        """Let go of what they are asked of."""


def refuse_path(recipe: str) -> None:
    """Raise ConfigurationError for a recipe that is a file, where a service elsewhere is asked."""
    from config.errors import ConfigurationError

    if recipe.endswith((".yaml", ".yml")) or "/" in recipe:
        raise ConfigurationError(
            f"{recipe} is a file of this machine, and a service elsewhere knows recipes by name. `sluice recipes list` shows those it has."
        )


def open_operations(settings: "Settings") -> Operations:
    """Those of the service that the settings name, or of this machine's database. Raises ConfigurationError."""
    if settings.server is None:
        from service.operations.database import Here
        from service.store import open_store

        return Here(store=open_store(settings.database), settings=settings)
    from service.operations.line import Line
    from service.operations.remote import Elsewhere

    return Elsewhere(line=Line.to(settings))
