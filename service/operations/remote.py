"""Operations on a service elsewhere, over its API."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from config.errors import SluiceError
from config.watch import Watched
from service.operations import refuse_path
from service.operations.line import Line, Unreachable, parsed
from service.release.attention import Attention
from service.runs import deciding, holds
from service.runs import gates as judged
from service.runs.changing import substance
from service.runs.going import Going
from service.runs.heads import RunHead
from service.runs.recipe import RunRecipe
from service.runs.report import STAGE
from service.runs.summary import PublicationSummary, RunSummary
from service.store import ApprovalRefused, AuditFilter, AuditRecord, RunFilter, WaiverRefused, refuse_priority

if TYPE_CHECKING:
    from service.release.inventory import DataView
    from service.release.known import UpstreamFilter, UpstreamHead
    from service.release.library import RecipeCheck, RecipeHead, RecipePreview, RecipeView
    from service.release.listing import WatchEntry, WatchList
    from service.runs.entries import DeliveryView, TokenView

PAGE = 200  # of runs and publications, at most
EVENTS = 1000  # of the audit trail
LINES = 5  # times in a row that a broken line is taken up again
PAUSE = 2.0  # seconds before that

Model = TypeVar("Model", bound=BaseModel)
_AUDIT = TypeAdapter(list[AuditRecord])


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """See `Operations`, of which this is one."""

    line: Line

    def runs(self, wanted: RunFilter, *, limit: int) -> list[RunHead]:
        """The newest runs first."""
        asked: dict[str, Any] = {
            "repo": wanted.repo,
            "state": wanted.state,
            "recipe": wanted.recipe,
            "since": _moment(wanted.since),
            "until": _moment(wanted.until),
        }
        return self._pages(RunHead, "runs", limit, PAGE, **asked)

    def releases(self, wanted: "UpstreamFilter", *, limit: int) -> "list[UpstreamHead]":
        """Upstream repos by name."""
        from service.release.known import UpstreamHead

        return self._pages(UpstreamHead, "releases", limit, PAGE, cursor="after", repo=wanted.repo, state=wanted.state, watched=wanted.watched)

    def run(self, run: int) -> RunSummary:
        """Everything about a run."""
        return _as(RunSummary, self.line.get(f"/runs/{run}"))

    def changes(self, run: int, *, seconds: float) -> Iterator[RunSummary]:
        """The run at each change; where the line breaks, or the service begins anew, it is taken up again."""
        told, broken = None, 0
        while True:
            try:
                for name, data in self.line.events(f"/runs/{run}/events"):
                    broken = 0
                    if name == "end":
                        return
                    found = _as(RunSummary, parsed(data))
                    if (seen := substance(found.model_dump(mode="json"))) != told:
                        told = seen
                        yield found
            except Unreachable:
                if told is None or broken >= LINES:
                    raise
            broken += 1
            if broken > LINES:
                raise Unreachable(f"The service at {self.line.server} ends each stream at once. Run {run} goes on there; ask for its status in a while.")
            time.sleep(PAUSE)

    def going(self, run: int) -> Going:
        """How a run goes at the moment."""
        return _as(Going, self.line.get(f"/runs/{run}/progress"))

    def attention(self) -> Attention:
        """What a person should look at beside the runs."""
        return _as(Attention, self.line.get("/attention"))

    def gates(self, run: int) -> judged.RunGates:
        """Every gate of a run."""
        return _as(judged.RunGates, self.line.get(f"/runs/{run}/gates"))

    def recipe_of(self, run: int) -> RunRecipe:
        """The recipe that a run was queued with."""
        return _as(RunRecipe, self.line.get(f"/runs/{run}/recipe"))

    def report(self, run: int) -> bytes:
        """The run's page."""
        return self.line.content(f"/runs/{run}/report")

    def report_place(self, run: RunSummary) -> str | None:
        """Its address, for who is signed in there."""
        made = any(stage.name == STAGE and stage.state in {"done", "reused"} for stage in run.stages)
        return f"{self.line.server}/ui/runs/{run.run}/report" if made else None

    def again(self, run: int) -> list[str] | None:
        """The command by which the service does, unless it does already."""
        return None if self.run(run).state in {"queued", "running", "interrupted"} else ["retry", str(run)]

    def log(self, run: int, stage: str, *, tail: int) -> str:
        """The end of a stage's log."""
        return self.line.text(f"/runs/{run}/stages/{_part(stage)}/log", tail=tail)

    def log_growing(self, run: int, stage: str, *, tail: int, seconds: float) -> Iterator[str]:
        """A stage's log as it grows."""
        for name, data in self.line.events(f"/runs/{run}/stages/{_part(stage)}/log/events", tail=tail):
            if name == "end":
                return
            yield data
        raise Unreachable(f"The service at {self.line.server} ended before the stage {stage} of run {run} did. Ask for its log in a while.")

    def publications(self, repo: str | None, *, limit: int) -> list[PublicationSummary]:
        """What was published, the newest first."""
        return self._pages(PublicationSummary, "publications", limit, PAGE, repo=repo)

    def watch_list(self) -> "WatchList":
        """Everything that is watched."""
        from service.release.listing import WatchList

        return _as(WatchList, self.line.get("/watch"))

    def audit(self, wanted: AuditFilter, *, limit: int) -> list[AuditRecord]:
        """The audit trail."""
        found: list[dict[str, Any]] = []
        before = None
        while len(found) < limit:
            asked = {"subject": wanted.subject, "source": wanted.source, "action": wanted.action}
            page = self.line.get("/audit", limit=min(EVENTS, limit - len(found)), before=before, **asked)
            found += _of_page(page, "events")
            if (before := page["next"]) is None:
                break
        with _understood(AuditRecord.__name__):
            return _AUDIT.validate_python(found)

    def tokens(self) -> "list[TokenView]":
        """The tokens there are or were."""
        from service.runs.entries import TokenView

        return [_as(TokenView, item) for item in self.line.get("/tokens")]

    def deliveries(self, *, limit: int) -> "list[DeliveryView]":
        """What the places of `notify` were sent."""
        from service.runs.entries import DeliveryView

        return self._pages(DeliveryView, "notifications/deliveries", limit, PAGE)

    def recipes(self) -> "list[RecipeHead]":
        """The recipes that are known by name."""
        from service.release.library import RecipeHead

        return [_as(RecipeHead, item) for item in self.line.get("/recipes")]

    def recipe(self, name: str) -> "RecipeView":
        """One of them."""
        from service.release.library import RecipeView

        refuse_path(name)
        return _as(RecipeView, self.line.get(f"/recipes/{_part(name)}"))

    def check(self, text: str) -> "RecipeCheck":
        """Whether a text is a recipe."""
        from service.release.library import RecipeCheck

        return _as(RecipeCheck, self.line.post("/recipes/validate", {"text": text}))

    def preview(self, run: int, *, name: str | None, text: str | None, folder: Path) -> "RecipePreview":
        """What a recipe would do for the release of a run."""
        from service.release.library import RecipePreview

        return _as(RecipePreview, self.line.post("/recipes/preview", {"run": run, "name": name, "text": text}))

    def data(self, recipe: str) -> "list[DataView]":
        """What a recipe is calibrated and measured on."""
        from service.release.inventory import DataView

        refuse_path(recipe)
        return [_as(DataView, item) for item in self.line.get(f"/recipes/{_part(recipe)}/data")]

    def cancel(self, run: int) -> RunSummary:
        """End a run."""
        return self._steer(run, "cancel")

    def pause(self, run: int) -> RunSummary:
        """Put a run aside."""
        return self._steer(run, "pause")

    def resume(self, run: int) -> RunSummary:
        """Let a paused run go on."""
        return self._steer(run, "resume")

    def retry(self, run: int) -> RunSummary:
        """Carry a run out again."""
        return self._steer(run, "retry")

    def redo(self, run: int, stages: Sequence[str]) -> RunSummary:
        """The same, and do some stages anew."""
        return self._steer(run, "redo", stages=list(stages))

    def prioritize(self, run: int, priority: int) -> RunSummary:
        """Put a run before others."""
        refuse_priority(priority)
        return self._steer(run, "priority", priority=priority)

    def approve(self, run: int, decision: holds.Decision) -> RunSummary:
        """Let a held run go on."""
        by, comment = decision.said("An approval", ApprovalRefused)
        return self._steer(run, "approve", by=by, comment=comment, subject=decision.subject)

    def withdraw_approval(self, run: int, decision: holds.Decision) -> RunSummary:
        """Take approvals back."""
        by, comment = decision.said("An approval", ApprovalRefused)
        return self._steer(run, "approve/withdraw", by=by, comment=comment, subject=decision.subject)

    def waive(self, run: int, decision: judged.Decision, *, unmeasured: bool) -> None:
        """Set a gate aside."""
        by, comment = decision.said("A waiver", WaiverRefused)
        said = {"gate": decision.gate, "variant": decision.tag, "by": by, "comment": comment, "unmeasured": unmeasured}
        self.line.post(f"/runs/{run}/waivers", said)

    def withdraw_waiver(self, run: int, decision: judged.Decision) -> None:
        """Take a waiver back."""
        by, comment = decision.said("A waiver", WaiverRefused)
        self.line.post(f"/runs/{run}/waivers/withdraw", {"gate": decision.gate, "variant": decision.tag, "by": by, "comment": comment})

    def roll_back(self, run: int, decision: deciding.Decision) -> RunSummary:
        """Publish an older release."""
        from service.release.rollback import RollbackRefused

        by, comment = decision.said("A roll-back", RollbackRefused)
        return self._steer(run, "rollback", by=by, comment=comment)

    def republish(self, publication: int) -> RunSummary:
        """Publish again."""
        return _as(RunSummary, self.line.post(f"/publications/{publication}/republish"))

    def unpublish(self, publication: int, *, by: str, reason: str) -> PublicationSummary:
        """Make a published repo private."""
        from service.release.unpublishing import said

        by, reason = said(by, reason)
        return _as(PublicationSummary, self.line.post(f"/publications/{publication}/unpublish", {"by": by, "reason": reason}))

    def add_watch(self, entry: Watched) -> "WatchEntry":
        """Watch more."""
        from service.release.listing import WatchEntry

        return _as(WatchEntry, self.line.post("/watch", entry.model_dump(mode="json", exclude_defaults=True)))

    def change_watch(self, id: int, entry: Watched) -> "WatchEntry":
        """Let an entry be another one."""
        from service.release.listing import WatchEntry

        return _as(WatchEntry, self.line.put(f"/watch/{id}", entry.model_dump(mode="json", exclude_defaults=True)))

    def remove_watch(self, id: int) -> None:
        """Watch an entry no more."""
        self.line.delete(f"/watch/{id}")

    def start(self, repo: str, *, revision: str | None, recipe: str | None, redo: Sequence[str] = ()) -> RunSummary:
        """Queue a release, of which these stages are done anew."""
        if recipe is not None:
            refuse_path(recipe)
        return _as(RunSummary, self.line.post("/runs", {"repo": repo, "revision": revision, "recipe": recipe, **({"redo": list(redo)} if redo else {})}))

    def _steer(self, run: int, verb: str, **said: Any) -> RunSummary:
        return _as(RunSummary, self.line.post(f"/runs/{run}/{verb}", said or None))

    def _pages(self, model: type[Model], name: str, limit: int, most: int, *, cursor: str = "before", **asked: Any) -> list[Model]:
        """So many of a list that comes in pages, each of which is asked for by the `cursor` that the page before tells."""
        found: list[Model] = []
        place = None
        while len(found) < limit:
            page = self.line.get(f"/{name}", limit=min(most, limit - len(found)), **{cursor: place}, **asked)
            found += [_as(model, item) for item in _of_page(page, name.rpartition("/")[2])]
            if (place := page["next"]) is None:
                break
        return found

    def close(self) -> None:
        """Hang up."""
        self.line.client.close()


def _as(model: type[Model], document: Any) -> Model:
    """The document as that model. Raises SluiceError where a service of another version answers otherwise."""
    with _understood(model.__name__):
        return model.model_validate(document)


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """Around reading an answer that is to be of that kind. Raises SluiceError where it is not."""
    try:
        yield
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False)[0]["loc"])) or "the whole"
        raise SluiceError(f"The service answered as this command does not expect ({name}, {where}): it is of another version. Use its `sluice`.") from error


def _of_page(page: Any, name: str) -> list[Any]:
    """What a page of a list holds. Raises SluiceError where it is none."""
    if not isinstance(page, dict) or not isinstance(page.get(name), list) or "next" not in page:
        raise SluiceError(f"The service's answer is not as this command expects it ({name}): it is of another version. Use its `sluice`.")
    found: list[Any] = page[name]
    return found


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _moment(at: Any) -> str | None:
    return None if at is None else at.isoformat()
