import pytest

from config.progress import Progress
from service.amounts import amount, byte_count, duration, how_far, in_order, speed
from service.pace import Pace


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (65, "1 min 5 s"), (599, "9 min 59 s"), (600, "10 min"), (3569, "59 min"), (3571, "1 h"),
        (3600, "1 h"), (7261, "2 h 1 min"), (86_399, "1 d"), (86_400, "1 d"), (100_800, "1 d 4 h"), (172_799, "2 d"),
    ],
)  # fmt: skip
def test_times(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (2_375_072, "2.38 MB"), (4.58e9, "4.58 GB"), (1.5e12, "1.50 TB")])
def test_bytes(count: float, words: str) -> None:
    assert byte_count(count) == words


def test_amounts() -> None:
    assert amount(Progress(done=12, total=40, unit="windows")) == "12 of 40 windows"
    assert amount(Progress(done=12_000, total=None, unit="tokens")) == "12,000 tokens"
    assert amount(Progress(done=1_200_000_000, total=4_580_000_000, unit="bytes")) == "1.20 GB of 4.58 GB"
    assert amount(Progress(done=512, total=None, unit="bytes")) == "512 B"


@pytest.mark.parametrize(
    ("rate", "unit", "words"),
    [(3.24, "windows", "3.2/s"), (1234.5, "tokens", "1,234/s"), (0.5, "windows", "30.0/min"), (0.01, "windows", "36.0/h"), (1.25e7, "bytes", "12.50 MB/s")],
)
def test_rates(rate: float, unit: str, words: str) -> None:
    assert speed(rate, unit) == words


def test_how_far_a_stage_has_come() -> None:
    def said(progress: Progress | None, pace: Pace = Pace(), estimate: float | None = None) -> str:  # noqa: B008  frozen
        return in_order(how_far(progress, pace, elapsed=63, estimate=estimate))

    windows = Progress(done=12, total=40, unit="windows")
    assert said(None) == "1 min 3 s"
    assert said(None, estimate=125) == "1 min 3 s of about 2 min 5 s"
    assert said(windows) == "12 of 40 windows"
    assert said(windows, Pace(rate=3.2, left=8.75), estimate=125) == "12 of 40 windows, 3.2/s, 9 s left"
    assert said(Progress(done=12, total=None, unit="windows"), Pace(rate=3.2)) == "12 windows, 3.2/s"
    assert said(Progress(done=40, total=40, unit="windows"), Pace(rate=3.2, left=0)) == "40 of 40 windows, 3.2/s"
