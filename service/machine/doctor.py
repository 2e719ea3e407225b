"""Looks at this machine and says what Sluice has, what it lacks, and what to do about it. Changes nothing and prints no secret."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx2
import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from config.errors import SluiceError
from config.settings import Settings
from engines import toolchain, tools
from service.machine.folders import existing

SHOWN = ("huggingface_hub", "torch", "transformers", "bitsandbytes", "gguf", "llama-cpp-python")  # libraries with a line of their own
DISK_NEEDED = 5 * 2**30  # bytes; the demo takes far less, a real release takes several times its 16-bit weights
MEMORY_NEEDED = 4 * 2**30  # bytes
PATIENCE = 5.0  # seconds for an answer of the network
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str  # "torch", "disk at home", "Hub login", …
    value: str  # what was found
    ok: bool | None  # False: Sluice cannot do its work with it; None: worth knowing, needs nothing
    advice: str | None = None  # what to do, one sentence


def examine(settings: Settings) -> list[Finding]:
    """Everything worth knowing about this installation, most basic first. Takes a few seconds; raises nothing."""
    return [
        *_python(),
        *_llama_cpp(),
        *_machine(settings),
        _gpu(),
        _configuration(settings),
        _database(settings),
        *_hub(settings),
    ]


# ---- software ---------------------------------------------------------------------------------------------------------------------------------


def _python() -> Iterator[Finding]:
    python = platform.python_version()
    right = python.startswith("3.11.")
    yield Finding(name="Python", value=python, ok=right, advice=None if right else "Install Python 3.11 and run `make setup PYTHON=python3.11`.")
    wrong = {name: (found, pinned) for name, pinned in pins().items() if (found := _installed(name)) is None or Version(found).public != pinned}
    for name in SHOWN:
        yield Finding(name=name, value=_installed(name) or "not installed", ok=name not in wrong, advice=_repair(name, wrong))
    others = [name for name in wrong if name not in SHOWN]
    yield Finding(
        name="other libraries",
        value=", ".join(f"{name} {wrong[name][0] or 'missing'}" for name in others) or "as pinned",
        ok=not others,
        advice=_repair(others[0], wrong) if others else None,
    )


def pins() -> dict[str, str]:
    """Version that each direct dependency must have, as the installed package declares it; empty when it is not installed."""
    try:
        requirements = [Requirement(line) for line in metadata.requires("sluice") or ()]
    except metadata.PackageNotFoundError:
        return {}
    return {needed.name: next(iter(needed.specifier)).version for needed in requirements if needed.marker is None}


def _repair(name: str, wrong: Mapping[str, tuple[str | None, str]]) -> str | None:
    return f"{name} {wrong[name][1]} is wanted: run `make setup`." if name in wrong else None


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _llama_cpp() -> Iterator[Finding]:
    prefix, override = toolchain.location(), "SLUICE_LLAMA_CPP" in os.environ
    problems = [] if override else toolchain.faults(prefix)
    if not problems and not override and prefix.name != toolchain.key():
        problems = [f"{prefix.name} was built for another processor or with other options than {toolchain.key()}"]
    repair = "Run `make setup`, which builds llama.cpp once for all clones."
    yield Finding(name="llama.cpp", value="; ".join(problems[:3]) or str(prefix), ok=not problems, advice=repair if problems else None)
    try:
        lines = tools.run("llama-server", "--version", timeout=60).splitlines()
        yield Finding(name="llama.cpp version", value=next((line for line in lines if line.startswith("version")), "?"), ok=True)
    except SluiceError as error:
        yield Finding(name="llama.cpp version", value=str(error), ok=False, advice=repair)
    missing = [name for name in toolchain.TOOLS if not (prefix / "bin" / name).exists()]
    yield Finding(
        name="llama.cpp tools", value=f"missing: {', '.join(missing)}" if missing else ", ".join(toolchain.TOOLS), ok=not missing, advice=_if(missing, repair)
    )
    try:
        tools.convert("--help", timeout=120)
        yield Finding(name="converter", value=str(toolchain.converter()), ok=True)
    except SluiceError as error:
        yield Finding(name="converter", value=str(error), ok=False, advice=repair)
    try:
        import llama_cpp

        yield Finding(name="llama.cpp library", value=f"llama_cpp {llama_cpp.__version__} loads", ok=True)
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding(name="llama.cpp library", value=f"llama_cpp does not load: {error}", ok=False, advice=repair)


def _if(condition: object, advice: str) -> str | None:
    return advice if condition else None


# ---- machine ----------------------------------------------------------------------------------------------------------------------------------


def _machine(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("disk at home", settings.folder), ("disk at cache", toolchain.cache_root())):
        free = shutil.disk_usage(existing(folder)).free
        enough = free >= DISK_NEEDED
        advice = None if enough else f"Free some space, at least {DISK_NEEDED // GIB} GiB, or name another folder."
        yield Finding(name=name, value=f"{free / GIB:.1f} GiB free for {folder}", ok=enough, advice=advice)
    memory = psutil.virtual_memory()
    enough = memory.total >= MEMORY_NEEDED
    advice = None if enough else f"Use a machine with at least {MEMORY_NEEDED // GIB} GiB; a release needs about the size of its 16-bit weights."
    yield Finding(name="memory", value=f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available", ok=enough, advice=advice)
    count = len(os.sched_getaffinity(0))
    fits = settings.threads <= count
    advice = None if fits else f"Set `threads` to {count} at most: more threads than processors are slower."
    yield Finding(name="processors", value=f"{count}, of which a stage uses {settings.threads}", ok=fits, advice=advice)


def _gpu() -> Finding:
    cards = _cards()
    if not cards:
        return Finding(name="GPU", value="none found; everything runs on the processors", ok=None)
    import torch

    if torch.cuda.is_available():
        return Finding(name="GPU", value=f"{cards}; torch uses CUDA {torch.version.cuda}", ok=True)
    advice = "To use it: install a CUDA build of torch, and llama.cpp by `SLUICE_CUDA=1 make setup`."
    return Finding(name="GPU", value=f"{cards}; this build of torch cannot use it", ok=None, advice=advice)


def _cards() -> str:
    """Names and memory of the NVIDIA cards, as the driver's own tool prints them; empty when there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(answer.stdout.split("\n")).strip("; ") if answer.returncode == 0 else ""


