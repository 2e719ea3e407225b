"""Memory of a service that does nothing but poll."""

import time

from bench.soak.ending import ONE, ended
from bench.soak.found import Found
from bench.soak.share import Share
from bench.soak.world import World, service, until

GROWN = 1.03  # times its memory after a tenth of the polls, that it may have in the end


def polls(world: World, share: Share) -> Found:
    """So many polls."""
    found = Found("polls", share.number)
    world.push(ONE)
    with service(world, config={"poll_minutes": 0.005}) as running:
        found.wrong += ended(world, running)
        before = _after(world, share.number // 10, share.until)
        early = running.memory()
        polled = _after(world, share.number - before, share.until)
        late = running.memory()
        found.done["polls"] = before + polled
        print(f"memory after {before} polls {early / 1e6:.1f} MB, after {before + polled} {late / 1e6:.1f} MB", flush=True)
        if late > GROWN * early:
            found.wrong.append(f"memory grew by {(late - early) / 1e6:.1f} MB")
    return found


def _after(world: World, number: int, until_when: float) -> int:
    """Wait for so many polls; how many there were."""
    began = world.proxy.count("GET", "/api/models?")
    until(lambda: world.proxy.count("GET", "/api/models?") - began >= number or time.monotonic() > until_when, 3600, every=0.2)
    return world.proxy.count("GET", "/api/models?") - began
