"""What is known of the parts of a service, whatever happens to the clock."""

from datetime import UTC, datetime, timedelta

import pytest

from service import pulse as module
from service.pulse import Pulse


def test_a_part_is_stuck_when_it_is_silent_for_longer_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pulse, clock = Pulse(), [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with pulse.part("poll", limit=60):
        for silent, stuck in ((59, False), (61, True)):
            pulse.beat("poll", "an owner")
            clock[0] += silent
            (sign,) = pulse.signs()
            assert (sign.doing, sign.stuck) == ("an owner", stuck)
        pulse.beat("poll", failing=True)
        assert [(sign.failing, sign.stuck) for sign in pulse.signs()] == [(True, False)]
        pulse.beat("poll")
        assert [sign.failing for sign in pulse.signs()] == [False]
    assert pulse.signs() == ()


@pytest.mark.parametrize("hours", [-24, 24])
def test_nothing_is_stuck_or_alive_because_somebody_sets_the_clock(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=hours)

    pulse = Pulse()
    with pulse.part("worker", limit=60), pulse.part("intake", limit=-1):
        monkeypatch.setattr(module, "datetime", Clock)
        assert {sign.part: sign.stuck for sign in pulse.signs()} == {"worker": False, "intake": True}
