"""What `plan`, `quantize` and `measure` alone do with weights that are no ordinary ones: the same as a release."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from builders import bnb, fixes, names
from engines import tools
from tests import releases
from tests.acceptance.conftest import RECIPE, ROOT, sluice

pytestmark = pytest.mark.timeout(600)
TEXT = ROOT / "demo" / "data" / "evaluation_questions.txt"
QUESTIONS = ROOT / "demo" / "data" / "tiny_mmlu"
NOWHERE = {"SLUICE_HUB_ENDPOINT": "http://127.0.0.1:1"}  # no Hub is there, and no token is given
LACKING = "model.safetensors lacks model.layers.1.mlp.up_proj.weight, which the architecture that config.json names has"
UNSPOKEN = "has no tokenizer: neither tokenizer.json, nor tokenizer.model, nor vocab.json with merges.txt; it has tekken.json, which is not read."
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
def test_a_file_has_the_templates_that_a_release_of_the_folder_has(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")
    template = releases.read(model / "tokenizer_config.json")["chat_template"]
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text(f"{{#- tools -#}}{template}", encoding="utf-8")
    code, _, error = quantized(tmp_path, "quantize", model, "--type", "Q8_0", "--out", tmp_path / "out.gguf")
    assert code == 0, error
    fields = GGUFReader(tmp_path / "out.gguf").fields
    assert [fields[f"tokenizer.chat_template{name}"].contents() for name in ("", ".tool_use")] == [template, f"{{#- tools -#}}{template}"]


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


def rating(out: Path) -> Path:
    return releases.change_weights(releases.clean(out), lambda weights: weights.update({"score.weight": torch.ones(1, 256)}))


def twice(out: Path) -> Path:
    """A tensor in two of the shards."""
    releases.in_shards(out)
    first, second = (out / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    name = "model.embed_tokens.weight"
    save_file(load_file(second) | {name: load_file(first)[name]}, second, metadata={"format": "pt"})
    return out


def without_tokenizer(out: Path) -> Path:
    """As some makers upload it, with a vocabulary that a package of their own reads."""
    releases.clean(out)
    for name in names.TOKENIZER:
        (out / name).unlink(missing_ok=True)
    (out / "tekken.json").write_text("{}", encoding="utf-8")
    return out


def embedding(out: Path) -> Path:
    """As Qwen3-Embedding is: a language model's files, and one that says how its texts become vectors."""
    (releases.clean(out) / "modules.json").write_text("[]", encoding="utf-8")
    return out


