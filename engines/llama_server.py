"""Runs llama-server for its own chat template engine and tokenizer: what llama.cpp's users get, which its C interface does not offer."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from config.errors import MeasurementError, TemplateRefusal, ToolError
from engines import orphans, toolchain, tools
from engines.llama import Vocabulary
from engines.model import Message
from engines.spoken import Voice, plain

SOCKET = "llama.sock"
START_TIMEOUT = 600.0  # seconds to load the model
REQUEST_TIMEOUT = 60.0  # seconds for one answer
POLL = 0.02  # seconds between two looks at whether it is ready
KILL_AFTER = 5.0  # seconds it may take to end when asked to
LAST_LINES = 12  # of its log, shown in an error


@contextmanager
def serve(gguf: Path, *, threads: int, template: Path | None = None, projector: Path | None = None) -> Iterator["LlamaServer"]:
    """A llama-server with the model `gguf` while the block runs; it is always gone afterwards. `template` goes before the embedded one, and a `projector` reads
    images.

    It listens on a Unix socket in a private temporary folder, so that no other user or program can reach it and no port can be taken.
    Raises ToolError with the last lines of its log when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder:
        log = Path(folder) / "log"
        command: list[str | Path] = [toolchain.tool("llama-server"), "--model", gguf.absolute(), "--host", SOCKET, "--threads", str(threads)]
        command += ["--jinja", "--no-prefill-assistant", "--ctx-size", "256", "--parallel", "1", "--no-warmup", "--offline"]
        command += [] if template is None else ["--chat-template-file", template.absolute()]
        command += [] if projector is None else ["--mmproj", projector.absolute()]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command,
                cwd=folder,
                env=tools.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=orphans.prevented(),  # noqa: PLW1509 (it only calls the kernel)
            ) as process,
        ):
            try:
                with _address(Path(folder)) as address, _client(address) as client:
                    _wait_until_ready(process, address, client, log)
                    yield LlamaServer(client=client, gguf=gguf, log=log)
            finally:
                _end(process)


@contextmanager
def speaking(vocabulary: Vocabulary, *, threads: int) -> Iterator[Voice]:
    """How the model of a GGUF file writes and reads conversations, while the block runs. Raises ToolError."""
    bos = vocabulary.bos if vocabulary.adds_bos else None
    written = vocabulary.piece(bos)
    render = plain
    with ExitStack() as stack:
        if vocabulary.chat_template is not None:
            server = stack.enter_context(serve(vocabulary.path, threads=threads))
            render = lambda messages: server.apply_template(messages).removeprefix(written)  # noqa: E731 (one of two renderers)
        yield Voice(render=render, encode=lambda text: vocabulary.tokenize(text, add_special=False), bos=bos, special=vocabulary.control)


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A short name of the socket: a socket's path has at most 107 bytes, and a temporary folder's name may be longer."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _client(address: str) -> httpx.Client:
    # verify=False: there is no TLS on this socket, and loading certificates takes longer than a small model
    return httpx.Client(transport=httpx.HTTPTransport(uds=address, verify=False), base_url="http://llama-server", timeout=REQUEST_TIMEOUT)


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str, client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ToolError(f"llama-server ended with code {process.returncode} before it was ready. Its last lines: {_tail(log)}")
        with suppress(httpx.TransportError):  # it ends while it is asked
            if _listens(address) and client.get("/health").status_code == httpx.codes.OK:
                return
        time.sleep(POLL)
    raise ToolError(f"llama-server was not ready after {START_TIMEOUT:.0f} seconds. Its last lines: {_tail(log)}")


def _listens(address: str) -> bool:
    """Asked before httpx is, which forgets to close a socket that does not connect."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


@dataclass(frozen=True, kw_only=True)
class LlamaServer:
    """A running llama-server."""

    client: httpx.Client
    gguf: Path
    log: Path

    def apply_template(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tools: Sequence[Message] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text in the model's embedded template, rendered by llama.cpp's own engine.

        llama.cpp leaves out a BOS that the template writes at the beginning when its tokenizer adds one. `variables` are told to the template, and
        `continue_final_message` leaves the last message open. Raises TemplateRefusal when it refuses, MeasurementError when it stopped answering.
        """
        # llama.cpp leaves the variable undefined unless it is true, and some templates write a prompt for the answer when it is undefined
        settings = ({} if add_generation_prompt else {"add_generation_prompt": False}) | dict(variables or {})
        request: dict[str, Any] = {"messages": [dict(message) for message in messages], "add_generation_prompt": add_generation_prompt}
        request |= {"continue_final_message": True} if continue_final_message else {}
        request |= {} if tools is None else {"tools": [dict(tool) for tool in tools]}
        request |= {"chat_template_kwargs": settings} if settings else {}
        return str(self._post("/apply-template", request, refusal=TemplateRefusal)["prompt"])

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; see `engines.model.Model`."""
        return [int(token) for token in self._post("/tokenize", {"content": text, "add_special": add_special, "parse_special": parse_special})["tokens"]]

    def _post(self, path: str, request: dict[str, Any], refusal: type[MeasurementError] = MeasurementError) -> dict[str, Any]:
        try:
            response = self.client.post(path, json=request)
        except httpx.TransportError as error:
            raise MeasurementError(f"llama-server with {self.gguf} stopped answering ({error}) at {path}. Its last lines: {_tail(self.log)}") from error
        if response.status_code != httpx.codes.OK:
            raise refusal(f"llama-server with {self.gguf} refused {path}: {response.text[:500]}")
        answer: dict[str, Any] = response.json()
        return answer
