"""Places that are told how runs end: real requests to a small receiver."""

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.notify import Notified
from config.words import GateResult, Kind, Outcome, Variant, Verdict
from publishers import notify as sending
from service.cli.main import app
from service.daemon import notifying
from service.store import Published, Store, VariantRecord, ledger, open_store
from tests.answering import Answer, Request, answering
from tests.service.helpers import queue_run

RESULT = GateResult(gate="divergence", measure="kld.mean", value=0.4, stderr=None, condition="at most 0.2", outcome=Outcome.FAILED, reason="far", limit=0.2)


@dataclass
class Receiver:
    """What a channel was sent, and what it answers."""

    address: str
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # taken from the front; then 204
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    def answer(request: Request) -> Answer:
        found.requests.append(({name.lower(): value for name, value in request.headers.items()}, request.body))
        status, headers = found.answers.pop(0) if found.answers else (204, {})
        return status, headers, b""

    with answering(answer) as url:
        found = Receiver(address=f"{url}/hook/secret")
        yield found


@pytest.fixture
def places(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> tuple[Notified, ...]:
    monkeypatch.setenv("SLUICE_NOTIFY_TEAM", receiver.address)
    monkeypatch.setenv("SLUICE_NOTIFY_TEAM_KEY", "a key")
    return (Notified(name="team"),)


def ended(store: Store, state: str, *, error: str | None = None, digest: str = "d" * 64, changed: bool = True) -> int:
    """A run that published one repo and in which a gate kept one variant back."""
    run = queue_run(store, recipe_digest=digest)
    store.lease("worker", seconds=60)
    for position, (tag, outcome) in enumerate({"Q8_0": Outcome.PASSED, "Q2_K": Outcome.FAILED}.items()):
        reasons = () if outcome is Outcome.PASSED else ("kld.mean is 0.4 nats, at most 0.2 is allowed.",)
        verdict = Verdict(tag=tag, outcome=outcome, reasons=reasons, results=(replace(RESULT, outcome=outcome),))
        record = VariantRecord(variant=Variant(tag=tag, kind=Kind.GGUF), file=None, bytes=1, bpw=2.0, measurements=(), verdict=verdict)
        store.record_variant(run.id, record, position=position)
    published = Published(repo="ours/m-GGUF", revision="a" * 40, url="http://hub/ours/m-GGUF", files=("README.md",), manifest_digest="d" * 64, changed=changed)
    store.record_publication(run.id, published)
    assert store.finish(run.id, state=state, error=error)  # type: ignore[arg-type]
    return run.id


def test_a_place_is_told_what_happens_from_the_time_that_it_is_there(store: Store, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    ended(store, "done", digest="a" * 64)
    notifying.notify(store, places)
    assert receiver.requests == [], "what was before is no news"
    run = ended(store, "blocked")
    notifying.notify(store, places)
    notifying.notify(store, places)
    [(headers, content)] = receiver.requests
    said = json.loads(content)
    assert (said["ending"], said["run"], said["repo"], said["published"]) == ("blocked", run, "upstream/model", ["http://hub/ours/m-GGUF"])
    assert said["blocked"] == {"Q2_K": "kld.mean is 0.4 nats, at most 0.2 is allowed."}
    assert abs(int(headers["x-sluice-timestamp"]) - time.time()) < 60
    expected = hmac.new(b"a key", f"{headers['x-sluice-timestamp']}.".encode() + content, hashlib.sha256).hexdigest()
    assert headers["x-sluice-signature"] == f"sha256={expected}"
    [kept] = store.deliveries()
    assert (kept.state, kept.attempts, kept.error, kept.subject, kept.ending) == ("delivered", 1, None, f"run/{run}", "blocked")


def test_what_was_told_is_not_told_once_more_of_a_run_that_was_to_be_done_again_and_is_cancelled(store: Store) -> None:
    run = ended(store, "done", digest="a" * 64)
    queue_run(store, recipe_digest="a" * 64, again=True)
    store.cancel(run, source="command", details={})
    assert notifying.composed(store, store.audit_events(subject=f"run/{run}")[0]) is None


def test_each_end_is_told_in_words_to_whom_it_concerns(file_store: Store, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    both = (*places, Notified(name="quiet", on=("held",)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_NOTIFY_QUIET", receiver.address)
        notifying.notify(file_store, both)
        ended(file_store, "done", digest="a" * 64)
        ended(file_store, "done", digest="b" * 64, changed=False)
        ended(file_store, "failed", error="The disk is full.", digest="c" * 64)
        ended(file_store, "held", digest="e" * 64)
        ended(file_store, "superseded", error="Published is what was made of 0123456789ab.", digest="f" * 64)
        notifying.notify(file_store, both)
    told = [(json.loads(content)["ending"], json.loads(content)["text"]) for _, content in receiver.requests]
    assert sorted(ending for ending, _ in told) == ["failed", "held", "held", "published", "superseded"], "nothing of a run that changed nothing"
    assert "The disk is full." in dict(told)["failed"]
    assert "waits for a person" in dict(told)["held"]
    assert "not published, because something newer is" in dict(told)["superseded"]
    assert "Published is what was made of 0123456789ab." in dict(told)["superseded"]


@pytest.mark.parametrize(("form", "key"), [("slack", "text"), ("discord", "content")])
def test_channels_get_a_message_that_does_nothing_but_stand_there(
    file_store: Store, receiver: Receiver, places: tuple[Notified, ...], form: str, key: str
) -> None:
    place = places[0].model_copy(update={"form": form})
    notifying.notify(file_store, (place,))
    ended(file_store, "failed", error="<!channel> @everyone & more " + "x" * 3000)
    notifying.notify(file_store, (place,))
    [(headers, content)] = receiver.requests
    said = json.loads(content)
    assert len(said[key]) <= 2000
    assert "x-sluice-signature" not in headers
    if form == "slack":
        assert "&lt;!channel&gt;" in said[key]
    else:
        assert said["allowed_mentions"] == {"parse": []}


def test_what_passes_is_tried_again_and_what_does_not_is_given_up(
    file_store: Store, receiver: Receiver, places: tuple[Notified, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "FIRST", 0.0)
    notifying.notify(file_store, places)
    receiver.answers += [(503, {}), (429, {"Retry-After": "0"}), (204, {}), (404, {})]
    ended(file_store, "done", digest="a" * 64)
    notifying.notify(file_store, places)
    [first] = file_store.deliveries()
    assert (first.state, first.attempts) == ("delivered", 3)
    ended(file_store, "done", digest="b" * 64)
    notifying.notify(file_store, places)
    refused = file_store.deliveries()[0]
    assert (refused.state, refused.attempts) == ("given_up", 1)
    assert refused.error == "team answered with status 404. Look at SLUICE_NOTIFY_TEAM and `form`."


def test_a_place_that_is_away_keeps_nothing_from_others(file_store: Store, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    both = (Notified(name="away"), *places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_NOTIFY_AWAY", "http://127.0.0.1:9/")
        notifying.notify(file_store, both)
        ended(file_store, "done")
        notifying.notify(file_store, both)
    kept = {item.place: item for item in file_store.deliveries()}
    assert (kept["team"].state, len(receiver.requests)) == ("delivered", 1)
    assert kept["away"].state == "pending"
    assert kept["away"].error == "away could not be reached: ConnectError."
    assert kept["away"].due > kept["away"].created


def test_a_place_that_answers_byte_by_byte_holds_up_nobody(
    file_store: Store, receiver: Receiver, places: tuple[Notified, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SECONDS", 0.5)
    ends = threading.Event()

    def trickle() -> None:
        connection, _ = slow.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not ends.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as slow:
        thread = threading.Thread(target=trickle)
        thread.start()
        monkeypatch.setenv("SLUICE_NOTIFY_SLOW", f"http://127.0.0.1:{slow.getsockname()[1]}/")
        both = (Notified(name="slow"), *places)
        notifying.notify(file_store, both)
        ended(file_store, "done")
        late = threading.Timer(60, ends.set)
        late.start()
        notifying.notify(file_store, both)
        assert not ends.is_set(), "it was waited for"
        late.cancel()
        ends.set()
        thread.join()
    kept = {item.place: item for item in file_store.deliveries()}
    assert (kept["team"].state, kept["slow"].state) == ("delivered", "pending")
    assert kept["slow"].error == "slow gave no answer within 0 seconds."


@pytest.mark.parametrize("ahead", [-86_400.0, 5.0, 86_400.0])
def test_what_a_clock_noted_that_is_wrong_is_told_as_well(
    store: Store, receiver: Receiver, places: tuple[Notified, ...], monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    notifying.notify(store, places)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "now", lambda: datetime.now(UTC) + timedelta(seconds=ahead))
        first = ended(store, "done", digest="a" * 64)
    second = ended(store, "done", digest="b" * 64)
    notifying.notify(store, places)
    assert [json.loads(content)["run"] for _, content in receiver.requests] == [first, second]


def test_an_end_whose_commit_takes_long_is_told_in_its_turn(postgres_url: str, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    store = open_store(postgres_url)
    notifying.notify(store, places)
    before = ended(store, "done", digest="a" * 64)
    slow = queue_run(store, recipe_digest="b" * 64).id
    store.lease("another", seconds=60, run=slow)
    with store.write() as session:
        ledger.note(session, "test", f"run/{slow}", "failed", {"error": "The disk is full."})
        session.flush()
        after = ended(store, "done", digest="c" * 64)
        time.sleep(2.1)
        notifying.notify(store, places)
        assert [json.loads(content)["run"] for _, content in receiver.requests] == [before]
    notifying.notify(store, places)
    assert [json.loads(content)["run"] for _, content in receiver.requests] == [before, slow, after]
    store.close()


def test_a_number_that_nobody_will_ever_use_holds_nothing_up(postgres_url: str, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    store = open_store(postgres_url)
    notifying.notify(store, places)
    with store.write() as session, session.begin_nested() as undone:
        ledger.note(session, "test", "x/1", "undone", {})
        session.flush()
        undone.rollback()
    run = ended(store, "done")
    notifying.notify(store, places)
    assert [json.loads(content)["run"] for _, content in receiver.requests] == [run]
    store.close()


def test_two_services_tell_it_once(database_url: str, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    stores = [open_store(database_url) for _ in range(2)]
    notifying.notify(stores[0], places)
    for digest in "abc":
        ended(stores[0], "done", digest=digest * 64)
    threads = [threading.Thread(target=notifying.notify, args=(each, places)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({json.loads(content)["run"] for _, content in receiver.requests}) == len(receiver.requests) == 3
    for each in stores:
        each.close()


def test_the_command_tries_a_place_and_shows_what_was_sent(tmp_path: Path, receiver: Receiver, places: tuple[Notified, ...]) -> None:
    settings = tmp_path / "sluice.yaml"
    settings.write_text(f"home: {tmp_path / 'home'}\nnotify: [{{name: team}}]\n")
    asked = CliRunner()
    found = asked.invoke(app, ["--config", str(settings), "notify", "test", "team"])
    assert (found.exit_code, found.output.strip(), len(receiver.requests)) == (0, "delivered to team", 1)
    other = asked.invoke(app, ["--config", str(settings), "notify", "test", "tean"])
    assert other.exit_code == 2
    assert "Did you mean team?" in " ".join(other.output.split())
    store = open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}")
    notifying.notify(store, places)
    run = ended(store, "done")
    notifying.notify(store, places)
    shown = asked.invoke(app, ["--config", str(settings), "notify", "list"]).output
    assert f"team  run/{run} published  delivered" in shown
    store.close()


def test_an_address_that_is_not_there_is_told_by_its_variable(tmp_path: Path) -> None:
    settings = tmp_path / "sluice.yaml"
    settings.write_text("notify: [{name: team}]\n")
    found = CliRunner().invoke(app, ["--config", str(settings), "notify", "test", "team"])
    assert found.exit_code == 2
    assert "SLUICE_NOTIFY_TEAM" in found.output
    assert "Traceback" not in found.output


def test_each_delivery_is_a_sign_of_life(store: Store, receiver: Receiver, places: tuple[Notified, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    signs = list[tuple[str, str]]()
    monkeypatch.setattr(notifying.pulse, "beat", lambda part, doing="", **_: signs.append((part, doing)))
    notifying.notify(store, places)
    for digest in "abc":
        ended(store, "done", digest=digest * 64)
    notifying.notify(store, places)
    assert len(receiver.requests) == 3
    assert signs == [("notify", "team")] * 3, "a place that answers late must not make a long list look like one that hangs"
