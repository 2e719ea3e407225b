"""Files that are larger than a Hub takes: published in parts, which llama.cpp itself finds by their tag on the embedded Hub."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engines import toolchain
from tests.acceptance.conftest import NAMESPACE, UPSTREAM, Hub, Made, free_port, saved, sluice, small, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TARGET = f"{NAMESPACE}/tiny-chat-GGUF"
LIMIT = 3_000_000


@contextmanager
def fetched(hub: Hub, tag: str, cache: Path) -> Iterator[str]:
    """The address of llama-server, which fetched the files of that tag by itself."""
    port = free_port()
    command = [toolchain.tool("llama-server"), "-hf", f"{TARGET}:{tag}", "--host", "127.0.0.1", "--port", str(port), "-c", "256", "-t", "1"]
    place = {"PATH": os.environ["PATH"], "HOME": str(cache), "HF_ENDPOINT": hub.url, "LLAMA_CACHE": str(cache), "HF_HUB_CACHE": str(cache)}
    with (cache / f"{tag}.log").open("wb") as log, subprocess.Popen(command, env=place, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: process.poll() is not None or _healthy(port), seconds=60, what="llama-server")
            assert process.poll() is None, (cache / f"{tag}.log").read_text(errors="replace")[-2000:]
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_file_above_the_limit_is_published_in_parts_that_llama_cpp_finds_by_its_tag(hub: Hub, made: Made, tmp_path: Path) -> None:
    recipe = small()
    recipe["variants"]["gguf"] = ["Q8_0", "Q4_K_M"]
    settings = hub.environment(made(tmp_path / "home"), SLUICE_LARGEST_FILE=str(LIMIT))
    done = sluice("run", UPSTREAM, "--recipe", saved(tmp_path, recipe), "--json", **settings)
    assert done.returncode == 0, done.stderr
    sizes = {file.path: file.size for file in hub.publisher.list_repo_tree(TARGET, recursive=True) if hasattr(file, "size")}
    parts = [f"Q8_0/tiny-chat-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert {path for path in sizes if path.endswith(".gguf")} == {*parts, "tiny-chat-Q4_K_M.gguf", "imatrix.gguf"}
    assert max(sizes.values()) <= LIMIT
    manifest = json.loads(Path(hub.publisher.hf_hub_download(TARGET, "sluice-manifest.json", local_dir=tmp_path / "read")).read_bytes())
    (variant,) = [item for item in manifest["variants"] if item["tag"] == "Q8_0"]
    assert set(variant["files"]) == set(parts)

    card = Path(hub.publisher.hf_hub_download(TARGET, "README.md", local_dir=tmp_path / "read")).read_text()
    assert f"[Q8_0]({parts[0]}) (3 parts)" in card
    assert (
        "- transformers' `gguf_file` (5.23.0) reads the first part of a file in parts and makes up the rest, without an error: use a repo of safetensors.\n"
        in card
    )
    assert "RoPE factors" not in card
    cache = tmp_path / "cache"
    cache.mkdir()
    for tag in ("Q8_0", "Q4_K_M"):
        with fetched(hub, tag, cache) as address:
            answer = httpx.post(
                f"{address}/v1/chat/completions",
                json={"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0},
                timeout=60,
            )
            assert "Paris" in answer.json()["choices"][0]["message"]["content"], tag
            assert Path(httpx.get(f"{address}/props").json()["model_path"]).name == (Path(parts[0]).name if tag == "Q8_0" else "tiny-chat-Q4_K_M.gguf")
