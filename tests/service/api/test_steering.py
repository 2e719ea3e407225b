import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from config.settings import Watched
from service.api import streams
from service.api.attempts import FAILURES, TOLD, Attempts
from service.api.tokens import create_token
from service.store import AuditFilter, KeptRecipe, Scope, Store
from service.store.access import Grant
from tests.service.helpers import STAGE, judged_run, queue_run

Headers = dict[str, str]
SMALL = KeptRecipe(digest="d" * 64, content={"name": "small", "variants": {"gguf": ["IQ1_S"]}}, sources=())
"""What runs of these tests were queued with."""


@pytest.fixture
def judged(file_store: Store) -> int:
    return judged_run(file_store)


def test_a_run_is_steered_and_the_trail_tells_by_whom(api: TestClient, file_store: Store, token_for: Callable[..., Headers]) -> None:
    run, bearer = queue_run(file_store).id, token_for("operate")

    def ask(verb: str, body: object = None) -> Any:
        return api.post(f"/runs/{run}/{verb}", headers=bearer, json=body)

    answer = ask("priority", {"priority": 7})
    assert (answer.status_code, answer.json()["priority"], answer.headers["Location"]) == (202, 7, f"/api/v1/runs/{run}")
    assert ask("pause").json()["state"] == "paused"
    assert api.get("/queue", headers=bearer).json() == []
    assert ask("resume").json()["state"] == "queued"
    assert [item["priority"] for item in api.get("/queue", headers=bearer).json()] == [7]
    assert ask("retry").status_code == 409
    assert ask("cancel").json()["state"] == "cancelled"
    refused = ask("cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_now")
    again = ask("retry").json()
    assert (again["state"], again["attempt"], again["trigger"]) == ("queued", 2, "retry")
    assert [(item["attempt"], item["outcome"]) for item in api.get(f"/runs/{run}/attempts", headers=bearer).json()] == [(1, "cancelled"), (2, None)]
    events = api.get(f"/audit?subject=run/{run}&source=api", headers=token_for("admin")).json()["events"]
    assert [event["action"] for event in events] == ["retried", "cancelled", "resumed", "paused", "prioritized"]
    assert {event["details"]["token"] for event in events} == {"token-0"}


@pytest.mark.parametrize("path", ["/audit", "/runs"])
@pytest.mark.parametrize(("since", "status"), [("2026-11-28T12:00:00Z", 200), ("2026-11-28T12:00:00%2B01:00", 200), ("1420", 422), ("1420.5", 422), ("0", 422)])
def test_a_time_is_written_out(api: TestClient, token_for: Callable[..., Headers], path: str, since: str, status: int) -> None:
    assert api.get(f"{path}?since={since}", headers=token_for("admin")).status_code == status


def test_attempts_whose_process_was_killed_are_told(api: TestClient, file_store: Store, token_for: Callable[..., Headers]) -> None:
    run, bearer = queue_run(file_store).id, token_for("read")
    for _ in range(2):
        file_store.lease("killed", seconds=0)
    file_store.lease("next", seconds=60)
    attempt = api.get(f"/runs/{run}", headers=bearer).json()["attempt"]
    told = [(item["attempt"], item["outcome"]) for item in api.get(f"/runs/{run}/attempts", headers=bearer).json()]
    assert (attempt, told) == (3, [(1, "interrupted"), (2, "interrupted"), (3, None)])


