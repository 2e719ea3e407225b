"""The readers' table: programs that read published files, on the bundled model; those that `make readers` installs are skipped where it was not run."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi

from builders import bnb
from engines import environments, tools
from hub.server import running
from hub.tokens import create_token
from qa import interleaved
from qa.readers import (
    compared,
    ctranslate2,
    gguf_py,
    huggingface_gguf,
    huggingface_jinja,
    llama_cpp,
    llama_cpp_python,
    node_llama_cpp,
    ollama_utils,
    openvino_genai,
    references,
    table,
    templates,
    transformers,
)
from qa.readers import releases as folders
from qa.readers import running as programs
from qa.readers.words import BITS16, GGUF, NF4, Outcome, Reader, Reading, Reference, Refusal, Result, Variant
from tests.qa.conftest import Quantize, Release
from tests.releases import edit

CHATML = (  # as the bundled model's, which takes a system prompt at the beginning alone
    '{{ range $i, $m := .Messages }}{{ if or (eq $i 0) (ne .Role "system") }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}{{ end }}'
    "<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def folder(clean: Release, quantize: Quantize, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three repos, as a release leaves them: GGUF files, the 16-bit folder, and NF4."""
    out = tmp_path_factory.mktemp("released")
    shutil.copytree(clean.model, out / "tiny-chat")
    (out / "tiny-chat-GGUF").mkdir()
    (out / "tiny-chat-bnb-4bit").mkdir()
    bnb.quantize(out / "tiny-chat-bnb-4bit", model=clean.model, threads=1)
    files = {"BF16": clean.gguf, "Q4_K_M": quantize("Q4_K_M")}
    for tag, file in files.items():
        shutil.copy(file, out / "tiny-chat-GGUF" / f"tiny-chat-{tag}.gguf")
    _manifest(out / "tiny-chat", {"16bit": ["model.safetensors"]})
    _manifest(out / "tiny-chat-bnb-4bit", {"bnb-4bit": ["model.safetensors"]})
    _manifest(out / "tiny-chat-GGUF", {tag: [f"tiny-chat-{tag}.gguf"] for tag in files})
    return out


def _manifest(repo: Path, variants: dict[str, list[str]]) -> None:
    (repo / "sluice-manifest.json").write_text(json.dumps({"variants": [{"tag": tag, "files": files} for tag, files in variants.items()]}))


@pytest.fixture(scope="module")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Variant]]:
    root = tmp_path_factory.mktemp("hub")
    with running(root) as url:
        api = HfApi(endpoint=url, token=create_token(root, user=folders.NAMESPACE))
        for repo in folder.iterdir():
            api.create_repo(f"{folders.NAMESPACE}/{repo.name}")
            api.upload_folder(repo_id=f"{folders.NAMESPACE}/{repo.name}", folder_path=repo)
        yield folders.found(folder, hub=url)


def asked(reader: Reader, release: list[Variant], tag: str) -> Outcome:
    if why := reader.missing():
        pytest.skip(why)
    variant = next(variant for variant in release if variant.tag == tag)
    return table.outcome(reader, variant, references.of(variant, release))


def test_the_variants_of_a_folder_are_those_of_its_manifests(release: list[Variant]) -> None:
    assert [(variant.tag, variant.form, variant.path.name) for variant in release] == [
        ("16bit", BITS16, "tiny-chat"),
        ("BF16", GGUF, "tiny-chat-BF16.gguf"),
        ("Q4_K_M", GGUF, "tiny-chat-Q4_K_M.gguf"),
        ("bnb-4bit", NF4, "tiny-chat-bnb-4bit"),
    ]


def test_a_projector_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "seeing-GGUF").mkdir()
    _manifest(tmp_path / "seeing-GGUF", {"Q8_0": ["seeing-Q8_0.gguf"], "mmproj-F16": ["mmproj-F16.gguf"]})
    assert [variant.tag for variant in folders.found(tmp_path)] == ["Q8_0"]


QUICK = (llama_cpp.READER, llama_cpp_python.READER, gguf_py.READER, huggingface_gguf.READER, huggingface_jinja.READER)


@pytest.mark.parametrize("reader", QUICK, ids=lambda reader: reader.name)
def test_quantized_files_are_read_as_they_were_measured(reader: Reader, release: list[Variant]) -> None:
    assert asked(reader, release, "Q4_K_M").result is Result.SAME


