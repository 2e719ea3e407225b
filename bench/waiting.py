"""A stage that does nothing but wait, for `bench.nodes`."""

import time
from pathlib import Path
from typing import Any

from config.progress import counted

VERSION = 1
STEP = 0.25  # seconds


def wait(out: Path, *, text: Path, number: int, seconds: float) -> dict[str, Any]:
    """So many seconds; `number` tells it from others of its kind."""
    until = time.monotonic() + seconds
    for _ in counted(range(round(seconds / STEP)), "steps"):
        time.sleep(min(STEP, max(0.0, until - time.monotonic())))
    (out / "number").write_text(f"{number} {text.read_text(encoding='utf-8')}", encoding="utf-8")
    return {"file": "number"}
