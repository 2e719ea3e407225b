"""A limit on the network is kept, by all connections together, and no deadline takes waiting for one's turn for silence."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from config.settings import Settings
from publishers import sending
from service.hubclient import connect
from service.hubclient.lines import PIECE, Pace
from tests.heard import hearing, whole
from tests.service.hubclient.conftest import Far

RATE = 200_000  # bytes a second
SIZE = 600_000  # bytes


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_no_second_sees_more_bytes_than_the_limit() -> None:
    clock = Clock()
    pace, sent = Pace(1000, clock=lambda: clock.now, wait=clock.wait), list[tuple[float, int]]()
    for count in (400, 400, 1, 999, 2500, 10) * 20:
        pace.let_by(count)
        sent.append((clock.now, count))
    for end, (until, _) in enumerate(sent):
        over = [count for at, count in sent[: end + 1] if until - at < 10.0]
        assert sum(over) <= 10 * 1000 + over[-1], "more than the last piece beyond what ten seconds allow"
    assert clock.now - 1000 >= (sum(count for _, count in sent) - sent[-1][1]) / 1000


def test_time_that_nobody_used_is_not_made_up_for() -> None:
    clock = Clock()
    pace = Pace(1000, clock=lambda: clock.now, wait=clock.wait)
    pace.let_by(1)
    clock.now += 3600
    began = clock.now
    for _ in range(10):
        pace.let_by(1000)
    assert clock.now - began == pytest.approx(9.0)


def test_without_a_limit_nobody_waits() -> None:
    clock = Clock()
    pace = Pace(None, clock=lambda: clock.now, wait=clock.wait)
    pace.let_by(10**12)
    pace.let_by(10**12)
    assert clock.now == 1000.0


def test_an_upload_takes_the_time_that_its_limit_says_and_tells_how_far_it_is(far: Far) -> None:
    api = far.connect(hub_timeout=0.5, hub_rate=RATE * 10.0, upload_limit=RATE)  # silence and rate are measured on the network, not on who waits for a turn
    began, content = time.monotonic(), os.urandom(SIZE)
    with hearing() as found:
        sending.upload(api, "acme/model", [sending.Addition(path_in_repo="a.safetensors", path_or_fileobj=content)])
    assert time.monotonic() - began >= (SIZE - 2 * PIECE) / RATE
    assert whole(found, "bytes") == [SIZE]
    assert len({item.done for item in found}) > 5
    assert far.proxy.count("PUT", "") == 1, "it was not given up and begun again"


def test_a_download_keeps_to_its_own_limit(far: Far, tmp_path: Path) -> None:
    api = far.connect(download_limit=RATE * 2)
    began = time.monotonic()
    file = Path(api.hf_hub_download("acme/model", "model.safetensors", local_dir=tmp_path))
    assert time.monotonic() - began >= (file.stat().st_size - 2**18) / (RATE * 2)


@pytest.mark.parametrize(
    ("limit", "xet"),
    [({}, False), ({"hub_xet": True}, True), ({"hub_xet": True, "upload_limit": "20MB"}, False), ({"hub_xet": True, "download_limit": "20MB"}, False)],
)
def test_xet_which_knows_no_limit_is_used_where_it_is_wanted_and_none_is_set(monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any], xet: bool) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    settings = Settings.model_validate(limit)
    connect(settings)
    assert constants.HF_HUB_DISABLE_XET is not xet
    if "upload_limit" in limit:
        assert settings.upload_limit == 20_000_000


@pytest.mark.parametrize("limit", [0, 9_999, "1KB", "fast"])
def test_a_limit_that_would_stop_everything_is_refused(limit: object) -> None:
    with pytest.raises(ValidationError, match="upload_limit"):
        Settings.model_validate({"upload_limit": limit})
