"""A token for some namespaces, on a service where everything of another one bears a mark: no operation and no page ever shows it."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from config.settings import Settings, Watched
from config.words import GateResult, Hold, Kind, Measurement, Outcome, Patch, Variant, Verdict, Waiver
from publishers.naming import REPORT
from service.api import create_app
from service.api.tokens import create_token
from service.dashboard import add_dashboard, deeds, live, pages
from service.pulse import pulse
from service.store import KeptRecipe, LookKey, Message, Published, PullRequestRecord, Store, VariantRecord
from service.store.access import Grant
from tests.service.helpers import kept_file, queue_run

MARK = "zebra"  # of what is none of the token's business
NOWHERE = 4711  # a number that nothing has
SECRET = {"details": {MARK: MARK}, "source": MARK}
OPEN = {"GET /api/v1/health", "GET /api/v1/live", "POST /webhooks/huggingface", "POST /webhooks/rebuild"}  # which ask for no token
SHARED = {
    "GET /api/v1/recipes",
    "GET /api/v1/recipes/{name}",
    "GET /api/v1/recipes/{name}/data",
    "POST /api/v1/recipes/validate",
}  # recipes are files of the operator, by which everybody's runs are made


def everything(store: Store, settings: Settings, mark: str, namespace: str) -> int:
    """A run of a namespace with all that a run can have, each bearing the mark; its number."""
    digest = f"{mark:x<64}"
    store.keep_recipe(KeptRecipe(digest=digest, content={"name": mark, "variants": {"gguf": ["Q4_0"]}}, sources=()))
    run = queue_run(store, f"{mark}/model", recipe=mark, recipe_digest=digest, namespace=namespace, trigger=mark).id
    store.lease("worker", seconds=600, run=run)
    kept_file(store, settings.folder, run, mark, f"{mark}.gguf", mark.encode())
    kept_file(store, settings.folder, run, "report", REPORT, mark.encode())
    log = settings.folder / "logs" / f"run-{run}" / f"{mark}.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"{mark}\n")
    patch = Patch(fix=mark, version=1, file="config.json", key=mark, reason=mark, before=mark, after=None)
    store.record_patches(run, [patch])
    store.record_holds(run, [Hold(subject=mark, reason=mark, patches=(patch,))])
    store.record_variant(run, judged(mark), position=0)
    waiver = Waiver(gate=mark, tag=mark, outcome=Outcome.FAILED, by=mark, comment=mark)
    store.waive(run, waiver, **SECRET)
    published = Published(repo=f"{mark}/model-GGUF", revision="1" * 40, url=f"http://hub/{mark}", files=(f"{mark}.gguf",), manifest_digest="m", changed=True)
    number = store.record_publication(run, published)
    store.record_unpublished(number, by=mark, reason=mark, **SECRET)
    store.record_pull_request(run, PullRequestRecord(repo=mark, number=1, url=f"http://hub/{mark}", state="opened", files=(mark,)), source=mark)
    store.put_follow_up(run, mark, {mark: mark}, error=mark, seconds=60, source=mark)
    store.finish(run, state="failed", error=mark)
    queue_run(store, f"{mark}/waiting", namespace=namespace, recipe=mark)
    return run


def judged(mark: str) -> VariantRecord:
    result = GateResult(gate=mark, measure=mark, value=0.4, stderr=0.01, condition=mark, limit=0.1, outcome=Outcome.FAILED, reason=mark)
    measured = Measurement(name=mark, value=0.4, unit="nats", stderr=0.01, n=1, details=(mark,))
    verdict = Verdict(tag=mark, outcome=Outcome.FAILED, reasons=(mark,), results=(result,))
    return VariantRecord(variant=Variant(tag=mark, kind=Kind.GGUF), file=mark, bytes=10, bpw=1.6, measurements=(measured,), verdict=verdict)


@pytest.fixture
def service(file_store: Store, tmp_path: Path) -> Iterator[TestClient]:
    """The whole service, which watches what is marked, and in which two namespaces have everything."""
    watch = (Watched(repo=f"{MARK}/watched", recipe=f"/{MARK}.yaml"), Watched(owners=(MARK,)))
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace=MARK, watch=watch)
    everything(file_store, settings, "okapi", "ours")
    everything(file_store, settings, MARK, MARK)
    file_store.add_watch(Watched(owners=(MARK,), recipe=MARK), by=MARK)
    file_store.record_listings({MARK: f"There is no {MARK}."})
    file_store.record_look(LookKey(repo=f"{MARK}/watched", revision="main", asked="a" * 64), "b" * 40)
    file_store.put_hints({f"{MARK}/watched": "poll"})
    for hint in file_store.hints():
        file_store.defer_hint(hint, error=MARK, seconds=3600)
    file_store.ends_untold(MARK)
    file_store.put_messages(MARK, [Message(event=1, subject=f"run/{MARK}", ending="failed", body=MARK)], upto=1)
    create_token(file_store, MARK, Grant(scopes=("read",), namespaces=(MARK,)))
    app = create_app(file_store, settings)
    add_dashboard(app, file_store, settings)
    looks = iter(range(10**6))
    app.state.ending = lambda: next(looks) % 3 == 2  # a stream that would not end by itself does after two looks
    with TestClient(app, raise_server_exceptions=False) as client, pulse.part("poll", limit=60.0):
        pulse.beat("poll", f"{MARK}/watched")
        yield client


@pytest.fixture
def bearer(file_store: Store) -> Callable[..., dict[str, str]]:
    """Headers of a token that may do everything, in these namespaces or all."""

    def make(namespaces: tuple[str, ...] | None) -> dict[str, str]:
        grant = Grant(scopes=("read", "operate", "publish", "admin"), namespaces=namespaces)
        return {"Authorization": f"Bearer {create_token(file_store, f'token-{len(file_store.tokens())}', grant)}"}

    return make


def numbers(store: Store, namespace: str) -> dict[str, int]:
    """By the first part of a path, what its `{id}` may be."""
    run = next(item.id for item in store.runs() if item.namespace == namespace and item.state == "failed")
    return {"runs": run, "publications": store.publications(run)[0].id, "watch": store.watch_entries()[0].id}


def operations(client: TestClient) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of everything that OpenAPI tells."""
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    return [(method.upper(), path, said) for path, methods in paths.items() for method, said in methods.items()]


