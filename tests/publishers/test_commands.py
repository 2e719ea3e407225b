"""Every command that a card prints is run as it stands there, or resolved by the rules of the program; one that is neither says so on the card."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi
from jinja2 import FileSystemLoader
from jinja2.environment import Environment

from builders import bnb, mmproj
from config.words import Kind
from engines import toolchain, tools
from hub.server import running
from hub.tokens import create_token
from publishers import card as cards
from publishers import naming, readme
from publishers.card import Card, Row
from tests import architectures, releases, seeing
from tests import ggufs as headers
from tests.publishers.conftest import MEASURED, PASSED, MakeCard
from tests.publishers.printed import LLAMA, Place, Printed, printed

REPO, BASE, SEEING = "acme/tiny-chat-GGUF", "acme/tiny-base-GGUF", "acme/tiny-seeing-GGUF"
TEMPLATES = Path(cards.__file__).with_name("templates")
UNTRIED = "not run here"
OLLAMA = {"User-Agent": "ollama/0.20.0 (amd64 linux) Go/go1.24", "Accept": "application/vnd.docker.distribution.manifest.v2+json"}
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def row(tag: str, file: str, files: int = 1) -> Row:
    return Row(tag=tag, file=file, bytes=2_330_000, bpw=None, measurements=MEASURED, verdict=replace(PASSED, tag=tag), files=files)


ROWS = {tag: row(tag, f"tiny-chat-{tag}.gguf") for tag in ("BF16", "F16", "Q4_K_M", "Q4_K_L")} | {
    "Q8_0": row("Q8_0", "Q8_0/tiny-chat-Q8_0-00001-of-00002.gguf", files=2),
}
SEEN = {tag: row(tag, f"tiny-seeing-{tag}.gguf") for tag in ("BF16", "F16", "Q8_0")}
PROJECTORS = tuple(row(f"mmproj-{type}", f"mmproj-{type}.gguf") for type in ("F16", "Q8_0"))
GGUF = {
    **{tag: {"repo": REPO, "rows": tuple(ROWS.values()), "recommend": tag, "samplers": ("top_k", "top_p", "temperature")} for tag in ROWS if tag != "BF16"},
    "on another Hub": {"repo": REPO, "rows": (ROWS["Q4_K_M"],), "hub": "http://127.0.0.1:1"},
    "base model": {"repo": BASE, "rows": (row("BF16", "tiny-base-BF16.gguf"),), "base": True},
    **{f"seeing {tag}": {"repo": SEEING, "rows": tuple(SEEN.values()), "projectors": PROJECTORS, "recommend": tag} for tag in SEEN},
}
"""Variants by the tag where that fetches them, F16 by its file's name, one that the Hub has no tag for, one in parts; and what else changes commands."""
SAFETENSORS = {
    "chat": {"kind": Kind.SIXTEEN_BIT},
    "on another Hub": {"kind": Kind.SIXTEEN_BIT, "hub": "http://127.0.0.1:1"},
    "NF4": {"kind": Kind.BNB_4BIT},
    "dynamic NF4": {"kind": Kind.BNB_4BIT},
    "base model": {"kind": Kind.SIXTEEN_BIT, "base": True},
    "messages in parts": {"kind": Kind.SIXTEEN_BIT, "parts": True},
    "seeing": {"kind": Kind.SIXTEEN_BIT, "sees": True, "parts": True},
    "seeing NF4": {"kind": Kind.BNB_4BIT, "sees": True, "parts": True},
}
PARTS = (
    "{% for m in messages %}{% if m.content is string %}{{ raise_exception('parts alone') }}{% endif %}<|im_start|>{{ m.role }}\n"
    "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
TOGETHER = """
import contextlib, io, json, sys, traceback
said = {}
for name, program in json.loads(sys.argv[1]).items():
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(program, name, "exec"), {"__name__": "__main__"})
        said[name] = printed.getvalue()
    except Exception:
        said[name] = traceback.format_exc() + " FAILED"
print(json.dumps(said))
"""


def gguf_card(case: str, make_card: MakeCard, **changes: object) -> Card:
    return make_card(kind=Kind.GGUF, **(GGUF[case] | changes))


def safetensors_card(case: str, make_card: MakeCard, **changes: object) -> Card:
    return make_card(repo=f"acme/{case.replace(' ', '-')}", **(SAFETENSORS[case] | changes))


def shown(card: Card) -> Iterator[Printed]:
    """The blocks of a card that claim to work; each of the others says that nobody has looked."""
    for block in printed(readme.render(card)):
        program = "python" if block.language == "python" else block.words[0]
        if program in {*WAYS, "python", "export"}:
            yield block
        else:
            assert UNTRIED in block.before, f"the card promises `{block.text}`, which is neither run nor resolved here"


def served(place: Place, block: Printed, card: Card) -> None:
    chosen = pick(card)
    with place.serving(block.text) as client:
        props = client.get("/props").json()
        assert Path(props["model_path"]).name == Path(chosen.file).name
        if "--temp" in block.words:
            assert props["default_generation_settings"]["params"]["temperature"] == pytest.approx(0.6)
        assert props["modalities"]["vision"] is bool(card.projectors)
        if card.base:
            asked = {"prompt": "Once upon a time", "max_tokens": 4}
            assert client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
            chat = client.post("/apply-template", json={"messages": [{"role": "user", "content": "Hello!"}]}).json()["prompt"]
            assert chat.startswith("<|im_start|>"), "the page makes up a chat, as the card says"
    nearest = {f"mmproj-{'Q8_0' if chosen.tag == 'Q8_0' else 'F16'}.gguf"} if card.projectors else set()
    assert {name for name in place.fetched if "mmproj" in name} == nearest
    assert all(f"the projector whose bits are nearest to those of the model's file, here {name};" in readme.render(card) for name in nearest)


def talked(place: Place, block: Printed, card: Card) -> None:
    place.run(block.text, *LLAMA, "--single-turn", "--prompt", "Hello!", "--predict", "4")
    name = Path(pick(card).file).name
    assert name in place.fetched
    assert all(other.startswith((name.partition("-00001")[0], "mmproj")) for other in place.fetched), "and no other variant's"


def downloaded(place: Place, block: Printed, card: Card) -> None:
    place.run(block.text)
    assert (place.folder / pick(card).file).is_file()


def merged(place: Place, block: Printed, card: Card) -> None:
    file = pick(card).file
    place.run(f'hf download {card.repo} --include "{file.rpartition("/")[0]}/*" --local-dir .')
    place.run(block.text)
    assert (place.folder / block.words[-1]).stat().st_size > (place.folder / file).stat().st_size


def resolved(place: Place, block: Printed, card: Card) -> None:
    answered(place, block.text, pick(card))


def answered(place: Place, command: str, row: Row) -> None:
    """Ollama is no package of any registry here: its first request is made, as its client makes it."""
    program, action, named = command.split(" ")
    repo, _, tag = named.removeprefix("hf.co/").partition(":")
    assert (program, action, named[:6]) == ("ollama", "run", "hf.co/")
    found = httpx.get(f"{place.hub}/v2/{repo}/manifests/{tag}", headers=OLLAMA)
    assert found.status_code == httpx.codes.OK, found.text
    (layer,) = [layer for layer in found.json()["layers"] if layer["mediaType"].endswith(".model")]
    tree = {entry.path: entry for entry in HfApi(endpoint=place.hub, token=False).list_repo_tree(repo, recursive=True)}
    assert layer["digest"] == f"sha256:{tree[row.file].lfs.sha256}"


def pick(card: Card) -> Row:
    """The variant that a card's commands are for."""
    return next((row for row in card.rows if row.tag == card.recommend), card.rows[0])


WAYS: Mapping[str, Callable[[Place, Printed, Card], None]] = {
    "llama-server": served, "llama-cli": talked, "hf": downloaded, "llama-gguf-split": merged, "ollama": resolved,
}  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfApi]:
    root = tmp_path_factory.mktemp("hub")
    with running(root) as url:
        yield HfApi(endpoint=url, token=create_token(root, user="sluice", orgs=["acme"]))


