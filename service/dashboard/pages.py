"""The pages: what goes on, the runs there are, one run with everything about it, what is watched, what was published, the audit trail."""

from http import HTTPStatus
from typing import Annotated, get_args

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse

from service.api.access import Number, TheSettings, TheStore, refuse_lacking
from service.api.errors import ApiError
from service.dashboard import views
from service.dashboard.deeds import seen
from service.dashboard.rendering import page
from service.dashboard.signing import TheVisitor
from service.runs import logs, report
from service.runs.entries import delivery_view
from service.store import AuditFilter, RunFilter, RunState

STATIC = views.FOLDER / "static"
FILES = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "icon.svg": "image/svg+xml"}
PAGE = 50  # rows of a list
LOG_BYTES = 512 * 1024  # of a log that a page shows

SAID = {
    "cancel": "The run is cancelled, or will be within seconds.",
    "pause": "The run is paused, or will be when its stage is done.",
    "resume": "The run goes on when its turn comes.",
    "retry": "The run is queued again.",
    "prioritized": "The run has its new place in the queue.",
    "approved": "Your approval is on record.",
    "waived": "The waiver is on record. It counts when the run is carried out again: retry it.",
    "withdrawn": "The waiver is withdrawn. That counts when the run is carried out again.",
    "publish": "The run is queued again, to publish what it published before.",
    "unpublish": "The repo is private now.",
    "rollback": "The run is queued again, to take the place of the newer release.",
}

router = APIRouter()


def to_dashboard(request: Request) -> RedirectResponse:
    """From the bare address to the first page."""
    return RedirectResponse(f"{request.scope['root_path']}/ui/")


@router.get("/static/{name}")
def static(name: str) -> FileResponse:
    """Style and script."""
    if name not in FILES:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such file.")
    return FileResponse(STATIC / name, media_type=FILES[name])


@router.get("/")
def overview(visitor: TheVisitor, store: TheStore, settings: TheSettings) -> HTMLResponse:
    """What is at work, what waits, what needs a person, what ended last."""
    return page("overview.html.j2", visitor, here="overview", board=views.board(store, settings, visitor))


@router.get("/runs")
def runs(
    visitor: TheVisitor,
    store: TheStore,
    repo: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    before: Number | None = None,
) -> HTMLResponse:
    """The runs, newest first."""
    states: tuple[RunState, ...] = get_args(RunState)
    looked = repo.strip().replace("\0", "")
    wanted = RunFilter(
        repo=looked if "/" in looked or not looked else f"*{looked}*",
        state=next((item for item in states if item == state), None),
        namespaces=visitor.token.namespaces,
        before=before,
    )
    if wanted.repo == "":
        wanted = RunFilter(state=wanted.state, namespaces=wanted.namespaces, before=before)
    found = store.runs(limit=PAGE + 1, wanted=wanted)
    following = found[PAGE - 1].id if len(found) > PAGE else None
    return page("runs.html.j2", visitor, here="runs", runs=found[:PAGE], next=following, states=states, repo=looked, state=wanted.state or "")


@router.get("/runs/{id}")
def run(id: Number, visitor: TheVisitor, store: TheStore, settings: TheSettings, said: str = "") -> HTMLResponse:
    """Everything about one run."""
    seen(store, visitor, id)
    found = views.whole(store, settings, id)
    return page("run.html.j2", visitor, here="runs", whole=found, view=found.progress, said=SAID.get(said))


@router.get("/runs/{id}/report")
def show_report(id: Number, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> FileResponse:
    """The run's report."""
    seen(store, visitor, id)
    return FileResponse(report.find(store, settings, id), media_type="text/html; charset=utf-8")


@router.get("/runs/{id}/logs/{stage}")
def log(id: Number, stage: str, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> HTMLResponse:
    """The log of a stage, as it grows."""
    seen(store, visitor, id)
    path = logs.find(store, settings, id, stage)
    going = any(item.name == stage and item.state == "running" for item in store.stages(id))
    text = logs.Reader(path, settings, last=LOG_BYTES).read(ended=not going)
    return page("log.html.j2", visitor, here="runs", run=id, stage=stage, text=text, going=going, most=LOG_BYTES)


@router.get("/runs/{id}/logs/{stage}/text")
def log_text(id: Number, stage: str, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> PlainTextResponse:
    """The same as plain text, whole."""
    seen(store, visitor, id)
    path = logs.find(store, settings, id, stage)
    return PlainTextResponse(logs.Reader(path, settings, last=logs.ALL).read(ended=True))


@router.get("/watch")
def watch(visitor: TheVisitor, store: TheStore, settings: TheSettings, after: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """The watch list, and what was seen last of each upstream that it follows."""
    refuse_lacking(visitor.token, "read")
    found = views.watching(store, settings, visitor, after=after.replace("\0", ""), limit=PAGE + 1)
    following = found[PAGE - 1].head.repo if len(found) > PAGE else None
    listed = views.watch_list_of(store, settings, visitor)
    return page("watch.html.j2", visitor, here="watch", listed=listed, upstreams=found[:PAGE], next=following, after=after)


@router.get("/releases")
def releases(visitor: TheVisitor, store: TheStore, before: Number | None = None) -> HTMLResponse:
    """What was published, newest first."""
    found = store.all_publications(limit=PAGE + 1, before=before, namespaces=visitor.token.namespaces)
    following = found[PAGE - 1].id if len(found) > PAGE else None
    return page("releases.html.j2", visitor, here="releases", rows=views.publications(store, found[:PAGE]), next=following)


@router.get("/audit")
def audit(visitor: TheVisitor, store: TheStore, before: Number | None = None, subject: Annotated[str, Query(max_length=250)] = "") -> HTMLResponse:
    """The audit trail."""
    refuse_lacking(visitor.token, "admin")
    looked = subject.strip().replace("\0", "")
    found = store.audit_events(limit=PAGE + 1, wanted=AuditFilter(subject=looked or None, before=before))
    following = found[PAGE - 1].id if len(found) > PAGE else None
    return page("audit.html.j2", visitor, here="audit", events=found[:PAGE], next=following, subject=looked)


@router.get("/notifications")
def notifications(visitor: TheVisitor, store: TheStore, before: Number | None = None) -> HTMLResponse:
    """What the places of `notify` were sent, and how that went."""
    refuse_lacking(visitor.token, "admin")
    found = store.deliveries(limit=PAGE + 1, before=before)
    following = found[PAGE - 1].id if len(found) > PAGE else None
    return page("notifications.html.j2", visitor, here="notifications", deliveries=[delivery_view(item) for item in found[:PAGE]], next=following)
