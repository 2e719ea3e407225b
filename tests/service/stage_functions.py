"""Stages that behave well and badly, for the tests of the stage store and of the process a stage runs in."""

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from config.errors import UpstreamError

VERSION = 3


def shout(out: Path, *, text: Path, times: int) -> dict[str, Any]:
    (out / "sub").mkdir()
    (out / "sub" / "shout.txt").write_text(text.read_text().upper() * times)
    return {"file": "sub/shout.txt", "bytes": times}


def environment(out: Path) -> dict[str, Any]:
    return {"environment": dict(os.environ)}


def refuse(out: Path) -> dict[str, Any]:
    (out / "half").write_text("half")
    raise UpstreamError("the model is broken; use another")


def stumble(out: Path) -> dict[str, Any]:
    raise KeyError("missing")


def die(out: Path) -> dict[str, Any]:
    sys.stdout.write("about to die\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def sleep(out: Path) -> dict[str, Any]:
    time.sleep(60)
    return {}


def connect(out: Path, *, port: int) -> dict[str, Any]:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return {"connected": True}
    except OSError as error:
        return {"connected": False, "error": str(error)}


def allocate(out: Path, *, size: int) -> dict[str, Any]:
    return {"size": len(bytearray(size))}


def not_a_number(out: Path) -> dict[str, Any]:
    return {"value": float("nan")}


def fill_the_disk(out: Path) -> dict[str, Any]:
    with Path("/dev/full").open("wb", buffering=0) as disk:
        disk.write(b"0")
    return {}


def remark(out: Path) -> dict[str, Any]:
    return {"remark": "done in another way"}
