"""Commands on a service elsewhere say what they say on its machine, byte for byte; what is wrong with the way there is told in words."""

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from config.watch import Watched
from config.wire import LEVEL_HEADER
from service import store as stored
from service.api import create_app
from service.api.listening import listening
from service.api.tokens import revoke_token
from service.store import LookKey, Store
from service.store.access import Grant
from tests.service.helpers import SHA, STAGE, queue_run
from tests.service.operations.conftest import There, ThereAtAHub, approved, held, judged, kept, paused, waived
from tests.service.release.short_way import REPO

LOOKING: list[tuple[str | int, ...]] = [
    ("status",),
    ("status", "--json"),
    ("status", 1),
    ("status", 1, "--json"),
    ("status", 1, "--follow"),
    ("status", 1, "--follow", "--json"),
    ("status", 2),
    ("status", "--follow"),
    ("gates", 1),
    ("gates", 1, "--json"),
    ("gates", 1, "--variant", "Q4_K_M"),
    ("audit",),
    ("audit", "--json", "--limit", 2),
    ("audit", "--subject", "run/1", "--json"),
    ("recipe", 1),
    ("recipe", 1, "--json"),
    ("recipe", 1, 2),
    ("recipes", "list", "--json"),
    ("recipes", "list"),
    ("recipes", "show", "reference"),
    ("recipes", "show", "default", "--json"),
    ("recipes", "show", "defualt"),
    ("data", "list"),
    ("data", "list", "--recipe", "reference", "--json"),
    ("releases",),
    ("releases", "--json"),
    ("releases", "--json", "--limit", 1),
    ("releases", "--repo", "upstream/s*", "--state", "held", "--json"),
    ("releases", "--watched", "--json"),
    ("releases", "--state", "helt"),
    ("publications",),
    ("publications", "--json"),
    ("publications", "--repo", "nobody/nothing"),
    ("watch", "list"),
    ("watch", "list", "--json"),
    ("logs", 1),
    ("logs", 1, STAGE, "--json"),
    ("logs", 1, STAGE, "--tail", 16),
    ("logs", 1, STAGE, "--follow"),
    ("logs", 1, STAGE, "--follow", "--json"),
    ("logs", 1, "nothing"),
    ("logs", 3),
    ("report", 1),
    ("status", 99),
    ("gates", 99, "--json"),
]
REFUSED: list[tuple[str | int, ...]] = [
    ("cancel", 1),
    ("pause", 1),
    ("resume", 3),
    ("retry", 2),
    ("retry", 99),
    ("redo", 3, "convert"),
    ("redo", 2, "convert"),
    ("prioritize", 3, 101),
    ("approve", 1, "--by", "Ada", "--comment", "fine"),
    ("approve", 2, "--by", "Ada", "--comment", " "),
    ("approve", 2, "--by", "Ada", "--comment", "fine", "--only", "license"),
    ("approve", 2, "--by", "Ada", "--comment", "fine", "--withdraw"),
    ("waive", 1, "divergence", "Q4_K_M", "--by", "Ada", "--comment", "fine"),
    ("waive", 1, "divergance", "IQ1_S", "--by", "Ada", "--comment", "fine"),
    ("waive", 1, "divergence", "IQ1_S", "--by", "", "--comment", "fine"),
    ("waive", 1, "divergence", "IQ1_S", "--by", "Ada", "--comment", "fine", "--withdraw"),
    ("rollback", 3, "--by", "Ada", "--comment", "fine"),
    ("watch", "add", "upstream/a", "--recipe", "defualt"),
    ("watch", "add", "upstream/a", "--recipe", "my/own.yaml"),
    ("watch", "add", "upstream/a", "--names", "Qwen3-*"),
    ("watch", "add", "https://huggingface.co/a"),
    ("watch", "add", "upstream", "--gated", "folow"),
    ("watch", "add", "qwen/"),
    ("watch", "change", 99, "upstream/a"),
    ("watch", "change", 1, "upstream/a", "--recipe", "defualt"),
    ("watch", "remove", 99),
    ("republish", 99),
    ("unpublish", 99, "--by", "Ada", "--reason", "fine"),
    ("unpublish", 1, "--by", "Ada", "--reason", " "),
]


@pytest.mark.parametrize("words", [*LOOKING, *REFUSED], ids=lambda words: " ".join(map(str, words)))
def test_it_is_said_as_on_the_service_s_machine(there: There, words: tuple[str | int, ...]) -> None:
    here, elsewhere = there.local(*words), there.remote(*words)
    assert (elsewhere.stdout, elsewhere.stderr, elsewhere.exit_code) == (here.stdout, here.stderr, here.exit_code)
    assert here.stdout or here.stderr
    if words in REFUSED:
        assert here.exit_code in {1, 2}


