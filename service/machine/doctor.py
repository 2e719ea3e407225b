"""Looks at this machine and says what Sluice has, what it lacks, and what to do about it. Changes nothing and prints no secret.

Whatever is broken, the rest is looked at: libraries are imported where they are used.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from config.errors import SluiceError
from engines import go_template, toolchain, tools
from service.machine import basics
from service.machine.basics import Finding
from service.machine.folders import existing

if TYPE_CHECKING:
    from config.settings import Settings

DISK_NEEDED = 5 * 2**30  # bytes; the demo takes far less, a real release takes several times its 16-bit weights
MEMORY_NEEDED = 4 * 2**30  # bytes
PATIENCE = 5.0  # seconds for an answer of the network
GIB = 2**30
BUILD = "Run `make setup`, which builds llama.cpp once for all clones; that takes about ten minutes."


def examine(read: "Callable[[], Settings]") -> list[Finding]:
    """Everything worth knowing about this installation, most basic first, under the settings that `read` returns. Takes some seconds; raises nothing."""
    settings: list[Settings] = []
    findings = [
        *looked("Python", basics.python),
        *looked("llama.cpp", _llama_cpp),
        *looked("Go", _go),
        *looked("settings", lambda: _configuration(read, settings)),
    ]
    if not settings:
        return [*findings, *looked("GPU", _gpu)]
    given = settings[0]
    return [
        *findings,
        *looked("disk and memory", lambda: _machine(given)),
        *looked("GPU", _gpu),
        *looked("database", lambda: [_database(given)]),
        *looked("Hub", lambda: _hub(given)),
    ]


def looked(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What was found, up to where looking itself failed, which is a finding as well."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except Exception as error:  # noqa: BLE001 (in a broken installation anything may be raised, and the rest is still to be looked at)
        advice = "Run `make setup`; if that does not help, remove `.venv` and run it again."
        findings.append(Finding(name=name, value=f"cannot be looked at: {type(error).__name__}: {error}", ok=False, advice=advice))
    return findings


# ---- software ---------------------------------------------------------------------------------------------------------------------------------


def _llama_cpp() -> Iterator[Finding]:
    prefix, override = toolchain.location(), os.environ.get("SLUICE_LLAMA_CPP")
    there = (prefix / "bin").is_dir()
    yield from basics.compiler(needed=not there and not override)
    if not there:
        value = f"SLUICE_LLAMA_CPP names {prefix}, where it is not" if override else "not built yet"
        yield Finding(name="llama.cpp", value=value, ok=False, advice="Correct the variable, or unset it and run `make setup`." if override else BUILD)
        return
    problems = [] if override else toolchain.faults(prefix)
    if not problems and not override and prefix.name != toolchain.key():
        problems = [f"{prefix.name} was built for another processor or with other options than {toolchain.key()}"]
    yield Finding(name="llama.cpp", value="; ".join(problems[:3]) or str(prefix), ok=not problems, advice=BUILD if problems else None)
    try:
        lines = tools.run("llama-server", "--version", timeout=60).splitlines()
        yield Finding(name="llama.cpp version", value=next((line for line in lines if line.startswith("version")), "?"), ok=True)
    except SluiceError as error:
        yield Finding(name="llama.cpp version", value=str(error), ok=False, advice=BUILD)
    missing = [name for name in toolchain.TOOLS if not (prefix / "bin" / name).exists()]
    yield Finding(
        name="llama.cpp tools", value=f"missing: {', '.join(missing)}" if missing else ", ".join(toolchain.TOOLS), ok=not missing, advice=_if(missing, BUILD)
    )
    try:
        tools.convert("--help", timeout=120)
        yield Finding(name="converter", value=f"{toolchain.converter().name} runs", ok=True)
    except SluiceError as error:
        yield Finding(name="converter", value=str(error), ok=False, advice=BUILD)


def _go() -> Iterator[Finding]:
    version = go_template.version()
    missing = "not installed; templates for Ollama are published as derived, and cards say that Go has not verified them"
    yield Finding(name="Go", value=missing if version is None else f"{version}, which verifies templates for Ollama", ok=None if version is None else True)


def _if(condition: object, advice: str) -> str | None:
    return advice if condition else None


# ---- machine ----------------------------------------------------------------------------------------------------------------------------------


def _machine(settings: "Settings") -> Iterator[Finding]:
    import psutil

    for name, folder, variable in (("disk at home", settings.folder, "SLUICE_HOME"), ("disk at cache", toolchain.cache_root(), "SLUICE_CACHE")):
        free = shutil.disk_usage(existing(folder)).free
        enough, refusal = free >= DISK_NEEDED, _refusal(folder)
        advice = None if enough else f"Free some space, at least {DISK_NEEDED // GIB} GiB, or name another folder by {variable}."
        if refusal is not None:
            advice = f"Set {variable} to a folder that can be written to, or give yourself the right to write there."
        value = f"{free / GIB:.1f} GiB free for {folder}" + (f", but nothing can be written there: {refusal}" if refusal else "")
        yield Finding(name=name, value=value, ok=enough and refusal is None, advice=advice)
    memory = psutil.virtual_memory()
    enough = memory.total >= MEMORY_NEEDED
    advice = None if enough else f"Use a machine with at least {MEMORY_NEEDED // GIB} GiB; a release needs about the size of its 16-bit weights."
    yield Finding(name="memory", value=f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available", ok=enough, advice=advice)
    count = len(os.sched_getaffinity(0))
    fits = settings.threads <= count
    advice = None if fits else f"Set `threads` to {count} at most: more threads than processors are slower."
    yield Finding(name="processors", value=f"{count}, of which a stage uses {settings.threads}", ok=fits, advice=advice)


def _refusal(folder: Path) -> str | None:
    """Why nothing can be written in a folder, or made where it is to be; None when it can. What is tried leaves nothing behind."""
    place = existing(folder)
    if not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _gpu() -> Iterator[Finding]:
    cards = _cards()
    if not cards:
        yield Finding(name="GPU", value="none found; everything runs on the processors", ok=None)
        return
    import torch

    if torch.cuda.is_available():
        yield Finding(name="GPU", value=f"{cards}; torch uses CUDA {torch.version.cuda}", ok=True)
        return
    advice = "To use it: install a CUDA build of torch, and llama.cpp by `SLUICE_CUDA=1 make setup`."
    yield Finding(name="GPU", value=f"{cards}; this build of torch cannot use it", ok=None, advice=advice)


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


def _configuration(read: "Callable[[], Settings]", found: "list[Settings]") -> Iterator[Finding]:
    """Read the settings, and put them into `found`; those by default where they are wrong, so that the rest can be looked at."""
    from config.settings import Settings

    try:
        settings = read()
    except SluiceError as error:
        yield Finding(name="settings", value=str(error), ok=False, advice="Correct that; what follows is for the settings by default.")
        with suppress(ValueError):  # what the environment says of them may be wrong as well
            found.append(Settings())
        return
    found.append(settings)
    file = type(settings).model_config.get("yaml_file")
    yield Finding(name="settings", value=f"{file} and the environment" if file else "defaults and the environment; no sluice.yaml here", ok=True)


def _database(settings: "Settings") -> Finding:
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


def _hub(settings: "Settings") -> Iterator[Finding]:
    """Whether the Hub answers, and as whom it knows the token. The token goes into the request's header and nowhere else."""
    import httpx2
    from huggingface_hub import get_session

    endpoint, token = settings.hub_endpoint.rstrip("/"), settings.token
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = get_session().get(f"{endpoint}/api/whoami-v2", headers=headers, timeout=PATIENCE)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, SluiceError) as error:  # OSError where HF_HUB_OFFLINE is set, SluiceError of a patient client
        cause = error.__cause__ if isinstance(error, SluiceError) else error
        advice = "Check the network or `hub_endpoint`; `sluice demo` and `sluice hub serve` need no network."
        yield Finding(name="Hub", value=f"{endpoint} does not answer ({type(cause).__name__})", ok=None, advice=advice)
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
