"""The stage behind `sluice plan --curve`: in a process of its own, since HiGHS prints to standard output whatever it is told."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from builders.plan.curve import curve
from builders.sensitivity.table import Sensitivity
from config.plans import Profile, Rules

VERSION = 1  # raise when outputs change


def points(out: Path, *, sensitivity: Path, gguf: Path, imatrix: Path, profile: Profile) -> dict[str, Any]:
    """Under `planned` the mixes from 2 to 8 bits per weight and under `stock` llama.cpp's, each as a `Point`. Writes nothing."""
    planned, stock = curve(Sensitivity.load(sensitivity), gguf=gguf, imatrix=imatrix, rules=Rules().within(profile))
    return {"planned": [asdict(point) for point in planned], "stock": [asdict(point) for point in stock]}
