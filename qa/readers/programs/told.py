"""What all programs for Python do: read the request, and tell a refusal in its words."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def answered(read: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Answer the request that this process was started with."""
    asked, answer = map(Path, sys.argv[1:])
    try:
        found = read(json.loads(asked.read_text(encoding="utf-8")))
    except Exception as error:  # noqa: BLE001 (it is told in its own words)
        found = {"refused": f"{type(error).__name__}: {error}"}
    answer.write_text(json.dumps(found), encoding="utf-8")