def test_stages_are_done_anew_on_demand(api: TestClient, file_store: Store, judged: int, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("operate")

    def ask(*stages: str) -> Any:
        return api.post(f"/runs/{judged}/redo", headers=bearer, json={"stages": stages})

    assert ask("convert").json()["code"] == "not_found", "an older version kept no recipe"
    file_store.keep_recipe(SMALL)
    unknown = ask("convert", "convrt")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_stage")
    assert "has no stage 'convrt'. Did you mean convert" in unknown.json()["detail"]
    answer = ask("convert", "build IQ1_S")
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/api/v1/runs/{judged}")
    assert {key: answer.json()[key] for key in ("state", "trigger", "attempt")} == {"state": "queued", "trigger": "redo", "attempt": 2}
    leased = file_store.lease("worker", seconds=60)
    assert leased is not None
    assert (leased.id, leased.redo) == (judged, ("convert", "build IQ1_S")), "which whoever carries it out is told"
    (event,) = file_store.audit_events(subject=f"run/{judged}", wanted=AuditFilter(action="redo"))
    assert (event.source, event.details) == ("api", {"stages": ["convert", "build IQ1_S"], "attempt": 2, "token": "token-0"})
    assert ask("convert").json()["code"] == "not_now"


def test_runs_are_found_by_recipe_and_date(api: TestClient, file_store: Store, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("read")
    runs = [queue_run(file_store, f"upstream/{name}", recipe=name).id for name in ("default", "reference", "default-too")]
    created = [file_store.run(run).created for run in runs]

    def found(**asked: object) -> list[int]:
        answer = api.get("/runs", headers=bearer, params=asked)
        assert answer.status_code == 200, answer.text
        return [item["run"] for item in answer.json()["runs"]]

    assert found(recipe="default") == runs[:1]
    assert found(recipe="nobody's") == []
    assert found(since=created[1].isoformat()) == [runs[2], runs[1]], "then or later"
    assert found(until=created[1].isoformat()) == runs[:1], "before"
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    assert found(since=created[1].astimezone(elsewhere).isoformat(), until=created[2].astimezone(elsewhere).isoformat()) == runs[1:2]
    assert found(recipe="default", since=created[1].isoformat()) == []
    answer = api.get("/runs", headers=bearer, params={"since": created[1].replace(tzinfo=None).isoformat()})
    assert (answer.status_code, "timezone" in answer.json()["detail"]) == (422, True), "a time without a zone is none"


def test_what_came_of_a_run_is_told_in_parts(api: TestClient, judged: int, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("read")

    def told(part: str) -> Any:
        return api.get(f"/runs/{judged}/{part}", headers=bearer).json()

    assert told("measurements") == [
        {"variant": "IQ1_S", "kind": "gguf", "name": "kld.mean", "value": 0.4, "unit": "nats", "stderr": 0.01, "n": 4096, "details": []}
    ]
    (gate,) = told("gates")["variants"][0]["gates"]
    assert (gate["limit"], gate["outcome"], gate["value"]) == (0.1, "failed", 0.4)
    (stage,) = told("stages")
    assert (stage["name"], stage["seconds"], stage["key"]) == (STAGE, 2.5, "k")
    assert told("artifacts") == stage["artifacts"] == [{"stage": STAGE, "name": "m.gguf", "sha256": "a" * 64, "bytes": 10}]
    whole = api.get(f"/runs/{judged}", headers=bearer).json()
    assert (whole["trigger"], whole["attempt"], whole["priority"], whole["namespace"]) == ("test", 1, 0, "ours")
    assert datetime.fromisoformat(whole["finished"]) - datetime.now(UTC) < timedelta(0)


def test_a_gate_is_waived_with_name_and_comment_and_the_waiver_withdrawn(
    api: TestClient, file_store: Store, judged: int, token_for: Callable[..., Headers]
) -> None:
    bearer = token_for("publish")
    said = {"gate": "divergence", "variant": "IQ1_S", "by": "Ada", "comment": "Asked for by its users."}
    for blank in ({**said, "comment": "  "}, {**said, "by": ""}, {key: value for key, value in said.items() if key != "comment"}):
        assert api.post(f"/runs/{judged}/waivers", json=blank, headers=bearer).status_code == 422
    answer = api.post(f"/runs/{judged}/waivers", json=said, headers=bearer)
    assert (answer.status_code, answer.json()["variants"][0]["gates"][0]["waiver"]["state"]) == (201, "pending")
    (waiver,) = api.get(f"/runs/{judged}/waivers", headers=bearer).json()
    assert (waiver["by"], waiver["outcome"]) == ("Ada", "failed")
    assert api.post(f"/runs/{judged}/waivers", json=said, headers=bearer).json()["code"] == "not_waivable"
    assert api.post(f"/runs/{judged}/waivers/withdraw", json=said, headers=bearer).status_code == 202
    assert api.get(f"/runs/{judged}/waivers", headers=bearer).json() == []
    withdrawn, given = file_store.audit_events(subject=f"run/{judged}")[:2]
    assert (withdrawn.action, given.action, given.source, given.details["token"]) == ("waiver withdrawn", "waived", "api", "token-0")


SAID = {"by": "Ada", "comment": "fine"}
WAIVER = {"gate": "divergence", "variant": "IQ1_S", **SAID}
DEEDS = [
    ("POST runs", {"repo": "upstream/model"}, "operate"),
    ("POST runs/1/cancel", None, "operate"),
    ("POST runs/1/pause", None, "operate"),
    ("POST runs/1/resume", None, "operate"),
    ("POST runs/1/priority", {"priority": 7}, "operate"),
    ("POST runs/1/retry", None, "operate"),
    ("POST runs/1/redo", {"stages": ["convert"]}, "operate"),
    ("POST runs/1/approve", SAID, "publish"),
    ("POST runs/1/approve/withdraw", SAID, "publish"),
    ("POST runs/1/waivers", WAIVER, "publish"),
    ("POST runs/1/waivers/withdraw", WAIVER, "publish"),
    ("POST runs/1/rollback", SAID, "publish"),
    ("POST publications/1/rollback", SAID, "publish"),
    ("POST publications/1/republish", None, "publish"),
    ("POST publications/1/unpublish", {"by": "Ada", "reason": "fine"}, "publish"),
    ("GET audit", None, "admin"),
    ("GET tokens", None, "admin"),
    ("GET notifications/deliveries", None, "admin"),
    ("POST watch", {"owners": ["Qwen"]}, "admin"),
    ("PUT watch/1", {"owners": ["Qwen"]}, "admin"),
    ("DELETE watch/1", None, "admin"),
]
HEARD = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY}


@pytest.mark.parametrize(("deed", "body", "scope"), DEEDS, ids=[deed for deed, _, _ in DEEDS])
def test_each_deed_needs_its_scope(
    api: TestClient, file_store: Store, judged: int, token_for: Callable[..., Headers], deed: str, body: object, scope: Scope
) -> None:
    file_store.add_watch(Watched(repo="a/b"), by="ci")
    file_store.keep_recipe(SMALL)
    method, path = deed.split()
    others = tuple(item for item in ("read", "operate", "publish") if item != scope)
    answer = api.request(method, path, headers=token_for(*others), json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert f"`{scope}`" in answer.json()["detail"]
    answer = api.request(method, path, headers=token_for(scope), json=body)
    assert answer.status_code in HEARD, "whether it can be done or not, as it stands or while the Hub is down"


@pytest.mark.parametrize(("deed", "body"), [(deed, body) for deed, body, scope in DEEDS if scope == "admin"])
def test_what_is_of_the_whole_service_is_not_for_a_token_of_some_namespaces(
    api: TestClient, file_store: Store, judged: int, token_for: Callable[..., Headers], deed: str, body: object
) -> None:
    file_store.add_watch(Watched(repo="a/b"), by="ci")
    answer = api.request(*deed.split(), headers=token_for("admin", namespaces=("ours",)), json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "is for ours alone, and this is of the whole service" in answer.json()["detail"]
    assert [item.entry for item in file_store.watch_entries()] == [Watched(repo="a/b")]


def test_every_deed_is_among_those_whose_scope_is_looked_at(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    told = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method, said in methods.items() if "403" in said["responses"]}
    deeds = {f"{method} /api/v1/{path.replace('/1', '/{id}')}" for method, path in (deed.split() for deed, _, _ in DEEDS)}
    assert told - deeds == {"GET /api/v1/watch", "GET /api/v1/watch/{id}", "GET /metrics"}, "what is of the whole service needs no scope, but all namespaces"
    assert deeds <= told


def test_a_token_sees_the_runs_of_its_namespaces_and_no_others(api: TestClient, file_store: Store, judged: int, token_for: Callable[..., Headers]) -> None:
    theirs = queue_run(file_store, "upstream/theirs", namespace="theirs").id
    bearer = token_for("admin", namespaces=("theirs",))
    assert [run["run"] for run in api.get("/runs", headers=bearer).json()["runs"]] == [theirs]
    for path in (f"runs/{judged}", f"runs/{judged}/gates", "publications/1"):
        answer = api.get(path, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert api.post(f"runs/{judged}/retry", headers=bearer).status_code == 404
    assert api.get("/publications", headers=bearer).json()["publications"] == []
    assert api.post("/runs", json={"repo": "upstream/theirs"}, headers=bearer).json()["code"] in {"forbidden", "hub_failed"}


def test_a_token_ends_and_its_last_use_is_known(api: TestClient, file_store: Store) -> None:
    ended = create_token(file_store, "old", Grant(expires=datetime.now(UTC)))
    assert api.get("/runs", headers={"Authorization": f"Bearer {ended}"}).status_code == 401
    used = {"Authorization": f"Bearer {create_token(file_store, 'ada')}"}
    told = {item["name"]: item for item in api.get("/tokens", headers=used).json()}
    assert told["old"]["used"] is None
    assert datetime.now(UTC) - datetime.fromisoformat(told["ada"]["used"]) < timedelta(minutes=2)
    assert "digest" not in told["ada"]


def test_wrong_tokens_are_limited_and_audited_and_lock_nobody_out(api: TestClient, file_store: Store, token_for: Callable[..., Headers]) -> None:
    wrong = {"Authorization": "Bearer sluice_guess"}
    answers = [api.get("/runs", headers=wrong) for _ in range(FAILURES + 2)]
    assert [answer.status_code for answer in answers] == [401] * FAILURES + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert api.get("/runs", headers=token_for("read")).status_code == 200
    events = [event for event in file_store.audit_events() if event.subject.startswith("login/")]
    assert [event.action for event in events] == ["limited", "refused"]


def test_the_same_request_under_one_key_is_done_once(api: TestClient, file_store: Store, token_for: Callable[..., Headers]) -> None:
    run, bearer = queue_run(file_store).id, token_for("operate")
    keyed = {**bearer, "Idempotency-Key": "7f3c"}
    first = api.post(f"/runs/{run}/priority", json={"priority": 3}, headers=keyed)
    again = api.post(f"/runs/{run}/priority", json={"priority": 3}, headers=keyed)
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert (again.headers["Idempotency-Replayed"], again.headers["Location"]) == ("true", first.headers["Location"])
    assert "Idempotency-Replayed" not in first.headers
    assert [event.action for event in file_store.audit_events(subject=f"run/{run}")].count("prioritized") == 1
    other = api.post(f"/runs/{run}/priority", json={"priority": 4}, headers=keyed)
    assert (other.status_code, other.json()["code"]) == (422, "key_used")
    for _ in range(2):  # what was refused was not done, and may be asked again
        assert api.post(f"/runs/{run}/resume", headers={**bearer, "Idempotency-Key": "k"}).status_code == 409
    someone = api.post(f"/runs/{run}/priority", json={"priority": 5}, headers={**token_for("operate"), "Idempotency-Key": "7f3c"})
    assert someone.json()["priority"] == 5, "a key is its caller's own"


def test_a_request_whose_answer_was_not_kept_is_not_carried_out_again(
    api: TestClient, file_store: Store, token_for: Callable[..., Headers], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, keyed = queue_run(file_store).id, {**token_for("operate"), "Idempotency-Key": "7f3c"}

    def busy(*_: object) -> None:
        raise OperationalError("UPDATE", None, Exception("database is locked"))

    def ask() -> Any:
        return api.post(f"/runs/{run}/priority", json={"priority": 3}, headers=keyed)

    monkeypatch.setattr(file_store, "keep_answer", busy)
    assert ask().status_code == 202, "it was done"
    assert (ask().status_code, ask().json()["code"]) == (409, "in_progress")
    monkeypatch.setattr("service.store.answers.WORK_SECONDS", 0.0)
    later = ask()
    assert (later.status_code, later.json()["code"]) == (409, "outcome_unknown")
    assert "send it again with a new key" in later.json()["detail"]
    assert [event.action for event in file_store.audit_events(subject=f"run/{run}")].count("prioritized") == 1


def test_a_log_is_read_without_secrets(api: TestClient, file_store: Store, judged: int, tmp_path: Path, token_for: Callable[..., Headers]) -> None:
    bearer, path = token_for("read"), tmp_path / "home" / "logs" / f"run-{judged}" / "quantize-IQ1_S.log"
    assert api.get(f"/runs/{judged}/stages/{STAGE}/log", headers=bearer).json()["code"] == "not_found"
    path.parent.mkdir(parents=True)
    path.write_text("first line\nAuthorization: Bearer hf_" + "a" * 34 + "\nlast line\n", encoding="utf-8")
    answer = api.get(f"/runs/{judged}/stages/{STAGE}/log", headers=bearer)
    assert answer.text == "first line\nAuthorization: Bearer hf_[hidden]\nlast line\n"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert api.get(f"/runs/{judged}/stages/{STAGE}/log?tail=14", headers=bearer).text == "last line\n"
    followed = api.get(f"/runs/{judged}/stages/{STAGE}/log/events", headers=bearer).text
    assert followed == "event: log\ndata: first line\ndata: Authorization: Bearer hf_[hidden]\ndata: last line\ndata: \n\nevent: end\ndata: {}\n\n"
    for name in ("../../sluice", "..%2F..%2Fsluice", "convert"):
        assert api.get(f"/runs/{judged}/stages/{name}/log", headers=bearer).status_code == 404


def test_a_run_is_followed_to_its_end(api: TestClient, judged: int, token_for: Callable[..., Headers]) -> None:
    answer = api.get(f"/runs/{judged}/events", headers=token_for("read"))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line.startswith("event: ")] == ["event: run", "event: end"]


def test_nobody_hears_more_once_his_token_is_revoked(
    api: TestClient, file_store: Store, token_for: Callable[..., Headers], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, headers = queue_run(file_store).id, token_for("read")
    (token,) = file_store.tokens()
    monkeypatch.setattr(streams, "ASKED_SECONDS", 0.1)
    later = threading.Timer(1.5, file_store.revoke_token, [token.name])
    later.start()
    answer = api.get(f"/runs/{run}/events", headers=headers)
    later.join()
    assert [line for line in answer.text.splitlines() if line.startswith("event: ")] == ["event: run"], "the run is still queued"


def test_a_flood_of_wrong_tokens_does_not_fill_the_trail(file_store: Store) -> None:
    attempts = Attempts()
    for number in range(2 * TOLD):
        assert attempts.failed(file_store, f"198.51.100.{number}", "/") is None
    assert len(file_store.audit_events(limit=1000)) == TOLD
    waits = [attempts.failed(file_store, f"2001:db8::{number:x}", "/") for number in range(FAILURES + 1)]
    assert [wait is None for wait in waits] == [True] * FAILURES + [False], "whoever has one address of IPv6 has many"
    assert attempts.failed(file_store, "2001:db8:0:1::1", "/") is None