def published(api: HfApi, repo: str, folder: Path) -> None:
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=folder)


@pytest.fixture(scope="module")
def ggufs(api: HfApi, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Published: the bundled model as GGUF files, one of them in parts, and without its template; and one that reads images, with projectors."""
    folder = tmp_path_factory.mktemp("ggufs")
    chat, base, seen = folder / "chat", folder / "base", folder / "seen"
    for place in (chat, base, seen, chat / "Q8_0", folder / "eyes"):
        place.mkdir()
    model, whole = releases.clean(folder / "model"), chat / ROWS["BF16"].file
    tools.convert(model, "--outtype", "bf16", "--outfile", whole)
    for tag, type in {"F16": "F16", "Q4_K_M": "Q4_K_M", "Q4_K_L": "Q5_K_M"}.items():
        tools.run("llama-quantize", whole, chat / ROWS[tag].file, type, "1")
    tools.run("llama-quantize", whole, folder / "Q8_0.gguf", "Q8_0", "1")
    tools.run("llama-gguf-split", "--split", "--split-max-tensors", "20", folder / "Q8_0.gguf", chat / ROWS["Q8_0"].file.partition("-00001")[0])
    (chat / naming.UNFORCED_TEMPLATE).write_text("{{ messages[0].content }}: the second template", encoding="utf-8")
    published(api, REPO, chat)

    headers.rewritten(whole, base / "tiny-base-BF16.gguf", without=["tokenizer.chat_template"])
    published(api, BASE, base)

    eyes, whole = architectures.converted(architectures.MODELS["Gemma 3 with vision"], folder / "eyes")
    shutil.move(whole, seen / SEEN["BF16"].file)
    for tag in ("F16", "Q8_0"):
        tools.run("llama-quantize", seen / SEEN["BF16"].file, seen / SEEN[tag].file, tag, "1")
    mmproj.build(seen, model=eyes, name="tiny", types=["F16", "Q8_0"])
    published(api, SEEING, seen)


@pytest.fixture
def place(api: HfApi, ggufs: None, tmp_path: Path) -> Place:
    return Place(folder=tmp_path, hub=api.endpoint)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", GGUF)
def test_the_commands_for_gguf_files_fetch_and_run_the_file_that_is_meant(case: str, place: Place, make_card: MakeCard) -> None:
    card = gguf_card(case, make_card, **({"hub": place.hub} if "hub" in GGUF[case] else {}))
    asked = set()
    for number, block in enumerate(shown(card)):
        program = block.words[0]
        asked.add(program)
        if program == "export":
            place = replace(place, before=block.text)
            continue
        own = replace(place, folder=place.folder / str(number))
        own.folder.mkdir()
        WAYS[program](own, block, card)
    others = {"on another Hub": {"llama-cli", "export"}, "base model": {"ollama"}, "Q8_0": {"llama-cli", "llama-gguf-split"}}
    assert asked == {"llama-server", "hf"} | others.get(case, {"llama-cli", "ollama"})


@pytest.mark.slow
def test_a_file_that_the_hub_has_no_tag_for_is_what_ollama_gets_by_its_name(place: Place, make_card: MakeCard) -> None:
    (command,) = [text for text in _INLINE.findall(readme.render(gguf_card("Q4_K_M", make_card))) if text.startswith("ollama run")]
    answered(place, command.replace("FILE", ROWS["Q4_K_L"].file), ROWS["Q4_K_L"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_options_that_a_card_names_beside_its_commands_do_what_it_says(place: Place, make_card: MakeCard) -> None:
    card = gguf_card("Q4_K_M", make_card, unforced=True)
    assert "download it for `llama-server --chat-template-file`" in readme.render(card)
    place.run(f"hf download {REPO} {naming.UNFORCED_TEMPLATE} --local-dir .")
    with place.serving(next(shown(card)).text, "--chat-template-file", naming.UNFORCED_TEMPLATE) as client:
        said = client.post("/apply-template", json={"messages": [{"role": "user", "content": "Hello!"}]}).json()["prompt"]
    assert said == "Hello!: the second template"

    card, other = gguf_card("seeing Q8_0", make_card), "mmproj-F16.gguf"
    assert "`--mmproj FILE` takes another" in readme.render(card)
    place.run(f"hf download {SEEING} {other} --local-dir .")
    with place.serving(next(shown(card)).text, "--mmproj", other) as client:
        assert client.get("/props").json()["modalities"]["vision"]
    assert re.search(rf"loaded multimodal model, '{other}'", (place.folder / "log").read_text(errors="replace"))


def in_parts(out: Path) -> Path:
    """With a template that reads what a message holds in parts alone."""
    releases.edit(releases.clean(out) / "tokenizer_config.json", chat_template=PARTS)
    return out


def reading_images(out: Path) -> Path:
    """Of a family that the class for language models does not know."""
    made = seeing.MODELS["SmolVLM"](out)
    releases.edit(made / "tokenizer_config.json", chat_template=PARTS)
    return made


def four_bits(out: Path, model: Path, *skip: str) -> Path:
    out.mkdir()
    bnb.quantize(out, model=model, threads=1, skip=skip)
    return out


@pytest.fixture(scope="module")
def models(api: HfApi, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A model for each case, published."""
    out = tmp_path_factory.mktemp("models")
    chat, eyes = releases.clean(out / "chat"), reading_images(out / "seeing")
    found = {
        "chat": chat,
        "on another Hub": chat,
        "NF4": four_bits(out / "nf4", chat),
        "dynamic NF4": four_bits(out / "dynamic", chat, "model.layers.0.mlp.down_proj"),
        "base model": releases.base_model(out / "base"),
        "messages in parts": in_parts(out / "parts"),
        "seeing": eyes,
        "seeing NF4": four_bits(out / "seeing-nf4", eyes),
    }
    for case, folder in found.items():
        published(api, f"acme/{case.replace(' ', '-')}", folder)
    return found


@pytest.fixture(scope="module")
def said(api: HfApi, models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, str]], Mapping[str, str]]:
    """What programs print, by case: in one process, for most of the time goes into importing the libraries."""
    place = Place(folder=tmp_path_factory.mktemp("programs"), hub=api.endpoint)
    kept: dict[str, str] = {}

    def say(programs: Mapping[str, str]) -> Mapping[str, str]:
        if not kept:
            kept.update(json.loads(place.run(sys.executable, "-W", "ignore", "-c", TOGETHER, json.dumps(programs)).splitlines()[-1]))
        return kept

    return say


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", [case for case, fields in SAFETENSORS.items() if "hub" not in fields])
def test_the_program_for_transformers_answers(case: str, said: Callable[[Mapping[str, str]], Mapping[str, str]], make_card: MakeCard) -> None:
    programs = {name: next(shown(safetensors_card(name, make_card))).text for name, fields in SAFETENSORS.items() if "hub" not in fields}
    found = said(programs)[case]
    assert found.strip(), "an answer"
    assert not found.endswith("FAILED"), found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_printed_for_transformers_runs_in_a_shell_that_was_told_of_another_hub(
    api: HfApi, models: Mapping[str, Path], tmp_path: Path, make_card: MakeCard
) -> None:
    export, answer, download = shown(safetensors_card("on another Hub", make_card, hub=api.endpoint))
    place = Place(folder=tmp_path, hub=api.endpoint, before=export.text)
    assert place.run(sys.executable, "-W", "ignore", "-c", answer.text).strip()
    place.run(download.text)
    assert (place.folder / "model.safetensors").read_bytes() == (models["on another Hub"] / "model.safetensors").read_bytes()


