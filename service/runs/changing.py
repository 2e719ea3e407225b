"""Tells whether something about a run has changed, or only time has passed."""

import copy
from typing import Any

GOING_ON = ("queued", "running")


def substance(document: dict[str, Any]) -> dict[str, Any]:
    """A run's summary without figures that change by themselves."""
    found = copy.deepcopy(document) | {"left": None}
    for stage in found["stages"]:
        if stage["state"] == "running":
            stage["seconds"] = None
            if stage["progress"]:
                stage["progress"] |= {"rate": None, "left": None}
    return found
