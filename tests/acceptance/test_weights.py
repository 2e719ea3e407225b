"""What `plan`, `quantize` and `measure` alone do with weights that are no ordinary ones: the same as a release."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader

from tests import releases
from tests.acceptance.conftest import RECIPE, ROOT, sluice

pytestmark = pytest.mark.timeout(600)
TEXT = ROOT / "demo" / "data" / "evaluation_questions.txt"
QUESTIONS = ROOT / "demo" / "data" / "tiny_mmlu"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
LACKING = "model.safetensors lacks model.layers.1.mlp.up_proj.weight, which the architecture that config.json names has"
Made = Callable[[Path], Path]


def quantized(tmp_path: Path, command: str, model: Path, *more: str | Path) -> "tuple[int, str, str]":
    """Exit code, output and error of a command on a model with a short text."""
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 400, encoding="utf-8")
    done = sluice(command, model, "--text", text, *more, SLUICE_HOME=str(tmp_path / "home"), SLUICE_THREADS="1")
    return done.returncode, done.stdout, done.stderr


def beside(out: Path) -> Path:
    """Another set in Mistral's own form beside the real one."""
    releases.clean(out)
    shutil.copyfile(out / "model.safetensors", out / "consolidated.safetensors")
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "type", "stored"),
    [
        (releases.float16_original, "F16", "F16"),
        (releases.float32_original, "BF16", "BF16"),
        (releases.float8_original, "BF16", "BF16"),
        (releases.in_shards, "Q8_0", "Q8_0"),
        (beside, "Q8_0", "Q8_0"),
    ],
)
def test_a_file_is_made_of_each(made: Made, type: str, stored: str, tmp_path: Path) -> None:
    code, _, error = quantized(tmp_path, "quantize", made(tmp_path / "model"), "--type", type, "--out", tmp_path / "out.gguf")
    assert code == 0, error
    assert {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "out.gguf").tensors if len(tensor.shape) > 1} == {stored}


@pytest.mark.slow
def test_a_mix_is_planned_of_finer_weights(tmp_path: Path) -> None:
    code, output, error = quantized(tmp_path, "plan", releases.float32_original(tmp_path / "model"), "--like", "Q4_K_M", "--json")
    assert code == 0, error
    assert 0 < json.loads(output)["predicted"]["mean"] < 0.1


@pytest.mark.slow
def test_a_head_that_is_not_there_is_tied_and_nothing_is_planned_on_chance(tmp_path: Path) -> None:
    """transformers makes up what the file lacks; planned on that, the model of this case was told to lose a tenth of what it does."""
    said = []
    for name, made in (("sound", releases.clean), ("lacking", releases.REPAIRED["tied-head"])):
        code, output, error = quantized(tmp_path, "plan", made(tmp_path / name), "--like", "Q4_K_M", "--json")
        assert code == 0, error
        said.append(json.loads(output))
    assert said[0]["predicted"] == said[1]["predicted"]
    assert said[0]["tensors"] == said[1]["tensors"]
    assert "tied-head" in {patch["fix"] for patch in said[1]["patches"]}


def without_a_layer(out: Path) -> Path:
    return releases.change_weights(releases.clean(out), lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))


def with_a_hole(out: Path) -> Path:
    return releases.change_weights(releases.clean(out), lambda weights: weights["model.embed_tokens.weight"][7].fill_(torch.nan))


def without_index(out: Path) -> Path:
    (releases.in_shards(out) / "model.safetensors.index.json").unlink()
    return out


def without_a_shard(out: Path) -> Path:
    (releases.in_shards(out) / "model-00002-of-00003.safetensors").unlink()
    return out


def packed(out: Path) -> Path:
    made = releases.change_weights(releases.clean(out), lambda weights: weights.update({"model.layers.0.qweight": torch.ones(4, 4, dtype=torch.int32)}))
    releases.edit(made / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    return made


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "quantize"])
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (without_a_layer, LACKING),
        (with_a_hole, "holds weights that are not numbers (infinite or NaN): model.embed_tokens.weight in model.safetensors"),
        (without_index, "holds 3 shards, among them model-00001-of-00003.safetensors, and no model.safetensors.index.json"),
        (without_a_shard, "names 1 files that the repo does not hold, among them model-00002-of-00003.safetensors"),
        (packed, "holds weights that are quantized already (GPTQ: model.layers.0.qweight in model.safetensors)"),
    ],
)
def test_what_is_broken_is_told_by_every_command(made: Made, words: str, command: str, tmp_path: Path) -> None:
    more = ("--like", "Q4_K_M") if command == "plan" else ("--type", "Q4_K_M", "--out", tmp_path / "out.gguf")
    code, _, error = quantized(tmp_path, command, made(tmp_path / "model"), *more)
    assert code == 1
    assert words in " ".join(error.split())
    assert "Traceback" not in error
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("generate", "--prompt", "Hello"), ("mmlu", "--data", str(QUESTIONS)), ("template",)], ids=lambda asked: asked[0])
def test_nothing_is_measured_of_weights_that_transformers_would_make_up(asked: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is repaired for a measurement: the sentence says what would be."""
    what, *more = asked
    done = sluice("measure", what, releases.head_neither_tied_nor_there(tmp_path / "model"), *more, SLUICE_HOME=str(tmp_path / "home"))
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert "model.safetensors lacks lm_head.weight, which the architecture that config.json names has" in said
    assert "`tie_word_embeddings` has to be true in config.json, which `sluice fix` and a recipe with `fixes: true` see to" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_release_ends_at_weights_that_transformers_would_make_up(tmp_path: Path) -> None:
    model, home = without_a_layer(tmp_path / "model"), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", RECIPE, "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 1, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["publications"]) == ("failed", [])
    assert told["error"].startswith(LACKING)
    assert not (tmp_path / "out").exists()