def every_card(make_card: MakeCard) -> Iterator[Card]:
    """Those whose commands are run here."""
    yield from (gguf_card(case, make_card) for case in GGUF)
    yield from (safetensors_card(case, make_card) for case in SAFETENSORS)


class Numbered(FileSystemLoader):
    """Templates whose blocks of code say where they stand, behind the word for their language."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        source, *others = super().get_source(environment, template)
        return (numbered(template, source), *others)


def numbered(template: str, source: str) -> str:
    lines = source.split("\n")
    return "\n".join(f"{line} {template}:{number}" if re.match(r"```\w", line.strip()) else line for number, line in enumerate(lines, 1))


def test_every_block_of_code_stands_on_a_card_whose_commands_are_run(make_card: MakeCard, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {place for path in TEMPLATES.glob("*.j2") for place in _places(numbered(path.name, path.read_text(encoding="utf-8")))}
    environment = readme._environment().overlay(loader=Numbered(TEMPLATES))
    monkeypatch.setattr(readme, "_environment", lambda: environment)
    assert there == {place for card in every_card(make_card) for place in _places(readme.render(card))}
    assert len(there) > 8


def _places(text: str) -> list[str]:
    return re.findall(r"```\w+ (\S+:\d+)$", text, re.MULTILINE)


def test_commands_in_running_text_are_run_here_or_say_that_they_are_not() -> None:
    for path in TEMPLATES.glob("*.j2"):
        for line in path.read_text(encoding="utf-8").splitlines():
            for words in _INLINE.findall(line):
                if words.startswith(("vllm", "lms", "ollama")) and not words.startswith("ollama run hf.co/"):
                    assert UNTRIED in line.partition(words)[2], f"{path.name} promises `{words}`"


def test_the_options_that_cards_name_in_their_text_are_llama_cpp_s() -> None:
    said = [words for path in TEMPLATES.glob("*.j2") for words in _INLINE.findall(path.read_text(encoding="utf-8"))]
    named = {option for words in said if words.startswith(("llama-server", "llama-cli", "-")) for option in _options(words)}
    named -= {"--quick"}  # of `sluice release`
    assert {"--chat-template-file", "--mmproj", "-hf", "-hff"} <= named
    for name in ("llama-server", "llama-cli"):
        done = subprocess.run([toolchain.tool(name), "--help"], capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
        assert named <= {*_options(done.stdout)}, name


def _options(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--?[a-z][a-z-]+", text)
