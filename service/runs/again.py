"""Whether something that did not work is tried again by itself, and when: said wherever its error is."""

from datetime import datetime

from pydantic import BaseModel

from config.passing import pause
from service.store import FollowUpRecord, RunRecord

ATTEMPTS = 3  # times that a run is tried when nobody asks for it but hints
FIRST_WAIT = 30.0  # seconds of the first wait for the Hub, at most
HINTS = ("poll", "webhook")  # triggers of runs that no person asked for


class Again(BaseModel):
    """What will become of a run that did not reach its end."""

    by_itself: bool
    """Whether it is tried again without anybody asking for it."""
    at: datetime | None
    """When, where that is known; UTC."""
    said: str
    """The same for a person."""


def again(run: RunRecord) -> Again | None:
    """Of a run that failed, or that waits; None of any other."""
    if run.state == "queued" and run.due is not None:
        return Again(by_itself=True, at=run.due, said=f"A running service tries it again by itself {at(run.due)}; the same command tries it now.")
    if run.state != "failed":
        return None
    if run.trigger in HINTS and run.attempt < ATTEMPTS:
        said = f"It is tried again by itself at the next look at {run.release.repo} (attempt {run.attempt} of {ATTEMPTS} failed)."
        return Again(by_itself=True, at=None, said=said)
    return Again(by_itself=False, at=None, said="It is not tried again by itself.")


def of_follow_up(item: FollowUpRecord) -> str:
    """What is still to do for a run that is done, and when that is tried again."""
    return f"The {item.kind} is not made yet. {item.error} A running service tries it again by itself {at(item.due)}; everything else is done."


def wait(before: int, asked: float | None) -> float:
    """Seconds to wait after so many waits in a row: half a minute at first, a day at most, and no less than the Hub asked for."""
    return pause(before, first=FIRST_WAIT, asked=asked)


def at(when: datetime) -> str:
    """A moment in a sentence."""
    return f"at {when:%Y-%m-%d %H:%M:%S} UTC"
