"""A service under everything that months bring, against the embedded Hub: `python -m bench.soak`.

Kills it at every stage and at every step of a publication, before and after the Hub has carried it out; puts a proxy before the Hub that does what Hubs and
networks do on bad days; stops one of two services for longer than its lease; takes the disk away; polls for long; lets days pass by a clock that is set. After
each of these the Hub itself is read: nothing may be half published, published twice, or replaced by something older, no process may be left, and in the end
the newest release of every model has to be there. A part that --minutes cuts short is a failure, unless --partly is given.

Kills, runs, pauses and disks are shared out among --worlds, each with a folder, a database, a Hub and services of its own. What was found is told as it comes,
and in a table in the end. The seed decides where chance does; two services that run by themselves do not do so alike twice.
"""

import argparse
import os
import random
import signal
import time

from rich import box
from rich.table import Table

from bench.program import console
from bench.soak.found import KINDS, Found
from bench.soak.parts import PARTS
from bench.soak.worlds import Given, in_worlds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, part in PARTS.items():
        parser.add_argument(f"--{name}", type=int, default=part.number, help=f"{part.told} ({part.number})")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--worlds", type=int, default=cores, help=f"that are there at once (as many as cores: {cores})")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each part at most (60)")
    parser.add_argument("--partly", action="store_true", help="a part that is cut short is no failure")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of what is left to chance")  # noqa: S311
    parser.add_argument("--database", metavar="URL", help="of a PostgreSQL server on which each service's database is made, and dropped; else SQLite")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends as by Ctrl+C, and nothing is left behind
    given = Given(worlds=asked.worlds, minutes=asked.minutes, seed=asked.seed, database=asked.database)
    print(f"seed {given.seed}, {given.worlds} worlds, {'SQLite' if given.database is None else 'PostgreSQL'}", flush=True)
    found: list[tuple[Found, float]] = []
    try:
        for name in PARTS:
            if number := getattr(asked, name):
                began = time.monotonic()
                found.append((in_worlds(name, number, given), time.monotonic() - began))
    finally:
        console().print(_table(found))
    raise SystemExit(1 if any(each.faults or (each.short and not asked.partly) for each, _ in found) else 0)


def _table(found: list[tuple[Found, float]]) -> Table:
    """What the parts came to: what was done, what it took, and how much was wrong."""
    table = Table(box=box.SIMPLE)
    for column in ("part", "done", "of", "minutes", "s each", "processor s each", *KINDS, "other"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for each, seconds in found:
        done = each.done.total()
        figures = [seconds / 60, seconds / max(1, done), each.processor / max(1, done)]
        wrong = [str(each.kinds[kind]) for kind in (*KINDS, "other")]
        table.add_row(each.part, str(done), str(each.wanted), *(f"{figure:.1f}" for figure in figures), *wrong)
    return table


if __name__ == "__main__":
    main()
