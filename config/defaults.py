"""What a recipe means by a section that it leaves out: `config/defaults.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

from config.files import read_yaml

DEFAULTS = Path(__file__).with_suffix(".yaml")


def default(*names: str) -> Any:
    """The section under these keys, one inside the other, as it is written."""
    found = _read()
    for name in names:
        found = found[name]
    return found


@cache
def _read() -> Any:
    return read_yaml(DEFAULTS)