def asked(client: TestClient, method: str, path: str, said: dict[str, Any], ids: dict[str, int], mark: str, headers: dict[str, str]) -> httpx.Response:
    """The answer to a request that OpenAPI shows, about what has these numbers and bears the mark."""
    room = path.removeprefix("/api/v1/").partition("/")[0]
    names = {"id": ids.get(room, 1), "stage": mark, "name": "default", "sha256": hashlib.sha256(mark.encode()).hexdigest()}
    body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if isinstance(body, dict) and "run" in body:
        body = {"run": ids["runs"], "name": "default"}
    return client.request(method, path.format_map(names), headers=headers, json=body)


def test_no_operation_shows_what_is_of_another_namespace(service: TestClient, file_store: Store, bearer: Callable[..., dict[str, str]]) -> None:
    ours, theirs, mine = numbers(file_store, "ours"), numbers(file_store, MARK), bearer(("ours",))
    for method, path, said in operations(service):
        wanted = [(theirs, MARK)] if method != "GET" else [(theirs, MARK), (ours, "okapi")]
        for ids, mark in wanted:
            answer = asked(service, method, path, said, ids, mark, mine)
            assert MARK not in answer.text.replace(f"stage '{MARK}'", ""), (method, path, answer.text)
            assert MARK not in str(answer.headers), (method, path)
        if "{id}" in path and method != "GET":
            assert answer.status_code in {403, 404}, (method, path, answer.text)
    assert numbers(file_store, MARK) == theirs
    assert [run.priority for run in file_store.runs()] == [0] * 4, "nor was anything done"