STEERED: dict[str, Callable[[Store, str], int]] = {
    "cancel": lambda store, repo: queue_run(store, repo).id,
    "pause": lambda store, repo: queue_run(store, repo).id,
    "prioritize 7": lambda store, repo: queue_run(store, repo).id,
    "retry": judged,
    "resume": paused,
    "redo convert": kept,
    "approve --by Ada --comment fine": held,
    "approve --by Ada --comment fine --only licence": held,
    "approve --by Ada --comment hasty --withdraw": approved,
    "waive divergence IQ1_S --by Ada --comment fine": judged,
    "waive divergence IQ1_S --by Ada --comment hasty --withdraw": waived,
}


@pytest.mark.parametrize("deed", STEERED)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_it_is_done_as_on_the_service_s_machine(there: There, deed: str, form: list[str]) -> None:
    verb, *rest = deed.split()
    numbers = [STEERED[deed](there.store, f"upstream/{name}") for name in ("here", "elsewhere")]
    here, elsewhere = there.local(verb, numbers[0], *rest, *form), there.remote(verb, numbers[1], *rest, *form)
    assert (here.exit_code, elsewhere.exit_code) == (0, 0), elsewhere.output
    if form:
        found = [json.loads(done.stdout) | {"run": 0, "next": None} for done in (here, elsewhere)]
        assert found[0] == found[1]
    elif verb in {"cancel", "pause", "prioritize", "retry", "resume", "redo"}:
        assert here.stdout.replace(str(numbers[0]), "N", 1) == elsewhere.stdout.replace(str(numbers[1]), "N", 1)
    states = [there.store.run(number).state for number in numbers]
    assert states[0] == states[1]
    events = [[event.action for event in there.store.audit_events() if event.subject == f"run/{number}"] for number in numbers]
    assert events[0] == events[1]
    (last,) = [event for event in there.store.audit_events() if event.subject == f"run/{numbers[1]}" and event.details.get("token")][:1]
    assert (last.source, last.details["token"]) == ("api", "desk"), "who did it stands on record"


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """What must be the same wherever it is asked for."""
    return {name: value for name, value in document.items() if name not in names}


def answered(done: Any) -> dict[str, Any]:
    """The JSON of a command that succeeded."""
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_was_published_is_rolled_back_published_again_and_taken_back_as_on_the_service_s_machine(at_a_hub: ThereAtAHub) -> None:
    there, way = at_a_hub.there, at_a_hub.way
    for deed, ended in ((("rollback", 1, "--by", "Ada", "--comment", "fine"), "done"), (("republish", 2), "superseded")):
        here = answered(there.local(*deed, "--json"))
        answered(there.local("cancel", here["run"], "--json"))
        elsewhere = answered(there.remote(*deed, "--json"))
        assert without(elsewhere, "next") == without(here, "next")
        assert (here["next"].split()[:2], elsewhere["next"]) == (["sluice", "run"], None)
        assert way.carried_out(here["run"])["state"] == ended, "what gave way does not come back by being published again"
    told = []
    for ask in (there.local, there.remote):
        told.append(answered(ask("unpublish", 2, "--by", "Ada", "--reason", "fine", "--json")))
        assert way.api.repo_info(REPO).private
        way.api.update_repo_settings(REPO, private=False)
    assert without(told[0], "unpublished") == without(told[1], "unpublished")
    assert [without(item["unpublished"], "at") for item in told] == 2 * [{"by": "Ada", "reason": "fine"}]
    sources = [event.source for event in there.store.audit_events() if event.action in {"rollback", "republish", "unpublished"}]
    assert sources == ["api", "command"] * 3


