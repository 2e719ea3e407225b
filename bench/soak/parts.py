"""What the soak is made of: its parts, how often each is done, and what it does."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.soak.bad_days import bad_days
from bench.soak.disks import disks
from bench.soak.found import Found
from bench.soak.hours import hours
from bench.soak.kills import kills
from bench.soak.pauses import pauses
from bench.soak.polls import polls
from bench.soak.share import Share
from bench.soak.world import World


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of them."""

    number: int  # how often it is done, unless somebody says otherwise
    carry_out: Callable[[World, Share], Found]
    told: str  # of what there are so many
    shared_out: bool = True  # whether several worlds may do it together; else it is about one service that lives long


PARTS: dict[str, Part] = {
    "kills": Part(number=200, carry_out=kills, told="SIGKILLs, at every stage and every write to the Hub"),
    "runs": Part(number=1000, carry_out=bad_days, told="runs through a Hub that has bad days"),
    "pauses": Part(number=50, carry_out=pauses, told="stops of one of two services for longer than its lease"),
    "disks": Part(number=20, carry_out=disks, told="disks that are full for a while"),
    "polls": Part(number=500, carry_out=polls, told="polls, after which memory is compared", shared_out=False),
    "hours": Part(number=72, carry_out=hours, told="hours of a clock that is set, with retention on", shared_out=False),
}
