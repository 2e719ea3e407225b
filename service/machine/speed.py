"""How fast this machine is, measured in a few seconds and then kept for a day: the rates of which the costs of stages are reckoned.

Rates are of one thread and of processor time, so that other programs do not count; `service.machine.probe` says how each is measured.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import field
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from config.errors import ToolError
from config.settings import Settings
from engines import orphans, toolchain

FILE = "machine.json"
KEPT = 24 * 3600.0  # seconds
PATIENCE = 600.0  # seconds that measuring may take on a machine that is busy with other things
PROBE = 4  # raise when what is measured changes
LIBRARIES = ("torch", "transformers", "numpy", "gguf", "bitsandbytes")
PASSED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SLUICE_LLAMA_CPP")
LAST = 400  # characters of the last line that a failed probe said

QUANTIZING = {
    "IQ1_S": 4.8e6, "IQ1_M": 5.4e6, "IQ2_XXS": 2.4e6, "IQ2_XS": 1.3e6, "IQ2_S": 3.7e6, "Q2_K": 6.7e6, "IQ3_XXS": 2.0e6, "IQ3_S": 2.8e6, "Q3_K": 2.3e7,
    "IQ4_XS": 3.9e6, "IQ4_NL": 4.0e6, "Q4_0": 3.1e7, "Q4_K": 7.8e6, "Q4_1": 7.9e6, "Q5_0": 3.1e7, "Q5_K": 7.7e6, "Q5_1": 8.1e6, "Q6_K": 2.9e7, "Q8_0": 1.8e8,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The card that passes over calibration text use where there is one."""

    memory: int  # bytes that are free
    operations: float  # a second, of products in TF32
    bandwidth: float  # bytes a second in its memory
    bus: float  # bytes a second from the host's memory


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Rates of this machine, of one thread each but `shared`, of which stages' times are computed. What is not given is as a server of 2023 has it."""

    threads: int  # that a stage uses
    python: float = 0.25  # seconds to start a process that runs llama.cpp
    torch: float = 4.5  # seconds more to import torch and transformers
    narrow: float = 5.2e10  # operations a second in transformers, float32, in a model of `probe.WIDTHS["narrow"]` hidden units
    wide: float = 9.2e10  # and of `probe.WIDTHS["wide"]`
    call: float = 8e-4  # seconds of one layer in transformers beyond its products
    memory: float = 1.1e10  # bytes a second of weights that one token passes
    shared: float = 4.4e10  # the same, of all threads together
    llama_narrow: float = 6.7e10  # as `narrow`, in llama.cpp, bfloat16
    llama_wide: float = 9.8e10  # as `wide`, in llama.cpp, bfloat16
    decode: float = 1.5e-4  # seconds of one layer in llama.cpp for one token
    quantized: float = 1.5  # times those rates, in 4 bits
    quantizing: Mapping[str, float] = field(default_factory=lambda: dict(QUANTIZING))  # values a second to a type and back
    tables: float = 0.6  # seconds that the tables of a type with a codebook take
    rounding: float = 2.5e6  # values a second whose codes are chosen anew, see `probe.quantizers`
    entry: float = 2.3e-5  # seconds that gguf's reader takes for an entry of a vocabulary: the pace of plain Python
    disk: float = 5e8  # bytes a second
    ram: int | None = None  # bytes of the host's memory; None: of the machine that asks
    gpu: Gpu | None = None


NAMED: Mapping[str, "Speed"] = {
    "16 cores, 64 GB": Speed(threads=16, ram=64 * 10**9),
    "64 cores, 1 TB": Speed(threads=64, ram=10**12),
    "RTX 4090": Speed(threads=16, ram=128 * 10**9, gpu=Gpu(memory=24 * 10**9, operations=6e13, bandwidth=9e11, bus=2.2e10)),
    "H200": Speed(threads=32, ram=10**12, gpu=Gpu(memory=141 * 10**9, operations=3.7e14, bandwidth=4.3e12, bus=4.5e10)),
}
"""Machines that estimates are made for. Rates of threads are those of a server of 2023, of which bfloat16 was measured; of cards three quarters of what their
data sheets give for TF32, and nine tenths of their bandwidth: nobody has measured them."""


def speed(settings: Settings, *, folder: Path | None = None) -> Speed:
    """The speed of this machine with the settings' threads, measured at most once a day for the same processor and libraries. Raises ToolError.

    It is kept in `folder`, by default where llama.cpp is: it belongs to the machine, not to one of the homes on it.
    """
    path, machine = (folder or toolchain.cache_root()) / FILE, _machine(settings.threads)
    if (known := _kept(path, machine)) is not None:
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    settings.folder.mkdir(parents=True, exist_ok=True)
    found = measure(settings.threads, folder=settings.folder)
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(json.dumps({"machine": machine, "measured": time.time(), "speed": TypeAdapter(Speed).dump_python(found)}, indent=1), encoding="utf-8")
    written.replace(path)
    return found


def measure(threads: int, *, seconds: float = 5.0, folder: Path | None = None) -> Speed:
    """Measure for about so many seconds on a quiet machine, the import of torch not counted; `folder` is on the disk that is measured. Raises ToolError."""
    where = folder or Path.cwd()
    environment = orphans.marked() | {name: os.environ[name] for name in PASSED if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(where), "TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "SLUICE_CACHE": str(toolchain.cache_root())}
    command = [sys.executable, "-m", "service.machine.probe", str(where), str(seconds), str(threads)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            preexec_fn=orphans.prevented(),
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"This machine was so busy that its speed could not be measured in {PATIENCE / 60:.0f} minutes. Try again later.") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"the probe ended with {done.returncode}"])[-1]
        raise ToolError(f"The speed of this machine cannot be measured: {last[-LAST:]} Look at `sluice doctor`, which shows what is missing.")
    return _read({"threads": threads, **json.loads(done.stdout.splitlines()[-1])})


def _read(content: Mapping[str, Any]) -> Speed:
    return TypeAdapter(Speed).validate_python(content)


def _kept(path: Path, machine: Mapping[str, Any]) -> Speed | None:
    """What was measured on the same machine less than a day ago; None when there is nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fresh = content["machine"] == machine and 0 <= time.time() - content["measured"] < KEPT
        return _read(content["speed"]) if fresh else None
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def _machine(threads: int) -> dict[str, Any]:
    """What a measurement holds for."""
    versions = {library: metadata.version(library) for library in LIBRARIES}
    return {"probe": PROBE, "processor": _processor(), "threads": threads, "python": sys.version.split()[0], "llama.cpp": str(toolchain.location()), **versions}


def _processor() -> str:
    """The model of the first processor, as the kernel names it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"
