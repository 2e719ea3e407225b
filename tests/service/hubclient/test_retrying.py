"""Requests through faults of the moment, with the real client, the embedded Hub and a proxy between them."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from httpx2 import TransportError
from huggingface_hub import CommitOperationAdd

from bench.faulty import Fault, always, faults
from config.errors import HubError, HubUnavailable
from service.hubclient import patient, retrying
from service.hubclient.traffic import UNREACHED, Traffic, traffic
from tests.service.hubclient.conftest import Far


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST", 0.02)


@pytest.mark.parametrize("fault", [Fault(answer=500), Fault(answer=502), Fault(answer=503), Fault(answer=429), Fault(cut=0), Fault(cut=30), Fault(lose=True)])
def test_a_question_is_asked_again_until_it_is_answered(far: Far, fault: Fault) -> None:
    far.proxy.rule = faults(fault, fault, fault, path="/api/models")
    heard: list[str] = []
    with patient(20, heard.append):
        assert far.connect().model_info("acme/model").sha
    assert far.proxy.count("GET", "/api/models") == 4
    assert len(heard) == 3
    assert all("It is tried again in" in said for said in heard)


def test_an_answer_that_breaks_off_is_none(far: Far) -> None:
    far.proxy.rule = faults(Fault(cut=400), path="/api/models")  # the head came, and a part of the JSON
    with patient(20):
        assert far.connect().model_info("acme/model").sha


def test_a_question_is_not_asked_again_without_patience(far: Far) -> None:
    far.proxy.rule = always(Fault(answer=503, said="Down for maintenance, hf_secretsecret"))
    with pytest.raises(HubUnavailable, match=r"The Hub at .* answered 503 and said: Down for maintenance, \[token\]\."):
        far.connect().model_info("acme/model")
    assert len(far.proxy.seen) == 1


def test_a_hub_that_stays_away_is_given_up(far: Far) -> None:
    far.proxy.rule = always(Fault(answer=500))
    with pytest.raises(HubUnavailable), patient(2):
        far.connect().model_info("acme/model")
    assert len(far.proxy.seen) > 1


def test_the_hub_says_how_long_to_wait(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retrying.ending, "wait", waited.append)
    far.proxy.rule = faults(Fault(answer=429, headers={"Retry-After": "17"}), Fault(answer=503, headers={"Retry-After": "3"}))
    with patient(60):
        far.connect().model_info("acme/model")
    assert [round(seconds) for seconds in waited] == [17, 3]


@pytest.mark.parametrize("status", [429, 503])
def test_a_commit_waits_as_long_as_the_hub_says_and_is_made_once(far: Far, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    waited: list[float] = []
    monkeypatch.setattr(retrying.ending, "wait", waited.append)
    far.proxy.rule = faults(Fault(answer=status, headers={"Retry-After": "17"}), method="POST", path="/commit/main")
    api = far.connect()
    before = len(api.list_repo_commits("acme/model"))
    with patient(60):
        api.upload_file(path_or_fileobj=b"more", path_in_repo="more.txt", repo_id="acme/model")
    assert [round(seconds) for seconds in waited] == [17]
    assert (far.proxy.count("POST", "/commit/main"), len(api.list_repo_commits("acme/model"))) == (2, before + 1)


def test_a_wait_beyond_our_patience_is_handed_on(far: Far) -> None:
    far.proxy.rule = always(Fault(answer=429, headers={"Retry-After": "3600"}))
    with pytest.raises(HubUnavailable) as caught, patient(60):
        far.connect().model_info("acme/model")
    assert caught.value.wait == 3600
    assert len(far.proxy.seen) == 1


def test_what_is_surely_not_carried_out_may_be_sent_again(far: Far) -> None:
    far.proxy.rule = faults(Fault(answer=429), Fault(answer=503, headers={"Retry-After": "0"}), method="POST", path="/repos/create")
    with patient(20):
        far.connect().create_repo("acme/new")
    assert far.proxy.count("POST", "/repos/create") == 3


@pytest.mark.parametrize("fault", [Fault(answer=423), Fault(answer=409, said="Another commit operation is in progress for this repository.")])
def test_a_change_that_waits_for_another_one_is_sent_again(far: Far, fault: Fault) -> None:
    far.proxy.rule = faults(fault, fault, method="POST", path="/commit/main")
    with patient(20):
        far.connect().upload_file(path_or_fileobj=b"more", path_in_repo="more.txt", repo_id="acme/model")
    assert far.proxy.count("POST", "/commit/main") == 3


def test_a_name_that_is_taken_is_no_fault_of_the_moment(far: Far) -> None:
    with pytest.raises(Exception, match="409"), patient(20):
        far.connect().create_repo("acme/model")
    assert far.proxy.count("POST", "/repos/create") == 1


@pytest.mark.parametrize("fault", [Fault(lose=True), Fault(cut=0), Fault(answer=500)])
def test_what_may_have_been_carried_out_is_not_sent_again(far: Far, fault: Fault) -> None:
    far.proxy.rule = always(fault, method="POST")
    with pytest.raises(Exception) as caught, patient(20):  # noqa: PT011  the client's own
        far.connect().create_repo("acme/new")
    assert isinstance(caught.value, TransportError) or caught.value.response.status_code == 500
    assert far.proxy.count("POST", "/repos/create") == 1


@pytest.mark.parametrize("path", ["/api/validate-yaml", "/preupload/", "/info/lfs/objects/batch"])
@pytest.mark.parametrize("fault", [Fault(answer=502, content=b"<html>"), Fault(lose=True), Fault(cut=0)])
def test_what_is_posted_and_changes_nothing_is_asked_again(far: Far, path: str, fault: Fault) -> None:
    """The client reads the answer about a card before it looks at its status."""
    far.proxy.rule = faults(fault, method="POST", path=path)
    sent = [CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n"), CommitOperationAdd("more.safetensors", bytes(1000))]
    with patient(20):
        far.connect().create_commit("acme/model", sent, commit_message="More")
    assert far.proxy.count("POST", path) == 2
    assert far.proxy.count("POST", "/commit/main") == 1


def test_a_refusal_is_no_fault_of_the_moment(far: Far) -> None:
    with pytest.raises(Exception, match="404"), patient(20):
        far.connect().model_info("acme/nowhere")
    assert len(far.proxy.seen) == 1
    assert not issubclass(HubError, HubUnavailable)


def test_uploads_go_on_after_faults(far: Far) -> None:
    far.proxy.rule = faults(Fault(answer=503), None, Fault(cut=0), method="PUT")
    with patient(20):
        far.connect().upload_file(path_or_fileobj=bytes(2_000_000), path_in_repo="more.safetensors", repo_id="acme/model")
    assert far.proxy.count("PUT", "") == 2


def test_requests_are_counted_by_how_they_were_answered_and_bytes_by_where_they_went(far: Far) -> None:
    calls, moved = traffic.calls(), traffic.bytes()
    far.proxy.rule = faults(Fault(answer=503), Fault(cut=0), path="/api/models")
    with patient(20):
        far.connect().model_info("acme/model")
    far.connect().upload_file(path_or_fileobj=bytes(500_000), path_in_repo="more.safetensors", repo_id="acme/model")
    more = {key: count - calls.get(key, 0) for key, count in traffic.calls().items()}
    assert (more["GET", "503"], more["GET", UNREACHED]) == (1, 1)
    assert more["GET", "200"] >= 1
    assert more["PUT", "200"] == 1
    assert traffic.bytes()["sent"] - moved.get("sent", 0) > 500_000
    assert 500 < traffic.bytes()["received"] - moved.get("received", 0) < 100_000


@pytest.mark.parametrize(
    ("headers", "ahead"),
    [
        ({"date": "{now}"}, 0),
        ({"date": "{now}", "age": "600"}, -600),
        ({"date": "Mon, 01 Jan 2024 00:00:00 GMT", "age": "0"}, None),
        ({"date": "yesterday"}, 12345),
        ({"date": "{now}", "age": "old"}, 12345),
        ({}, 12345),
    ],
)
def test_how_far_the_clock_is_ahead_of_the_hub_s_is_known(headers: dict[str, str], ahead: float | None) -> None:
    found = Traffic()
    found.ahead = 12345
    found.dated({name: value.format(now=format_datetime(datetime.now(UTC), usegmt=True)) for name, value in headers.items()})
    if ahead is None:
        assert found.ahead > 86_400
    else:
        assert abs(found.ahead - ahead) < 5


def test_the_hub_s_answers_tell_it(far: Far) -> None:
    traffic.ahead = 12345
    far.connect().model_info("acme/model")
    assert abs(traffic.ahead) < 5
