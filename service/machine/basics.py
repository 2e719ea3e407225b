"""Looks at what everything else stands on, with Python's own library alone: Python itself, the installed libraries, a compiler."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

SHOWN = ("huggingface_hub", "torch", "transformers", "bitsandbytes", "gguf", "llama-cpp-python")  # libraries with a line of their own
OLDEST, BELOW = (3, 11, 4), (3, 12)  # versions of Python
PATIENCE = 120.0  # seconds for loading all libraries
# where a library's module has another name
MODULES = {"pyyaml": "yaml", "protobuf": "google.protobuf", "llama-cpp-python": "llama_cpp", "markdown-it-py": "markdown_it"}
SETUP = "run `make setup`"
COMPILERS = ("c++", "g++", "clang++")

_PIN = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*==\s*(?P<version>[^\s;,]+)\s*$")
_LOAD = """
import importlib, json, sys
for name in sys.argv[1:]:
    print(json.dumps([name, None]), flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str  # "torch", "disk at home", "Hub login", …
    value: str  # what was found
    ok: bool | None  # False: Sluice cannot do its work with it; None: worth knowing, needs nothing
    advice: str | None = None  # what to do, one sentence


def python() -> Iterator[Finding]:
    """Python and the libraries: whether they are there, as pinned, and can be loaded, which takes some seconds."""
    right = OLDEST <= sys.version_info[:3] < BELOW
    advice = None if right else "Install Python 3.11 (3.11.4 or newer) and run `make setup PYTHON=/path/to/python3.11`."
    yield Finding(name="Python", value=platform.python_version(), ok=right, advice=advice)
    wanted = pins()
    if not wanted:
        yield Finding(name="libraries", value="the package `sluice` is not installed here", ok=False, advice="Run `make setup` in its folder.")
    wrong = {name: (found, pinned) for name, pinned in wanted.items() if (found := installed(name)) is None or found.partition("+")[0] != pinned}
    for name in SHOWN:
        yield Finding(name=name, value=installed(name) or "not installed", ok=name not in wrong, advice=_repair(name, wrong))
    others = [name for name in wrong if name not in SHOWN]
    yield Finding(
        name="other libraries",
        value=", ".join(f"{name} {wrong[name][0] or 'missing'}" for name in others) or "as pinned",
        ok=not others,
        advice=_repair(others[0], wrong) if others else None,
    )
    yield from loading([name for name in wanted if installed(name) is not None])


def pins() -> dict[str, str]:
    """Version that each direct dependency must have, as the installed package declares it; empty when it is not installed."""
    try:
        lines = metadata.requires("sluice") or []
    except metadata.PackageNotFoundError:
        return {}
    return {found["name"]: found["version"] for line in lines if (found := _PIN.match(line))}


def installed(name: str) -> str | None:
    """The version of a library that is there, in whatever state."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def loading(libraries: list[str]) -> Iterator[Finding]:
    """Whether the libraries can be imported, tried in a process of its own; a finding for each that cannot, or one for all that can."""
    modules = {MODULES.get(name, name.replace("-", "_")): name for name in libraries}
    try:
        done = subprocess.run([sys.executable, "-c", _LOAD, *modules], capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(name="loading libraries", value=f"could not be tried: {error}", ok=False, advice=f"Try again; if that does not help, {SETUP}.")
        return
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    broken = [(name, fault) for name, fault in told if fault is not None]
    if done.returncode != 0 and told:
        broken.append((told[-1][0], f"ended Python with code {done.returncode}"))
    for name, fault in broken:
        library = modules.get(name, name)
        yield Finding(name=f"{library} loads", value=str(fault), ok=False, advice=f"The installation of {library} is broken: {SETUP}, after `make clean`.")
    if not broken:
        yield Finding(name="loading libraries", value="all can be loaded", ok=True)


def _repair(name: str, wrong: Mapping[str, tuple[str | None, str]]) -> str | None:
    return f"{name} {wrong[name][1]} is wanted: {SETUP}." if name in wrong else None


def compiler(*, needed: bool = True) -> Iterator[Finding]:
    """What llama.cpp is built with; worth knowing only where that is done already."""
    named = os.environ.get("CXX")
    found = next((path for name in ((named,) if named else COMPILERS) if (path := shutil.which(name))), None)
    advice = "Install one with make, on Debian or Ubuntu by `apt-get install build-essential`; llama.cpp is built with it."
    missing = f"none: neither {' nor '.join((named,) if named else COMPILERS)} is there"
    ok = found is not None if needed else None
    yield Finding(name="C++ compiler", value=found or missing, ok=ok, advice=None if found or not needed else advice)