def adapter(out: Path) -> Path:
    releases.clean(out)
    (out / "model.safetensors").rename(out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text("{}", encoding="utf-8")
    return out


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
        (without_tokenizer, UNSPOKEN),
        (embedding, "is no language model but one that turns texts into vectors or ranks them: it has modules.json of sentence-transformers."),
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


@pytest.mark.parametrize("asked", ["fix MODEL", "release MODEL --to out --dry-run", "measure template MODEL"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_no_tokenizer_is_made_up_either(model_type: str, asked: str, tmp_path: Path) -> None:
    """transformers 5 makes one of a single token for Qwen's (findings/transformers-makes-up-a-tokenizer.sh), and names files that are not there for Llama's."""
    model = without_tokenizer(tmp_path / "model")
    releases.edit(model / "config.json", model_type=model_type)
    done = sluice(*asked.replace("MODEL", str(model)).split(), SLUICE_HOME=str(tmp_path / "home"), cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert UNSPOKEN in said
    assert "Traceback" not in said


def louder(out: Path, part: str, factor: float) -> Path:
    """A tensor of the model multiplied, which stays in bfloat16's range."""
    return releases.change_weights(releases.clean(out), lambda weights: [value.mul_(factor) for name, value in weights.items() if part in name])


@pytest.mark.slow
def test_no_file_is_made_in_float16_of_what_it_cannot_hold(tmp_path: Path) -> None:
    """Activations like Gemma 3's, of which no weight is too large; of a GGUF file, which transformers does not run, at least the weights are looked at."""
    model = louder(tmp_path / "model", "layers.2.mlp.up_proj", 6e4)
    code, output, error = quantized(tmp_path, "quantize", model, "--type", "f16", "--out", tmp_path / "out.gguf", "--json")
    assert code == 3, error
    said, found = " ".join(error.split()), json.loads(output)
    assert "model is not made in F16, which holds numbers up to 65504" in said
    assert "the input of model.layers.2.mlp.down_proj reaches" in said
    assert "Take --type BF16" in said
    assert found["file"] is None
    assert found["float16"]["activation"] > 65504
    assert any(detail.startswith("the input of model.layers.2.mlp.down_proj reaches") for detail in found["float16"]["failures"])
    assert quantized(tmp_path, "quantize", model, "--type", "F16", "--out", tmp_path / "out.gguf")[0] == 3, "as well where all of it was done before"
    tools.convert(louder(tmp_path / "large", "layers.1.mlp.up_proj", 1e7), "--outtype", "bf16", "--outfile", tmp_path / "large.gguf")
    code, _, error = quantized(tmp_path, "quantize", tmp_path / "large.gguf", "--type", "F16", "--out", tmp_path / "out.gguf")
    assert code == 3, error
    assert "blk.1.ffn_up.weight holds the weight" in " ".join(error.split())
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.slow
def test_a_file_in_float16_is_made_of_what_it_holds_and_what_was_looked_at_is_said(tmp_path: Path) -> None:
    code, output, error = quantized(tmp_path, "quantize", releases.clean(tmp_path / "model"), "--type", "F16", "--out", tmp_path / "out.gguf", "--json")
    assert code == 0, error
    found = json.loads(output)["float16"]
    assert found["failures"] == []
    assert 1 < found["activation"] < 65504
    releases.edit(tmp_path / "model" / "config.json", model_type="not-in-transformers")
    code, output, error = quantized(tmp_path, "quantize", tmp_path / "model", "--type", "F16", "--out", tmp_path / "out.gguf")
    assert code == 0, error
    assert "its weights were looked at alone" in output


def with_other_sets(out: Path) -> Path:
    """Older ones, and one in Mistral's own form, that no loader takes for the model's; not one of their values is a number."""
    weights = load_file(releases.clean(out) / "model.safetensors")
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        save_file({name: torch.full_like(value, torch.nan) for name, value in weights.items()}, out / name, metadata={"format": "pt"})
    return out


def measured(home: Path, what: str, model: Path, *more: str | Path) -> dict[str, dict[str, Any]]:
    """What `sluice measure` finds, by name."""
    done = sluice("measure", what, model, *more, "--threads", "1", "--json", SLUICE_HOME=str(home))
    assert done.returncode == 0, done.stdout + done.stderr
    return {item["name"]: item for item in json.loads(done.stdout)["measurements"]}


def asked(home: Path, model: Path) -> dict[str, dict[str, Any]]:
    return measured(home, "mmlu", model, "--data", QUESTIONS, "--questions", "2", "--shots", "0")


def size(found: dict[str, dict[str, Any]]) -> float:
    """GB that the efficiency is told by."""
    return float((100 * found["mmlu.accuracy"]["value"] - 25) / found["efficiency"]["value"])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sound")
    return asked(folder / "home", releases.clean(folder / "model"))


@pytest.mark.slow
@pytest.mark.parametrize("made", [releases.stale_quantization, releases.in_shards, with_other_sets], ids=lambda made: made.__name__)
def test_the_weights_that_are_measured_are_those_of_a_release(made: Made, sound: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    found = asked(tmp_path / "home", made(tmp_path / "model"))
    assert found["mmlu.accuracy"] == sound["mmlu.accuracy"]
    assert size(found) == pytest.approx(size(sound), rel=0.001)


@pytest.mark.slow
def test_weights_of_8_bits_are_measured_as_what_a_release_makes_of_them(tmp_path: Path) -> None:
    model, fixed = releases.float8_original(tmp_path / "model"), tmp_path / "fixed"
    fixed.mkdir()
    fixes.repair(fixed, snapshot=model, repo="local/model", fixes=True)
    assert asked(tmp_path / "home", model) == asked(tmp_path / "home", fixed)
    assert measured(tmp_path / "home", "template", model)["template.failures"]["value"] == 0, "a file is converted for it"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "what", "words"),
    [
        (packed, ("generate", "--prompt", "Hello"), "model holds weights that are quantized already (GPTQ: model.layers.0.qweight in model.safetensors)"),
        (packed, ("template",), "model holds weights that are quantized already (GPTQ: model.layers.0.qweight in model.safetensors)"),
        (embedding, ("template",), "is no language model but one that turns texts into vectors"),
        (rating, ("mmlu", "--data", str(QUESTIONS)), "is no language model but one that rates or sorts texts: score.weight in model.safetensors"),
        (without_index, ("template",), "holds 3 shards, among them model-00001-of-00003.safetensors, and no model.safetensors.index.json"),
        (twice, ("generate", "--prompt", "Hello"), "of the release both hold model.embed_tokens.weight: it has two sets of weights"),
        (adapter, ("template",), "holds an adapter, which is no model before it is merged with its base: `sluice fix"),
    ],
)
def test_what_a_release_refuses_is_not_measured(made: Made, what: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = sluice("measure", what[0], made(tmp_path / "model"), *what[1:], SLUICE_HOME=str(tmp_path / "home"))
    said = " ".join(done.stderr.split())
    assert (done.returncode, words in said, "Traceback" in said) == (1, True, False), said


@pytest.mark.slow
def test_a_variant_in_nf4_is_measured_as_it_is(tmp_path: Path) -> None:
    model, nf4, home = releases.clean(tmp_path / "model"), tmp_path / "nf4", tmp_path / "home"
    nf4.mkdir()
    bnb.quantize(nf4, model=model, threads=1)
    assert size(asked(home, nf4)) == pytest.approx((nf4 / "model.safetensors").stat().st_size / 1e9)
    tools.convert(model, "--outtype", "bf16", "--outfile", tmp_path / "made.gguf")
    assert measured(home, "template", nf4, "--gguf", tmp_path / "made.gguf")["template.failures"]["value"] == 0
    done = sluice("measure", "template", nf4, SLUICE_HOME=str(home))
    assert done.returncode == 1
    assert "holds weights that are quantized already (bitsandbytes: " in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_release_ends_at_weights_that_transformers_would_make_up(tmp_path: Path) -> None:
    model, home = without_a_layer(tmp_path / "model"), str(tmp_path / "home")
    done = sluice("release", model, "--to", tmp_path / "out", "--recipe", RECIPE, "--json", SLUICE_HOME=home, **NOWHERE)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert LACKING in found["error"]
    assert (found["state"], found["stages"]) == ("failed", []), "before the first stage"
    assert not (tmp_path / "out").exists()