@pytest.mark.parametrize("tag", ["16bit", "bnb-4bit"])
def test_transformers_5_computes_what_was_measured(release: list[Variant], tag: str) -> None:
    found = asked(transformers.READERS[0], release, tag)
    assert found.result is Result.SAME, found.words


@pytest.mark.slow
def test_transformers_reads_a_gguf_file_as_something_else_and_says_nothing(release: list[Variant]) -> None:
    """Its tokens: a space that the file says is put in front of a text, or is not."""
    found = asked(transformers.READERS[1], release, "Q4_K_M")
    assert found.result is Result.OTHER
    assert "other tokens" in found.words
    assert "the same KLD" in found.words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "tag"), [(transformers.READERS[2], "bnb-4bit"), (transformers.READERS[3], "Q4_K_M")], ids=lambda item: getattr(item, "name", item)
)
def test_the_older_transformers_computes_the_same(release: list[Variant], reader: Reader, tag: str) -> None:
    found = asked(reader, release, tag)
    assert found.result is Result.SAME, found.words


@pytest.mark.slow
@pytest.mark.parametrize("reader", [node_llama_cpp.READER, openvino_genai.READER, ctranslate2.READER, transformers.READERS[2]], ids=lambda reader: reader.name)
def test_programs_that_were_installed_answer(reader: Reader, release: list[Variant]) -> None:
    tag = "BF16" if GGUF in reader.forms else "16bit"
    expected = {"OpenVINO GenAI": Result.REFUSED}.get(reader.name, Result.SAME)
    found = asked(reader, release, tag)
    assert found.result is expected, found.words
    if reader is node_llama_cpp.READER:
        assert found.words.endswith("; chats otherwise than by the template"), "a system prompt of its own: see config/readers.yaml"


def test_ollama_would_write_other_prompts_without_a_template_of_ours(release: list[Variant]) -> None:
    found = asked(ollama_utils.READER, release, "Q4_K_M")
    assert "no file in the repo" in found.words


def test_ollama_writes_the_model_s_prompts_by_a_template_that_does(release: list[Variant], tmp_path: Path) -> None:
    given = next(variant for variant in release if variant.tag == "Q4_K_M")
    inside = replace(given, folder=tmp_path)  # where the repo's other files are looked for
    (tmp_path / "template").write_text(CHATML, encoding="utf-8")
    found = asked(ollama_utils.READER, [inside], "Q4_K_M")
    assert found.result is Result.SAME, found.words
    told = re.fullmatch(r"11 of 11 conversations by the repo's file; without it (.+)", found.words)
    assert told is not None
    assert told[1].startswith("7 of 11 conversations by library/"), "that of another model"
    (tmp_path / "template").write_text(CHATML.replace("assistant", "user"), encoding="utf-8")
    assert asked(ollama_utils.READER, [inside], "Q4_K_M").result is Result.OTHER, "what was found of another file is not taken"


