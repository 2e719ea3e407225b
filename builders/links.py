"""Gives large files a second name instead of a second copy."""

import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system cannot do that. Nothing may write to either afterwards."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