# ---- configuration and peers ------------------------------------------------------------------------------------------------------------------


def _configuration(settings: Settings) -> Finding:
    file = type(settings).model_config.get("yaml_file")
    return Finding(name="settings", value=f"{file} and the environment" if file else "defaults and the environment; no sluice.yaml here", ok=True)


def _database(settings: Settings) -> Finding:
    """Looks without creating or migrating anything."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    from service.store.database import alembic_config

    try:
        url = make_url(settings.database)
        shown = url.render_as_string(hide_password=True)
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite and not Path(url.database or "").exists():
            return Finding(name="database", value=f"{shown} does not exist yet; the first run creates it", ok=None)
        engine = create_engine(url, connect_args={} if sqlite else {"connect_timeout": int(PATIENCE)})
        try:
            with engine.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
                newest = ScriptDirectory.from_config(alembic_config(connection)).get_current_head()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        advice = "Start the database, or correct `database_url` (SLUICE_DATABASE_URL)."
        return Finding(name="database", value=f"not reachable: {str(getattr(error, 'orig', None) or error).strip()}", ok=False, advice=advice)
    if current == newest:
        return Finding(name="database", value=f"{shown}, schema {current}", ok=True)
    return Finding(name="database", value=f"{shown}, schema {current or 'empty'}; the next start brings it to {newest}", ok=None)


def _hub(settings: Settings) -> Iterator[Finding]:
    """Whether the Hub answers, and as whom it knows the token. The token goes into the request's header and nowhere else."""
    from huggingface_hub import get_session

    endpoint, token = settings.hub_endpoint.rstrip("/"), settings.token
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = get_session().get(f"{endpoint}/api/whoami-v2", headers=headers, timeout=PATIENCE)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:  # OSError: HF_HUB_OFFLINE is set
        advice = "Check the network or `hub_endpoint`; `sluice demo` and `sluice hub serve` need no network."
        yield Finding(name="Hub", value=f"{endpoint} does not answer ({type(error).__name__})", ok=None, advice=advice)
        yield Finding(name="Hub login", value="not tried" if token else "no token", ok=None)
        return
    hub = answer.status_code in {200, 401, 403}
    advice = "Check `hub_endpoint`."
    yield Finding(name="Hub", value=endpoint if hub else f"{endpoint} answers {answer.status_code}", ok=hub, advice=_if(not hub, advice))
    if token is None:
        advice = "To publish, set SLUICE_HUB_TOKEN to a token with write permission, or log in by `hf auth login`."
        yield Finding(name="Hub login", value="no token; public repos can be read", ok=None, advice=advice)
    elif answer.status_code == 200:
        account = answer.json()
        role = ((account.get("auth") or {}).get("accessToken") or {}).get("role", "unknown")
        advice = "This token cannot publish; make one with write permission."
        yield Finding(name="Hub login", value=f"{account.get('name', '?')}, role {role}", ok=role != "read", advice=_if(role == "read", advice))
    else:
        yield Finding(
            name="Hub login", value="the Hub does not accept the token", ok=False, advice="Make a new token with write permission and set SLUICE_HUB_TOKEN."
        )