@pytest.mark.usefixtures("go")
def test_ollama_would_stop_where_answers_go_on(clean: Release, tmp_path: Path) -> None:
    """Whatever looks like a token in a template that ollama-utils does not know, and `###`, becomes a stop string, unless the repo says which ones are."""
    if why := ollama_utils.READER.missing():
        pytest.skip(why)
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    shutil.copytree(clean.model, tmp_path / "model")
    edit(tmp_path / "model" / "tokenizer_config.json", chat_template="{# ### #}" + turns + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    file, template = tmp_path / "it-BF16.gguf", tmp_path / ollama_utils.FILE
    tools.convert(tmp_path / "model", "--outtype", "bf16", "--outfile", file)
    variant = Variant(tag="BF16", form=GGUF, path=file, files=(file,), folder=tmp_path, repo="someone/it")

    def ask() -> Outcome:
        return ollama_utils.ask(variant, pytest.fail)

    assert "with stop strings that answers may hold: '<think>', '###'" in ask().words
    known, special = templates.read(file)
    template.write_text(interleaved.derived(templates.own(known, special), lambda text: text) or "", encoding="utf-8")
    found = ask()
    assert found.result is Result.OTHER
    assert "without a params file against such stop strings; without it" in found.words
    (tmp_path / ollama_utils.PARAMS).write_text("{}")
    assert ask().result is Result.SAME


def test_a_model_with_another_rope_base_is_something_else(release: list[Variant], tmp_path: Path) -> None:
    """A planted wrong reading: the same weights, of which positions are read otherwise."""
    variant = next(variant for variant in release if variant.form == BITS16)
    shutil.copytree(variant.path, tmp_path / "wrong")
    edit(tmp_path / "wrong" / "config.json", rope_theta=500.0, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    wrong = replace(variant, path=tmp_path / "wrong", folder=tmp_path / "wrong")
    found = table.outcome(transformers.READERS[0], wrong, references.of(wrong, release))
    assert found.result is Result.OTHER
    assert "the same tokens" in found.words


def test_a_damaged_file_is_refused_in_words(release: list[Variant], tmp_path: Path) -> None:
    variant = next(variant for variant in release if variant.tag == "BF16")
    damaged = tmp_path / "tiny-chat-BF16.gguf"
    damaged.write_bytes(variant.path.read_bytes()[:100_000])
    given = replace(variant, path=damaged, files=(damaged,))
    found = table.outcome(llama_cpp_python.READER, given, references.of(variant, release))
    assert found.result is Result.REFUSED
    assert found.words
    assert table.outcome(gguf_py.READER, given, references.of(variant, release)).result is Result.REFUSED


def test_what_is_not_installed_is_said(release: list[Variant], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    absent = environments.Environment("nothing", ("nothing==1.0",))
    assert absent.missing() == "nothing==1.0 is not installed: `make readers` does"
    reader = replace(gguf_py.READER, missing=absent.missing)
    assert table.outcome(reader, release[1], references.of(release[1], release)) == Outcome(result=Result.MISSING, words=absent.missing() or "")
    assert table.outcome(llama_cpp.READER, replace(release[1], hub=None), references.of(release[1], release)).result is Result.MISSING


def test_a_reader_is_asked_once_for_each_version_and_file(release: list[Variant]) -> None:
    calls: list[str] = []

    def ask(variant: Variant, reference: object) -> Outcome:
        calls.append(variant.tag)
        raise Refusal("no such type")

    reader = Reader(name="someone's", version=lambda: "1", forms=frozenset({GGUF}), missing=lambda: None, ask=ask)
    rows = [next(table.rows(release, [reader])) for _ in range(2)]
    assert rows[0].outcomes == rows[1].outcomes
    assert [outcome.words for _, outcome in rows[0].of(Result.REFUSED)] == ["no such type"] * 2
    next(table.rows(release, [replace(reader, version=lambda: "2")]))
    assert calls == ["BF16", "Q4_K_M"] * 2


def test_a_program_that_hangs_or_dies_breaks(tmp_path: Path) -> None:
    with pytest.raises(programs.Broken, match="did not answer in 0 seconds"):
        programs.ask(["sh", "-c", "exec sleep 60"], {}, seconds=0.2)
    with pytest.raises(programs.Broken, match="SIGKILL"):
        programs.ask(["sh", "-c", "kill -9 $$"], {})


def test_readings_are_judged_by_what_rounding_explains() -> None:
    own = np.log(np.full((10, 4), 0.25, dtype=np.float32))
    other = np.log(np.tile(np.array([0.4, 0.2, 0.2, 0.2], dtype=np.float32), (10, 1)))
    reference = Reference(tokens=(1, 2), logprobs=own, answer=(0, 1), steps=other[:2], by="llama.cpp's reading")
    assert compared.judge(reference, Reading(ids=(1, 2), logprobs=own, answer=(0, 1))).result is Result.SAME
    found = compared.judge(reference, Reading(ids=(1, 3), logprobs=other, answer=(0, 1)))
    assert found.result is Result.OTHER
    assert found.words.startswith("other tokens from token 1 on: [2] where it reads [3]; KLD 0.05 from llama.cpp's reading")
    noisy = replace(reference, noise=(0.02,) * 10)
    assert compared.judge(noisy, Reading(logprobs=other)).result is Result.SAME
    assert compared.departure(reference, (1,)) == pytest.approx(np.log(2), abs=1e-4)
    assert compared.judge(reference, Reading(logprobs=np.full((10, 4), np.nan, dtype=np.float32))).result is Result.OTHER
