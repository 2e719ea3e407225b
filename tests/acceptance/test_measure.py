"""`sluice measure` on files, as a stranger to the service uses it: no Hub, no account, no database."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines import tools
from tests import releases
from tests.acceptance.conftest import ROOT, sluice
from tests.reference_tool import llama_perplexity

pytestmark = pytest.mark.slow

DATA = ROOT / "demo" / "data"
PLANTED = ROOT / "demo" / "model"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled model repaired (`model`), as 16-bit GGUF and in two quantizations, and a GGUF of it with its defects."""
    folder = tmp_path_factory.mktemp("measure")
    releases.clean(folder / "model")
    tools.convert(folder / "model", "--outtype", "bf16", "--outfile", folder / "BF16.gguf")
    tools.convert(PLANTED, "--outtype", "bf16", "--outfile", folder / "planted.gguf")
    for name in ("Q8_0", "Q2_K"):
        tools.run("llama-quantize", folder / "BF16.gguf", folder / f"{name}.gguf", name, "1")
    text = (DATA / "evaluation_questions.txt").read_text(encoding="utf-8")
    (folder / "text.txt").write_text(text[:30000].rstrip(), encoding="utf-8")
    return folder


def measure(files: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return sluice("measure", *arguments, "--threads", "1", SLUICE_HOME=str(files / "home"))


def found(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def by_name(measurements: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in measurements}


def theirs(log: str, name: str) -> float:
    return float(re.findall(rf"{re.escape(name)}\s*:\s*([\d.]+)", log)[-1])


def test_divergence_is_what_llama_perplexity_finds(files: Path) -> None:
    document = found(measure(files, "kld", files / "BF16.gguf", files / "Q8_0.gguf", files / "Q2_K.gguf", "--text", files / "text.txt", "--json"))
    assert document["windows"] == 7
    assert [Path(item["file"]).name for item in document["variants"]] == ["Q8_0.gguf", "Q2_K.gguf"]
    q8, q2 = (by_name(item["measurements"]) for item in document["variants"])
    assert 0 < q8["kld.mean"]["value"] < q2["kld.mean"]["value"]
    assert q2["kld.mean"]["n"] == 7 * 255
    common = ("-f", files / "text.txt", "-c", "512", "-t", "1", "--no-warmup", "--kl-divergence-base", files / "base")
    tools.run("llama-perplexity", "-m", files / "BF16.gguf", *common)
    log = llama_perplexity("-m", files / "Q2_K.gguf", *common, "--kl-divergence", last="Same top p:")
    assert q2["kld.mean"]["value"] == pytest.approx(theirs(log, "Mean    KLD"), rel=0.01)
    assert q2["same_top"]["value"] == pytest.approx(theirs(log, "Same top p") / 100, abs=0.001)


def test_divergence_on_conversations_as_a_table(files: Path) -> None:
    done = measure(files, "kld", files / "BF16.gguf", files / "Q2_K.gguf", "--chat", DATA / "evaluation.jsonl", "--ctx", "256", "--tokens", "2000")
    assert done.returncode == 0, done.stderr
    assert "Q2_K.gguf" in done.stdout
    assert "p999" in done.stdout
    assert "7 windows of 256 tokens" in done.stdout


@pytest.mark.parametrize("model", ["Q8_0.gguf", "model"])
def test_questions_are_asked_of_a_file_or_a_folder(files: Path, model: str) -> None:
    document = found(measure(files, "mmlu", files / model, "--data", DATA / "tiny_mmlu", "--questions", "2", "--shots", "1", "--json"))
    measured = by_name(document["measurements"])
    size = (files / "Q8_0.gguf" if model.endswith("gguf") else files / "model" / "model.safetensors").stat().st_size
    accuracy = measured["mmlu.accuracy"]
    assert accuracy["n"] == 16 == sum(subject["questions"] for subject in document["subjects"].values())
    assert accuracy["value"] == sum(subject["right"] for subject in document["subjects"].values()) / 16
    assert measured["efficiency"]["value"] == pytest.approx((100 * accuracy["value"] - 25) / (size / 1e9))


def test_a_sound_template_passes_as_a_file_and_as_a_folder(files: Path) -> None:
    alone = by_name(found(measure(files, "template", files / "BF16.gguf", "--json"))["measurements"])
    linked = files / "linked"  # as the Hub's cache holds a model
    linked.mkdir()
    for path in (files / "model").iterdir():
        (linked / path.name).symlink_to(path)
    both = by_name(found(measure(files, "template", linked, "--gguf", files / "BF16.gguf", "--json"))["measurements"])
    assert {name: item["value"] for name, item in alone.items()} == {"template.failures": 0}
    assert both.keys() == {"template.failures", "template.system", "tokenizer.mismatches", "tokenizer.known", "tokenizer.departures", "template.remarks"}
    assert both["template.failures"]["value"] == both["tokenizer.mismatches"]["value"] == 0
    assert any("does not read tools" in remark for remark in both["template.remarks"]["details"]), "remarks do not fail it"


def test_planted_defects_are_found_in_a_folder_that_is_converted_for_it(files: Path) -> None:
    done = measure(files, "template", PLANTED)
    assert done.returncode == 3, done.stdout + done.stderr
    for words in ("begins with 2 BOS tokens", "stops only at <|endoftext|>", "eos_token is <|endoftext|>", "pad_token is <|im_end|>"):
        assert words in done.stdout


def test_a_missing_tokenizer_model_is_named_before_what_comes_of_it(files: Path, tmp_path: Path) -> None:
    given = releases.without_tokenizer_model(tmp_path / "given")
    both = by_name(found(measure(files, "template", given, "--json"), 3)["measurements"])
    assert both["tokenizer.mismatches"]["value"] > 0
    assert both["template.failures"]["details"][0].startswith("tokenizer.model is missing")
    assert "`sluice fix` rebuilds it" in both["template.failures"]["details"][0]
    right = found(measure(files, "template", given, "--gguf", files / "BF16.gguf", "--json"))
    assert by_name(right["measurements"])["template.failures"]["value"] == 0, "the file is missing, and nothing comes of it"


def test_planted_defects_are_found_in_a_file_alone(files: Path) -> None:
    (failures,) = found(measure(files, "template", files / "planted.gguf", "--json"), 3)["measurements"]
    assert failures["details"] == [
        (
            "tokenized the usual way the prompt begins with 2 BOS tokens (ids 1, 1) in 57 of 57 conversations: "
            "the template writes <s> and the tokenizer adds it again"
        ),
        "the assistant's turn ends with <|im_end|> (4), but the file's eos_token_id is <|endoftext|> (5)",
        "padding_token_id is <|im_end|> (4), which ends the assistant's turn: training that masks padding never learns to stop",
    ]
    bare = files / "bare.gguf"
    rewrite = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", files / "BF16.gguf", bare, "--remove-metadata", "tokenizer.chat_template", "--force"]
    tools.execute(rewrite)
    (failures,) = found(measure(files, "template", bare, "--json"), 3)["measurements"]
    assert failures["details"] == ["the file holds no chat template: every program that runs it has to guess one"]


def test_an_answer_that_does_not_end_is_a_failure(files: Path) -> None:
    asked = ("--prompt", "What is the capital of France?", "--prompt", "List 5 garments.")
    for model in ("Q8_0.gguf", "model"):
        sound = by_name(found(measure(files, "generate", files / model, *asked, "--max-tokens", "64", "--json"))["measurements"])["generation.failures"]
        assert (sound["value"], sound["n"]) == (0, 2)
    done = measure(files, "generate", files / "Q8_0.gguf", *asked, "--max-tokens", "2")
    assert done.returncode == 3
    assert "does not end by itself within 2 tokens" in done.stdout


def test_what_cannot_be_measured_is_explained(files: Path) -> None:
    cut = files / "cut.gguf"
    cut.write_bytes((files / "Q8_0.gguf").read_bytes()[:2_000_000])
    (files / "odd.jsonl").write_text('{"message": []}\n')
    good, text = files / "BF16.gguf", files / "text.txt"
    for code, words, arguments in [
        (1, "cannot load", ("kld", good, cut, "--text", text)),
        (1, "cannot load", ("template", text)),
        (1, "too few for two windows", ("kld", good, good, "--text", text, "--tokens", "600")),
        (1, "line 1, is not a conversation", ("kld", good, good, "--chat", files / "odd.jsonl")),
        (1, "holds no questions", ("mmlu", good, "--data", files)),
        (1, "no config.json", ("generate", files)),
        (2, "exactly one of --text and --chat", ("kld", good, good)),
        (2, "does not exist", ("generate", files / "nonesuch.gguf")),
    ]:
        done = measure(files, *arguments)
        said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
        assert (done.returncode, words in said, "Traceback" in said) == (code, True, False), said


def test_nothing_is_left_behind_but_logs(files: Path) -> None:
    found(measure(files, "template", files / "BF16.gguf", "--json"))
    assert [path.name for path in (files / "home").iterdir()] == ["logs"]