def test_whether_something_is_there_is_not_told_either(service: TestClient, file_store: Store, bearer: Callable[..., dict[str, str]]) -> None:
    theirs, mine = numbers(file_store, MARK), bearer(("ours",))
    nowhere = dict.fromkeys(theirs, NOWHERE)
    for method, path, said in operations(service):
        if "{id}" not in path and "preview" not in path:
            continue
        hidden, absent = (asked(service, method, path, said, ids, MARK, mine) for ids in (theirs, nowhere))
        assert hidden.status_code == absent.status_code >= 400, (method, path)
        told = hidden.json()["detail"]
        assert re.sub(r"\d+", "N", told) == re.sub(r"\d+", "N", absent.json()["detail"]), (method, path)
    for headers in (mine, {}):
        entry = service.put(f"/api/v1/watch/{theirs['watch']}", headers={**headers, "If-Match": '"x"'}, json={"owners": ["a"]})
        assert entry.status_code == (403 if headers else 401), "nor by an ETag"


def test_what_is_kept_from_it_is_there_for_a_token_of_everything(service: TestClient, file_store: Store, bearer: Callable[..., dict[str, str]]) -> None:
    theirs, whole = numbers(file_store, MARK), bearer(None)
    shown, silent = set(), set()
    for method, path, said in operations(service):
        if method == "GET":
            answer = asked(service, method, path, said, theirs, MARK, whole)
            (shown if MARK in answer.text else silent).add(f"GET {path}")
    assert silent - OPEN == {name for name in SHARED if name.startswith("GET")}, "else the tests above would prove nothing"
    assert len(shown) > 20


def test_figures_and_the_watch_list_are_of_all_namespaces(service: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    mine = bearer(("ours",))
    for path in ("/metrics", "/api/v1/watch", "/api/v1/watch/1", f"/api/v1/watch/{NOWHERE}", "/api/v1/audit", "/api/v1/tokens"):
        answer = service.get(path, headers=mine)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
        assert "is for ours alone, and this is of the whole service. Use another, or make one without --namespace." in answer.json()["detail"]


def test_publications_come_in_whole_pages(service: TestClient, file_store: Store, bearer: Callable[..., dict[str, str]]) -> None:
    told = service.get("/api/v1/publications?limit=1", headers=bearer(("ours",))).json()
    assert [item["repo"] for item in told["publications"]] == ["okapi/model-GGUF"], "the newest is another's, and takes no place"
    assert told["next"] is None


def test_no_page_shows_what_is_of_another_namespace(service: TestClient, file_store: Store) -> None:
    theirs = numbers(file_store, MARK)
    for namespaces in (("ours",), None):
        grant = Grant(scopes=("read", "operate", "publish", "admin"), namespaces=namespaces)
        service.cookies.clear()
        signed = service.post("/ui/sign-in", data={"token": create_token(file_store, "ada" if namespaces else "root", grant)})
        csrf = re.search(r'name="csrf" value="([^"]+)"', signed.text)
        assert csrf is not None
        shown = set()
        for room in (pages.router, live.router):
            for route in room.routes:
                path: str = getattr(route, "path", "")
                answer = service.get("/ui" + path.format_map({"id": theirs["runs"], "stage": MARK, "name": "icon.svg"}))
                if MARK in answer.text:
                    shown.add(path)
        if namespaces is None:
            assert shown == {getattr(route, "path", "") for room in (pages.router, live.router) for route in room.routes} - {"/static/{name}"}
            continue
        assert shown == set()
        for route in deeds.router.routes:
            path = getattr(route, "path", "")
            number = theirs[path.split("/")[1]]
            answers = [
                service.post("/ui" + path.format_map({"id": id, "verb": "cancel"}), data={"csrf": csrf[1], "priority": "7", "by": "Ada", "comment": "fine"})
                for id in (number, NOWHERE)
            ]
            assert [answer.status_code for answer in answers] == [404, 404], path
            hidden, absent = (re.sub(r"\b\d+\b", "N", re.sub(r"[0-9a-f]{32}", "", answer.text)) for answer in answers)
            assert hidden == absent, path
