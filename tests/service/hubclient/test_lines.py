"""Connections that stall or crawl, in every part of a call: none holds the client for longer than it was told."""

import os
import time

import pytest
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from bench.faulty import Fault, always, faults
from config.errors import HubError, HubUnavailable, StageError
from publishers import sending
from publishers.wire import hub_errors
from service.hubclient import patient, within
from service.hubclient.lines import Ending
from tests.service.hubclient.conftest import Far

QUICK = {"hub_timeout": 0.5, "hub_rate": 1000.0}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(stall=True), id="nothing comes"),
        pytest.param(Fault(rate=20.0), id="the answer comes byte by byte"),
        pytest.param(Fault(answer=200, headers={"Content-Length": "100"}), id="a part of the answer never comes"),
    ],
)
def test_a_question_that_is_not_answered_is_given_up(far: Far, fault: Fault) -> None:
    far.proxy.rule = always(fault)
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        far.connect(**QUICK).model_info("acme/model")


def test_an_answer_that_stalls_once_is_had_at_the_second_try(far: Far) -> None:
    far.proxy.rule = faults(Fault(stall=True))
    with patient(30):
        assert far.connect(**QUICK).model_info("acme/model").sha


def test_a_hub_that_takes_its_time_but_not_too_much_is_heard(far: Far) -> None:
    far.proxy.rule = faults(Fault(rate=20_000.0))
    assert far.connect(hub_timeout=20.0, hub_rate=1000.0).model_info("acme/model").sha


def test_an_upload_that_is_not_taken_is_given_up(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # the client tries it six times, with pauses
    far.proxy.rule = always(Fault(choke=True), method="PUT")
    api = far.connect(**QUICK)
    with pytest.raises(HubUnavailable), hub_errors(api, "publish acme/model"):
        sending.upload(api, "acme/model", [sending.Addition(path_in_repo="a.safetensors", path_or_fileobj=os.urandom(20_000_000))])
    assert far.proxy.count("POST", "/commit/") == 0


def test_an_upload_that_is_taken_drop_by_drop_is_given_up(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    far.proxy.rule = always(Fault(take=200_000.0), method="PUT")  # never silent: a piece every tenth of a second
    api = far.connect(hub_timeout=0.5, hub_rate=4_000_000.0)
    with pytest.raises(HubUnavailable), hub_errors(api, "publish acme/model"):
        sending.upload(api, "acme/model", [sending.Addition(path_in_repo="a.safetensors", path_or_fileobj=os.urandom(20_000_000))])
    assert far.proxy.count("POST", "/commit/") == 0


def test_an_upload_that_is_taken_slowly_but_fast_enough_arrives(far: Far) -> None:
    far.proxy.rule = always(Fault(take=2_000_000.0), method="PUT")
    api = far.connect(hub_timeout=3.0, hub_rate=10_000.0)
    sending.upload(api, "acme/model", [sending.Addition(path_in_repo="a.safetensors", path_or_fileobj=os.urandom(6_000_000))])
    assert far.proxy.count("PUT", "") == 1


def test_a_download_that_crawls_is_given_up_although_something_comes(far: Far) -> None:
    far.proxy.rule = always(Fault(rate=200.0), method="GET", path="/resolve/")
    api = far.connect(**QUICK)
    with pytest.raises(HubError), hub_errors(api, "download"), within(10, lambda: StageError("too long")):
        api.hf_hub_download("acme/model", "model.safetensors", local_dir=far.root)


def test_what_is_left_of_a_stage_s_time_bounds_every_call(far: Far) -> None:
    far.proxy.rule = always(Fault(stall=True))
    api = far.connect()  # which would wait for 100 seconds
    began = time.monotonic()
    with pytest.raises(StageError, match="the stage is over"), patient(300), within(0.3, lambda: StageError("the stage is over")):
        api.model_info("acme/model")
    assert time.monotonic() - began < 60


def test_an_inner_limit_does_not_lengthen_an_outer_one(far: Far) -> None:
    far.proxy.rule = always(Fault(stall=True))
    with pytest.raises(StageError, match="outer"), within(0.3, lambda: StageError("outer")), within(300, lambda: StageError("inner")):
        far.connect().model_info("acme/model")


def test_when_the_program_ends_nothing_waits_for_the_hub(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Ending()
    monkeypatch.setattr("service.hubclient.lines.ending", found)
    monkeypatch.setattr("service.hubclient.retrying.ending", found)

    def stall(request: object) -> Fault:
        found.begin()
        return Fault(stall=True)

    far.proxy.rule = stall
    with pytest.raises(HubUnavailable, match="the program ends"), patient(300):
        far.connect().model_info("acme/model")
    assert len(far.proxy.seen) == 1


def test_proxies_of_the_environment_are_used_and_bounded_too(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", far.proxy.url)
    set_client_factory(default_client_factory)  # made anew, with this environment
    monkeypatch.setattr(far.proxy, "rule", always(Fault(answer=418)))
    api = far.connect(**QUICK)
    api.endpoint = "http://hub.invalid"
    with pytest.raises(Exception, match="418"):
        api.model_info("acme/model")
    assert far.proxy.seen[-1].path.startswith("http://hub.invalid/")
    far.proxy.rule = always(Fault(stall=True))
    with pytest.raises(HubUnavailable):
        api.model_info("acme/model")
