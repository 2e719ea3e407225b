"""llama.cpp's own programs, as people start them: `llama-server -hf REPO:TAG` and `llama-cli`, which fetch the file from a Hub by themselves."""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from engines import orphans, toolchain
from engines.model import log_softmax
from qa.readers import compared, running
from qa.readers.words import GGUF, Broken, Outcome, Reader, Reading, Reference, Refusal, Result, Variant

START = 120.0  # seconds until a server answers
POLL = 0.05  # seconds


def ask(variant: Variant, reference: Callable[[], Reference]) -> Outcome:
    """By its tag where that fetches this file, by its name where it does not; the last token's distribution, and a greedy answer, come from the server."""
    wanted, known = variant.path.name, reference()
    with tempfile.TemporaryDirectory(prefix="sluice-reader-") as made:
        by_tag, way = True, ["-hf", f"{variant.repo}:{variant.tag}"]
        with _serving(variant, way, Path(made) / "tag") as client:
            fetched = Path(client.get("/props").json()["model_path"]).name
            found = _reading(client, known) if fetched == wanted else None
        if found is None:
            by_tag, way = False, ["-hf", variant.repo, "-hff", variant.path.relative_to(variant.folder).as_posix()]
            with _serving(variant, way, Path(made) / "name") as client:
                found = _reading(client, known)
        chatted = _chatted(variant, way, Path(made) / "chat")
    if wanted not in chatted or not chatted <= {file.name for file in variant.files}:
        return Outcome(result=Result.OTHER, words=f"llama-cli fetches {', '.join(sorted(chatted)) or 'nothing'}, llama-server {wanted}")
    outcome = compared.judge(known, found)
    told = "by tag" if by_tag else f"by name only: the tag fetches {fetched}"
    return Outcome(result=outcome.result, words=f"{outcome.words}; {told}")


def _reading(client: httpx.Client, known: Reference) -> Reading:
    ids = _post(client, "/tokenize", content=running.TEXT, add_special=True, parse_special=True)["tokens"]
    size = known.logprobs.shape[1]
    asked = {"prompt": list(known.tokens), "temperature": 0.0, "cache_prompt": False, "return_tokens": True}
    first = _post(client, "/completion", n_predict=1, n_probs=size, **asked)["completion_probabilities"][0]["top_logprobs"]
    row = np.full((1, size), -1e4, dtype=np.float32)
    for item in first:
        if item["logprob"] is not None:
            row[0, item["id"]] = item["logprob"]
    answer = _post(client, "/completion", n_predict=running.MOST, **asked)["tokens"]
    return Reading(ids=tuple(ids), logprobs=log_softmax(row).astype(np.float32), answer=tuple(answer))


def _chatted(variant: Variant, way: list[str], cache: Path) -> set[str]:
    """The names of the files that llama-cli fetches in the same way to answer a question."""
    cache.mkdir()
    options = ["--single-turn", "--prompt", "Hello!", "--predict", "4", "--ctx-size", "512", "--threads", "1", "--no-mmproj"]
    command = [str(toolchain.tool("llama-cli")), *way, *options]
    with (cache / "log").open("wb") as log:
        try:
            ended = subprocess.run(
                command,
                env=_place(variant, cache),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=START,
                check=False,
                preexec_fn=orphans.prevented(),
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"llama-cli did not answer in {START:.0f} seconds") from error
    if ended.returncode:
        raise Broken(f"llama-cli ended with exit code {ended.returncode}: {running.last(cache / 'log')}")
    return {path.name for path in cache.rglob("*.gguf")}


def _place(variant: Variant, cache: Path) -> dict[str, str]:
    """The variables by which llama.cpp asks this Hub, and keeps what it fetches here."""
    place = orphans.marked() | {name: os.environ[name] for name in running.PASSED if name in os.environ}
    return place | {"HOME": str(cache), "HF_ENDPOINT": str(variant.hub), "LLAMA_CACHE": str(cache), "HF_HUB_CACHE": str(cache)}


def _post(client: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
    answer = client.post(path, json=request)
    if answer.status_code != httpx.codes.OK:
        raise Refusal(answer.text[: running.SHOWN])
    found: dict[str, Any] = json.loads(answer.text)
    return found


@contextmanager
def _serving(variant: Variant, way: list[str], cache: Path) -> Iterator[httpx.Client]:
    cache.mkdir()
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--ctx-size", "512", "--parallel", "1", "--threads", "1", "--no-warmup", "--no-mmproj"]
    with (
        (cache / "log").open("wb") as log,
        subprocess.Popen(
            [toolchain.tool("llama-server"), *way, *options],
            env=_place(variant, cache),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=orphans.prevented(),  # noqa: PLW1509 (it only calls the kernel)
        ) as process,
    ):
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=running.DEADLINE, trust_env=False) as client:
                _wait(process, client, cache / "log")
                yield client
        finally:
            process.kill()


def _wait(process: "subprocess.Popen[bytes]", client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Refusal(running.last(log))
        with suppress(httpx.TransportError):
            if client.get("/health").status_code == httpx.codes.OK:
                return
        time.sleep(POLL)
    raise Broken(f"llama-server did not answer in {START:.0f} seconds: {running.last(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


READER = Reader(name="llama.cpp -hf", version=lambda: toolchain.VERSION, forms=frozenset({GGUF}), missing=lambda: None, ask=ask, needs_hub=True)