def test_the_watch_list_is_changed_as_on_the_service_s_machine(there: There) -> None:
    asked = ("Qwen", "upstream/model", "--names", "Qwen3-*", "--exclude", "*-GGUF", "--minimum-downloads", 1000, "--licenses", "mit", "--cool-down-minutes", 60)
    here, elsewhere = there.local("watch", "add", *asked), there.remote("watch", "add", *asked)
    assert (here.exit_code, elsewhere.exit_code) == (0, 0), elsewhere.output
    assert here.stdout == "entry 1 follows upstream/model, Qwen/Qwen3-* by the recipe default\n"
    assert elsewhere.stdout == here.stdout.replace("1", "2", 1)
    first, second = there.store.watch_entries()
    assert first.entry is not None
    assert first.entry == second.entry
    assert (first.entry.licenses, first.entry.minimum_downloads, first.entry.cool_down_minutes) == (("mit",), 1000, 60)
    assert (first.by, second.by) == ("command", "desk")
    changed = [ask("watch", "change", id, "Qwen", "--recipe", "default") for ask, id in ((there.local, 1), (there.remote, 2))]
    assert [done.stdout for done in changed] == [f"entry {id} now follows Qwen/* by the recipe default\n" for id in (1, 2)]
    first, second = there.store.watch_entries()
    assert first.entry == second.entry == Watched(owners=("Qwen",)), "what is not said again is as by default"
    told = [json.loads(ask("watch", "add", "a/b", "--json").stdout) for ask in (there.local, there.remote)]
    assert without(told[0], "id", "by", "created") == without(told[1], "id", "by", "created")
    assert there.local("watch", "remove", 1).stdout == "entry 1 is watched no more\n"
    assert there.remote("watch", "remove", 2).stdout == "entry 2 is watched no more\n"
    assert [json.loads(ask("watch", "remove", id, "--json").stdout) for ask, id in ((there.local, 3), (there.remote, 4))] == [
        {"entry": 3, "removed": True},
        {"entry": 4, "removed": True},
    ]
    assert there.store.watch_entries() == ()
    events = [(event.source, event.action, event.details.get("token")) for event in there.store.audit_events() if event.subject in {"watch/1", "watch/2"}]
    assert events == [(source, deed, token) for deed in ("removed", "changed", "added") for source, token in (("api", "desk"), ("command", None))]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("words", ["token list", "notify list"])
