"""Blocks of code of a card, and running them as they are printed: in a shell, in a folder of their own, with a Hub that stands for the public one."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from engines import toolchain

PROGRAM = 300.0  # seconds
SERVED = 120.0  # seconds until a server answers
LLAMA = ("--ctx-size", "512", "--threads", "1")
_BLOCK = re.compile(r"^([^\n]*)\n\n?```(sh|python)\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Printed:
    """A block of code of a card, with the line before it."""

    before: str
    language: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text.replace("\\\n", " "))


def printed(text: str) -> list[Printed]:
    found = [Printed(*block) for block in _BLOCK.findall(text)]
    assert len(found) == len(re.findall(r"```(?:sh|python)", text)), "a block that is not found is not run"
    return found


@dataclass(frozen=True)
class Place:
    """Where commands are run: a folder of their own, and the Hub that has the repos."""

    folder: Path
    hub: str
    before: str = ""  # what is run in the same shell before: it tells of the Hub then, else the environment takes the place of the public one

    @property
    def environment(self) -> Mapping[str, str]:
        where = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "LLAMA_CACHE": str(self.folder / "llama")}
        where |= {} if self.before else {"HF_ENDPOINT": self.hub}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
        return {"PATH": f"{Path(sys.executable).parent}:{toolchain.tool('llama-cli').parent}:{os.environ['PATH']}", **where, **quiet}

    def shell(self, text: str, *more: str) -> list[str]:
        """That text as a shell reads it, with more options behind it."""
        return ["sh", "-c", f"{self.before}\nexec {text} {shlex.join(more)}"]

    def run(self, text: str, *more: str) -> str:
        done = subprocess.run(
            self.shell(text, *more),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PROGRAM,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{text} {shlex.join(more)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    @property
    def fetched(self) -> set[str]:
        """Names of the GGUF files that llama.cpp has in its cache."""
        return {path.name for root in (self.folder / "llama", self.folder / "hf") for path in root.rglob("*.gguf")}

    @contextmanager
    def serving(self, text: str, *more: str) -> Iterator[httpx.Client]:
        """Asks the llama-server that this command starts."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = self.shell(text, *more, *LLAMA, "--host", "127.0.0.1", "--port", str(port), "--parallel", "1", "--no-warmup")
        with (
            (self.folder / "log").open("wb") as log,
            subprocess.Popen(command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
        ):
            try:
                deadline = time.monotonic() + SERVED
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
                    while time.monotonic() < deadline and process.poll() is None:
                        with suppress(httpx.TransportError):
                            if client.get("/health").status_code == httpx.codes.OK:
                                break
                        time.sleep(0.1)
                    assert process.poll() is None, (self.folder / "log").read_text(errors="replace")[-2000:]
                    yield client
            finally:
                process.kill()
