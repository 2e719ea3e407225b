"""Xet's own client, which connects by itself, held to our limits: the real one, with a store of its kind in a folder, or one that never answers."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hf_xet import XetFileInfo
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _xet

from bench.faulty import Fault, always
from config.errors import HubUnavailable, StageError
from publishers import sending
from publishers.wire import hub_errors
from service.hubclient import within, xet
from service.hubclient.lines import Ending
from tests.heard import hearing, whole
from tests.service.hubclient.conftest import Far

QUICK = {"hub_timeout": 0.8, "hub_rate": 1000.0}
LARGE = 200_000_000  # bytes: Xet sends them in several pieces


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    before = _xet._GLOBAL_XET_HOLDER
    yield
    with suppress(Exception):
        _xet.abort_xet_session()
    _xet._GLOBAL_XET_HOLDER = before


def client(far: Far, monkeypatch: pytest.MonkeyPatch, store: str, **settings: float) -> HfApi:
    """The service's client of a Hub that speaks Xet, whose files lie in that store."""
    api = far.connect(**settings)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    told = json.dumps({"accessToken": "token", "exp": int(time.time()) + 3600, "casUrl": store}).encode()
    far.proxy.rule = always(Fault(answer=200, headers={"Content-Type": "application/json"}, content=told), path="/xet-write-token/")
    return api


def send(api: HfApi, content: bytes | Path) -> None:
    with hub_errors(api, "publish acme/model"):
        sending.upload(api, "acme/model", [sending.Addition(path_in_repo="a.safetensors", path_or_fileobj=content)])


def test_bytes_are_told_while_a_file_is_on_its_way(far: Far, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(xet, "LOOK", 0.005)  # the store is on this disk, and takes a file in no time
    api = client(far, monkeypatch, f"local://{tmp_path / 'store'}")
    file = tmp_path / "a.safetensors"
    file.write_bytes(os.urandom(LARGE))
    with hearing() as found:
        send(api, file)
    assert whole(found, "bytes") == [LARGE]
    assert {item.done for item in found if 0 < item.done < LARGE}, "not of the whole file alone"
    assert {item.total for item in found} == {LARGE}


def test_an_upload_that_stalls_is_given_up(far: Far, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    api, began = client(far, monkeypatch, silent, **QUICK), time.monotonic()
    with pytest.raises(HubUnavailable, match="Xet moved nothing"):
        send(api, os.urandom(3_000_000))
    assert time.monotonic() - began < 60, "its own client waits for minutes"


def test_a_hub_that_gives_no_leave_to_send_is_given_up(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    api = client(far, monkeypatch, "", **QUICK)
    far.proxy.rule = always(Fault(stall=True), path="/xet-write-token/")
    with pytest.raises(HubUnavailable, match="Xet moved nothing"):
        send(api, os.urandom(3_000_000))


def test_what_is_left_of_a_stage_s_time_bounds_it(far: Far, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    api = client(far, monkeypatch, silent)
    with pytest.raises(StageError, match="the stage is over"), within(0.5, lambda: StageError("the stage is over")):
        send(api, os.urandom(3_000_000))


def test_the_end_of_the_program_waits_for_nothing(far: Far, monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    ended = Ending()
    monkeypatch.setattr("service.hubclient.xet.ending", ended)
    api = client(far, monkeypatch, silent)
    ended.begin()
    with pytest.raises(HubUnavailable, match="the program ends"):
        send(api, os.urandom(3_000_000))


def test_one_that_was_given_up_does_not_stand_in_the_way_of_the_next(far: Far, monkeypatch: pytest.MonkeyPatch, silent: str, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(HubUnavailable):
            send(client(far, monkeypatch, silent, **QUICK), os.urandom(3_000_000))
    with hearing() as found:
        send(client(far, monkeypatch, f"local://{tmp_path / 'store'}", **QUICK), os.urandom(3_000_000))
    assert whole(found, "bytes") == [3_000_000]


def fetch(store: str, target: Path) -> None:
    """As the Hub's client does it."""
    options = {"endpoint": store, "token": "token", "token_expiry_unix_secs": int(time.time()) + 3600}
    with _xet.get_xet_session().new_file_download_group(**options) as group:
        group.start_download_file(XetFileInfo("a" * 64, 1000), str(target))


def test_a_download_that_stalls_is_given_up(far: Far, silent: str, tmp_path: Path) -> None:
    far.connect(**QUICK)
    with pytest.raises(HubUnavailable, match="Xet moved nothing"):
        fetch(silent, tmp_path / "a")
