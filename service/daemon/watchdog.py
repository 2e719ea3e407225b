"""Lets systemd hear from the service as long as no part of it is stuck: from one that is it hears nothing, and starts the service again (sd_notify(3))."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.pulse import pulse
from service.repeating import repeated

SHARE = 3  # times that it hears in the time after which it would start the service again


@contextmanager
def heard_by_systemd() -> Iterator[None]:
    """Around the service's work; nothing happens where systemd does not ask for it by `WatchdogSec`."""
    place, patience, whom = (os.environ.get(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    if not place or not patience.isdigit() or whom not in {"", str(os.getpid())}:
        yield
        return

    def tell() -> bool:
        if not any(sign.stuck for sign in pulse.signs()):
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
                line.sendto(b"WATCHDOG=1", f"\0{place[1:]}" if place.startswith("@") else place)
        return True

    tell()
    with repeated(tell, seconds=int(patience) / 1e6 / SHARE, name="watchdog"):
        yield
