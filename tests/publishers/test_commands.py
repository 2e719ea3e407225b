"""Every command that a card prints is run as it stands there, or resolved by the rules of the program; one that is neither says so on the card."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi

from builders import bnb
from config.words import Kind
from engines import toolchain, tools
from publishers import card as cards
from publishers.card import Card, Row
from publishers.readme import render
from tests import releases
from tests.publishers.conftest import MEASURED, PASSED, MakeCard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REPO = "acme/tiny-chat-GGUF"
UNTRIED = "not run here"
PROGRAM = 300.0  # seconds
SERVED = 120.0  # seconds until a server answers
LLAMA = ("--ctx-size", "512", "--threads", "1")
OLLAMA = {"User-Agent": "ollama/0.20.0 (amd64 linux) Go/go1.24", "Accept": "application/vnd.docker.distribution.manifest.v2+json"}
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
    return [Printed(*found) for found in _BLOCK.findall(text)]


@dataclass(frozen=True)
class Place:
    """Where commands are run: a folder of their own, and the Hub that has the repo."""

    folder: Path
    hub: str

    @cached_property
    def environment(self) -> Mapping[str, str]:
        where = {"HOME": str(self.folder), "HF_HOME": str(self.folder / "hf"), "HF_ENDPOINT": self.hub, "LLAMA_CACHE": str(self.folder / "llama")}
        quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
        return {"PATH": f"{Path(sys.executable).parent}:{toolchain.tool('llama-cli').parent}:{os.environ['PATH']}", **where, **quiet}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=PROGRAM, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    @property
    def fetched(self) -> set[str]:
        """Names of the GGUF files that llama.cpp has in its cache."""
        return {path.name for root in (self.folder / "llama", self.folder / "hf") for path in root.rglob("*.gguf")}


def served(place: Place, words: list[str], row: Row) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*words, *LLAMA, "--host", "127.0.0.1", "--port", str(port), "--parallel", "1", "--no-warmup"]
    with (
        (place.folder / "log").open("wb") as log,
        subprocess.Popen(command, env=place.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + SERVED
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                while time.monotonic() < deadline and process.poll() is None:
                    with suppress(httpx.TransportError):
                        if client.get("/health").status_code == httpx.codes.OK:
                            break
                    time.sleep(0.1)
                assert process.poll() is None, (place.folder / "log").read_text(errors="replace")[-2000:]
                props = client.get("/props").json()
                assert Path(props["model_path"]).name == row.file.rpartition("/")[2]
                if "--temp" in words:
                    assert props["default_generation_settings"]["params"]["temperature"] == pytest.approx(0.6)
        finally:
            process.kill()


def talked(place: Place, words: list[str], row: Row) -> None:
    place.run(*words, *LLAMA, "--single-turn", "--prompt", "Hello!", "--predict", "4")
    assert row.file.rpartition("/")[2] in place.fetched
    assert all(name.startswith(row.file.rpartition("/")[2].partition("-00001")[0]) for name in place.fetched), "and no other variant's"


def downloaded(place: Place, words: list[str], row: Row) -> None:
    place.run(*words)
    assert (place.folder / row.file).is_file()


def merged(place: Place, words: list[str], row: Row) -> None:
    place.run("hf", "download", REPO, "--include", f"{row.file.rpartition('/')[0]}/*", "--local-dir", ".")
    place.run(*words)
    assert (place.folder / words[-1]).stat().st_size > (place.folder / row.file).stat().st_size


def resolved(place: Place, words: list[str], row: Row) -> None:
    """Ollama is no package of any registry here: its first request is made, as its client makes it."""
    name, _, tag = words[-1].removeprefix("hf.co/").partition(":")
    assert (words[:2], name) == (["ollama", "run"], REPO)
    found = httpx.get(f"{place.hub}/v2/{name}/manifests/{tag}", headers=OLLAMA)
    assert found.status_code == httpx.codes.OK, found.text
    (layer,) = [layer for layer in found.json()["layers"] if layer["mediaType"].endswith(".model")]
    tree = {entry.path: entry for entry in HfApi(endpoint=place.hub, token=False).list_repo_tree(REPO, recursive=True)}
    assert layer["digest"] == f"sha256:{tree[row.file].lfs.sha256}"


WAYS: Mapping[str, Callable[[Place, list[str], Row], None]] = {
    "llama-server": served, "llama-cli": talked, "hf": downloaded, "llama-gguf-split": merged, "ollama": resolved,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as GGUF files, one of them in parts."""
    folder = tmp_path_factory.mktemp("files")
    model, whole = releases.clean(folder / "model"), folder / "tiny-chat-BF16.gguf"
    tools.convert(model, "--outtype", "bf16", "--outfile", whole)
    for tag in ("F16", "Q4_K_M"):
        tools.run("llama-quantize", whole, folder / f"tiny-chat-{tag}.gguf", tag, "1")
    (folder / "Q8_0").mkdir()
    tools.run("llama-quantize", whole, folder / "Q8_0.gguf", "Q8_0", "1")
    tools.run("llama-gguf-split", "--split", "--split-max-tensors", "16", folder / "Q8_0.gguf", folder / "Q8_0" / "tiny-chat-Q8_0")
    (folder / "Q8_0.gguf").unlink()
    return folder


