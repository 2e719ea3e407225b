"""What a machine must have in common with the service whose stages it carries out: Python, and every line of code that may decide an output."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from config.errors import ClusterUnavailable, SluiceError
from engines import toolchain
from service.execution.artifacts import ArtifactStore

_ROOT = Path(__file__).parents[2]
_CODE = ("builders", "config", "engines", "publishers", "qa", "service/cluster", "service/execution")
_KINDS = {".py", ".j2", ".css", ".go", ".mjs"}  # what an operator edits is an input of stages, and travels with them


@cache
def here() -> Mapping[str, str]:
    """What this machine has, by what it is."""
    return {"Python": platform.python_version(), "Sluice": f"{_version()} ({_digest()[:12]})"}


def refusal(wanted: Mapping[str, str], store_url: str) -> str | None:
    """Why this machine cannot carry out stages of a service that has this, with files in that store; None where it can.

    Raises ClusterUnavailable where the store cannot be reached from here at the moment.
    """
    if other := [f"{name} {here().get(name)} and the service {name} {wanted[name]}" for name in wanted if here().get(name) != wanted[name]]:
        return f"it has {', '.join(other)}; install the same there as here"
    try:
        toolchain.tool("llama-quantize")
        ArtifactStore(store_url).check()
    except ClusterUnavailable:
        raise
    except SluiceError as error:
        return str(error)
    return None


def _version() -> str:
    try:
        return version("sluice")
    except PackageNotFoundError:
        return "from its sources"


def _digest() -> str:
    """sha256 of the code."""
    files = (path for folder in _CODE for path in (_ROOT / folder).rglob("*") if path.suffix in _KINDS and "__pycache__" not in path.parts)
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(_ROOT).as_posix()}\n" for path in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
