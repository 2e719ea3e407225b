from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from config.passing import DAY, passes, pause, wait_asked


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_what_passes(status: int) -> None:
    assert passes(status)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 409, 412, 413, 422, 501])
def test_what_does_not(status: int) -> None:
    assert not passes(status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "999999999"}, DAY),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}, None),
        ({"retry-after": "Mon, 99999999999999999999999 Jan 2024 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=12;t=55'}, None),  # there is something left: that is not why
    ],
)
def test_how_long_an_answer_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked(headers) == seconds


def test_a_wait_may_be_given_as_a_date() -> None:
    assert wait_asked({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)}) == pytest.approx(90, abs=2)
    assert wait_asked({"retry-after": format_datetime(datetime.now(UTC) - timedelta(days=9), usegmt=True)}) == 0.0


def test_pauses_double_up_to_a_day_with_a_part_left_to_chance() -> None:
    for tries in range(60):
        found = {pause(tries, first=30.0) for _ in range(50)}
        most = min(30.0 * 2.0**tries, DAY)
        assert all(most / 2 <= seconds <= most for seconds in found)
        assert len(found) > 1


def test_what_a_hub_asks_for_is_the_least() -> None:
    assert all(600.0 <= pause(0, first=1.0, asked=600.0) <= 601.0 for _ in range(50))
    assert pause(20, first=30.0, asked=5.0) >= DAY / 2