@pytest.fixture
def place(api: HfApi, endpoint: str, files: Path, tmp_path: Path) -> Place:
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=files, allow_patterns=["*.gguf", "Q8_0/*.gguf"])
    return Place(folder=tmp_path, hub=endpoint)


@pytest.fixture
def rows(files: Path) -> dict[str, Row]:
    found = {}
    for tag, path in {"BF16": "tiny-chat-BF16.gguf", "F16": "tiny-chat-F16.gguf", "Q4_K_M": "tiny-chat-Q4_K_M.gguf"}.items():
        found[tag] = Row(tag=tag, file=path, bytes=(files / path).stat().st_size, bpw=None, measurements=MEASURED, verdict=replace(PASSED, tag=tag))
    parts = sorted(path.relative_to(files).as_posix() for path in (files / "Q8_0").iterdir())
    size = sum((files / path).stat().st_size for path in parts)
    split = Row(tag="Q8_0", file=parts[0], bytes=size, bpw=None, measurements=MEASURED, verdict=replace(PASSED, tag="Q8_0"), files=len(parts))
    return found | {"Q8_0": split}


def shown(card: Card) -> Iterator[Printed]:
    """The blocks of a card that claim to work; each of the others says that nobody has looked."""
    for block in printed(render(card)):
        program = "python" if block.language == "python" else block.words[0]
        if program in {*WAYS, "python"}:
            yield block
        else:
            assert UNTRIED in block.before, f"the card promises `{block.text}`, which is neither run nor resolved here"


@pytest.mark.parametrize("tag", ["Q4_K_M", "F16", "Q8_0"])
def test_the_commands_for_gguf_files_fetch_and_run_the_file_that_is_meant(tag: str, place: Place, rows: dict[str, Row], make_card: MakeCard) -> None:
    """Each by the tag where that fetches it, F16 by its file's name, and one in parts."""
    card = make_card(kind=Kind.GGUF, repo=REPO, rows=tuple(rows.values()), recommend=tag, samplers=("top_k", "top_p", "temperature"))
    asked = set()
    for number, block in enumerate(shown(card)):
        own = replace(place, folder=place.folder / str(number))
        own.folder.mkdir()
        WAYS[block.words[0]](own, block.words, rows[tag])
        asked.add(block.words[0])
    assert asked == {"llama-server", "llama-cli", "hf", "llama-gguf-split" if tag == "Q8_0" else "ollama"}


@pytest.mark.parametrize("kind", [Kind.SIXTEEN_BIT, Kind.BNB_4BIT])
def test_the_program_for_transformers_answers(kind: Kind, api: HfApi, endpoint: str, tmp_path: Path, make_card: MakeCard) -> None:
    repo, model = "acme/tiny-chat", releases.clean(tmp_path / "model")
    api.create_repo(repo)
    if kind is Kind.BNB_4BIT:
        (tmp_path / "nf4").mkdir()
        bnb.quantize(tmp_path / "nf4", model=model, threads=1)
        model = tmp_path / "nf4"
    api.upload_folder(repo_id=repo, folder_path=model)
    place = Place(folder=tmp_path / "place", hub=endpoint)
    place.folder.mkdir()
    answer, download = shown(make_card(kind=kind, repo=repo))
    assert place.run(sys.executable, "-W", "ignore", "-c", answer.text).strip()
    place.run(*download.words)
    assert (place.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_the_options_that_cards_name_in_their_text_are_llama_cpp_s() -> None:
    templates = Path(cards.__file__).with_name("templates").glob("*.j2")
    said = [words for path in templates for words in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", path.read_text(encoding="utf-8"))]
    named = {option for words in said if words.startswith(("llama-server", "llama-cli", "-")) for option in _options(words)}
    named -= {"--quick"}  # of `sluice release`
    assert {"--chat-template-file", "--mmproj", "-hf", "-hff"} <= named
    for name in ("llama-server", "llama-cli"):
        done = subprocess.run([toolchain.tool(name), "--help"], capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
        assert named <= {*_options(done.stdout)}, name


def _options(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--?[a-z][a-z-]+", text)