def test_tokens_and_messages_are_listed_as_on_the_service_s_machine(there: There, words: str, form: list[str], token_for: Callable[..., str]) -> None:
    token_for(Grant(scopes=("read",), namespaces=("ours",), expires=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    there.store.ends_untold("team")
    there.store.put_messages("team", [stored.Message(event=number, subject=f"run/{number}", ending="failed", body="{}") for number in (1, 2, 3)], upto=3)
    for again_in in (None, 60.0):
        taken = there.store.take_delivery(["team"])
        assert taken is not None
        there.store.delivery_ended(taken.id, error="It answered 500 [later].", again_in=again_in)
    there.remote("status")  # so that the token was used before
    here, elsewhere = there.local(*words.split(), *form), there.remote(*words.split(), *form)
    assert (elsewhere.stdout, elsewhere.stderr, elsewhere.exit_code) == (here.stdout, here.stderr, 0)
    listed = "desk" if words == "token list" else "It answered 500 [later]."
    assert listed in here.stdout
    assert "digest" not in here.stdout
    reader = token_for(Grant(scopes=("operate",)))
    assert "this needs `admin`" in " ".join(there.remote(*words.split(), SLUICE_SERVER_TOKEN=reader).stderr.split())


def test_stages_of_a_release_are_done_anew_there(at_a_hub: ThereAtAHub) -> None:
    there, store, ended = at_a_hub.there, at_a_hub.way.store, threading.Event()
    done_anew: list[tuple[int, int, tuple[str, ...]]] = []

    def work() -> None:
        while not ended.wait(0.1):
            if (run := store.lease("worker", seconds=60)) is not None:
                done_anew.append((run.id, run.attempt, run.redo))
                store.finish(run.id, state="done")

    worker = threading.Thread(target=work)
    worker.start()
    for stages in (("convert",), ("convert", "report")):  # of a run that is new, and of one that is done
        there.remote("run", "upstream/model", *(word for stage in stages for word in ("--redo", stage)))
    refused = told(there.remote("run", "upstream/model", "--redo", "convrt"), 1)
    ended.set()
    worker.join()
    assert "has no stage 'convrt'. Did you mean convert" in refused
    assert done_anew == [(3, 1, ("convert",)), (3, 2, ("convert", "report"))]
    answered(there.remote("retry", 3, "--json"))
    assert "Only a run that has ended can be tried again" in told(there.remote("run", "upstream/model", "--redo", "convert"), 1)


@pytest.mark.parametrize("words", ["status", "audit", "publications", "releases", "watch list", "token list"])
def test_every_time_is_told_with_its_zone(there: There, words: str, token_for: Callable[..., str]) -> None:
    token_for(Grant(expires=datetime.now(UTC) + timedelta(days=1)))
    there.store.record_listings({"qwen": 3})
    there.store.record_look(LookKey(repo="upstream/first", revision="main", asked="a" * 64), SHA)
    there.store.add_watch(Watched(repo="upstream/first"), by="ci")
    lines = there.local(*words.split()).stdout.splitlines()
    heading = any("(UTC)" in line for line in lines)
    times = [line[found.end() :] for line in lines for found in re.finditer(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", line)]
    assert times
    assert heading or all(rest.startswith(" UTC") for rest in times)


def test_what_goes_on_by_itself_there_is_not_shown_as_a_command(there: There) -> None:
    done = there.remote("approve", 2, "--by", "Ada", "--comment", "fine")
    assert done.stdout == "approved, and run 2 is queued again: the service goes on with it\n"
    waived = there.remote("waive", 1, "divergence", "IQ1_S", "--by", "Ada", "--comment", "fine")
    assert waived.stdout == "recorded. It counts when the run is carried out again: sluice retry 1\n"
    assert there.remote("retry", 1).stdout == "run 1 is queued\n"


def test_a_run_is_followed_from_elsewhere(there: There) -> None:
    store, run = there.store, 3
    store.lease("worker", seconds=600, run=run)
    store.stage_finished(store.stage_started(run, "fix", "a"), state="done", seconds=1.25)
    stage = store.stage_started(run, "measure", "b")

    def go_on() -> None:
        time.sleep(1.5)
        store.stage_finished(stage, state="failed", seconds=2.0, error="no [memory]")
        store.finish(run, state="failed", error="no memory")

    thread = threading.Thread(target=go_on)
    thread.start()
    shown = there.remote("status", run, "--follow")
    thread.join()
    assert shown.stdout.splitlines()[:2] == ["✓     1.2 s  fix", "✗     2.0 s  measure  no [memory]"]
    assert shown.exit_code == 1


def test_a_file_is_checked_there_as_here(there: There, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("name: small\nvariants: {gguf: [Q4_K_M]}\n")
    (tmp_path / "bad.yaml").write_text("name: small\nvariants: {gguf: [Q4_K_N]}\ngate: []\n")
    (tmp_path / "worse.yaml").write_text("name: small\nvariants: {gguf: [Q4\n")
    for name, code in (("good", 0), ("bad", 1), ("worse", 1), ("gone", 2)):
        for form in ([], ["--json"]):
            words = ("recipes", "check", str(tmp_path / f"{name}.yaml"), *form)
            here, elsewhere = there.local(*words), there.remote(*words)
            assert (elsewhere.stdout, elsewhere.stderr, elsewhere.exit_code) == (here.stdout, here.stderr, here.exit_code)
            assert here.exit_code == code, here.output
    assert "variants.gguf.0: " in there.remote("recipes", "check", str(tmp_path / "bad.yaml")).stdout.replace("\n", " ")


@pytest.mark.parametrize(
    "words",
    [("fix", "."), ("prune",), ("backup", "x"), ("token", "create", "x"), ("token", "revoke", "x"), ("notify", "test", "x"), ("serve",), ("data", "fetch")],
)
def test_what_needs_this_machine_says_so(there: There, words: tuple[str, ...]) -> None:
    done = there.remote(*words)
    assert done.exit_code == 2
    assert f"works on the machine that it is called on, and SLUICE_SERVER names the service at {there.url}" in " ".join(done.stderr.split())
    assert not there.folder.exists()


def test_a_folder_and_local_options_are_not_released_there(there: There, tmp_path: Path) -> None:
    done = there.remote("run", str(tmp_path))
    assert done.exit_code == 2
    assert "is a folder of this machine" in done.stderr
    done = there.remote("run", "upstream/first", "--quick", "--to", str(tmp_path))
    assert "--to and --quick cannot be asked of the service" in done.stderr
    done = there.remote("run", "upstream/first", "--recipe", "my/own.yaml")
    assert (done.exit_code, "knows recipes by name" in done.stderr) == (2, True)


# ---- what is wrong with the way there ------------------------------------------------------------------------------------------------------------


def told(done: Any, code: int) -> str:
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.removeprefix("error: ").split())


def test_nobody_listens(there: There) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert told(there.remote("status", SLUICE_SERVER=url), 1).startswith(f"The service at {url} cannot be reached: ")


def test_tokens(there: There, token_for: Callable[..., str]) -> None:
    assert told(there.remote("status", SLUICE_SERVER_TOKEN=""), 2).startswith(f"SLUICE_SERVER names {there.url}, and no token for it is given.")
    wrong = told(there.remote("status", SLUICE_SERVER_TOKEN="sluice_wrong"), 2)
    assert wrong.startswith(f"The service at {there.url} does not take the token in SLUICE_SERVER_TOKEN. This needs a token that works")
    late = token_for(Grant(expires=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    assert "expired on 2026-01-02 03:04 UTC." in told(there.remote("status", SLUICE_SERVER_TOKEN=late), 2)
    gone = token_for(Grant(expires=datetime.now(UTC) + timedelta(days=1)))
    revoke_token(there.store, there.store.tokens()[-1].name)
    assert "was revoked." in told(there.remote("status", SLUICE_SERVER_TOKEN=gone), 2)
    reader = token_for(Grant(scopes=("read",)))
    assert there.remote("status", 1, "--json", SLUICE_SERVER_TOKEN=reader).exit_code == 3
    assert "has the scopes read, and this needs `operate`." in told(there.remote("cancel", 3, SLUICE_SERVER_TOKEN=reader), 2)
    assert "needs `admin`" in told(there.remote("audit", SLUICE_SERVER_TOKEN=reader), 2)
    assert there.store.run(3).state == "queued"


@contextmanager
def answering(app: Any, **tls: str) -> Iterator[str]:
    """Something else at an address."""
    if not tls:
        with listening(app, "127.0.0.1", 0, per_client=64) as url:
            yield url
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **tls))  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"https://localhost:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def always(answer: Callable[[Request], Response]) -> Starlette:
    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (lambda request: PlainTextResponse("It works!"), 2, "answered 200 as no such service does"),
        (lambda request: JSONResponse({"detail": "Not Found"}, 404), 2, "answered 404 as no such service does"),
        (lambda request: RedirectResponse("https://sluice.example/"), 2, "sends on to https://sluice.example/. Set SLUICE_SERVER"),
        (lambda request: PlainTextResponse("Bad Gateway", 502), 1, "answers 502: the service itself may be down."),
        (lambda request: JSONResponse({"runs": "?"}, headers={LEVEL_HEADER: "99"}), 1, "it is of another version"),
        (lambda request: JSONResponse({"runs": [{"run": 1}], "next": None}, headers={LEVEL_HEADER: "99"}), 1, "it is of another version"),
    ],
)
def test_something_else_answers(there: There, answer: Callable[[Request], Response], code: int, said: str) -> None:
    with answering(always(answer)) as url:
        assert said in told(there.remote("status", SLUICE_SERVER=url), code)


def test_an_audit_trail_of_another_version(there: There) -> None:
    app = always(lambda request: JSONResponse({"events": [{"id": "?"}], "next": None}, headers={LEVEL_HEADER: "99"}))
    with answering(app) as url:
        assert "(AuditRecord, 0." in told(there.remote("audit", SLUICE_SERVER=url), 1)


def test_an_older_service(there: There) -> None:
    app = create_app(there.store, there.settings)

    async def older(scope: Scope, receive: Receive, send: Send) -> None:
        async def without(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, value) for name, value in message["headers"] if name.decode() != LEVEL_HEADER.lower()]
            await send(message)

        await app(scope, receive, without)

    with answering(older) as url:
        assert "of an older version" in told(there.remote("status", 99, SLUICE_SERVER=url), 2)
        assert "older than this command" in told(there.remote("status", SLUICE_SERVER=url), 2)


def test_tls(there: There, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with answering(create_app(there.store, there.settings), ssl_keyfile=key, ssl_certfile=certificate) as url:
        said = told(there.remote("status", SLUICE_SERVER=url), 1)
        assert said.startswith(f"The certificate of {url} is not trusted: self-signed certificate.")
        trusted = there.remote("status", 1, "--json", SLUICE_SERVER=url, SSL_CERT_FILE=certificate)
        assert json.loads(trusted.stdout)["run"] == 1
        other = url.replace("localhost", "127.0.0.1")
        assert "IP address mismatch" in told(there.remote("status", SLUICE_SERVER=other, SSL_CERT_FILE=certificate), 1)
    plain = there.url.replace("http://", "https://")
    assert f"{plain} does not speak TLS as https asks for" in told(there.remote("status", SLUICE_SERVER=plain), 1)


def test_the_token_is_in_no_output(there: There) -> None:
    for words in (("status", "99"), ("status", "1"), ("audit",)):
        assert there.token not in there.remote(*words).output
    assert "server_token" not in os.environ


def test_a_wrong_address_is_told_as_a_setting(there: There) -> None:
    for wrong in ("sluice.example", "ftp://sluice.example", "https://user:secret@sluice.example"):
        said = told(there.remote("status", SLUICE_SERVER=wrong), 2)
        assert "SLUICE_SERVER" in said
        assert "secret" not in said
