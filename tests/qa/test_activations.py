import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file

from config.errors import MeasurementError
from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Variant
from qa import activations
from qa.gates import judge
from tests.qa.conftest import DATA, Release

TEXTS = [DATA / "evaluation.jsonl", DATA / "evaluation_questions.txt"]
GATES = [
    Gate(name="float16", measure="float16.failures", at_most=0, tags=("F16",)),
    Gate(name="activations", measure="activation.max", at_most=65504, tags=("F16",)),
    Gate(name="any", measure="float16.failures", at_most=1000),
]


def checked(model: Path, out: Path) -> dict[str, Measurement]:
    result = activations.check(out, model=model, texts=TEXTS, threads=1)
    json.dumps(result, allow_nan=False)
    return {item["name"]: Measurement(**item) for item in result["measurements"]}


def scaled(clean: Release, folder: Path, factors: dict[str, float]) -> Path:
    """The model with some tensors multiplied, in float32, so that bfloat16 does not hide what is meant."""
    model = shutil.copytree(clean.model, folder / "model")
    tensors = {name: tensor.float() for name, tensor in load_file(model / "model.safetensors").items()}
    for part, factor in factors.items():
        (name,) = [name for name in tensors if part in name]
        tensors[name] = (tensors[name] * factor).contiguous()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return model


def outcomes(found: dict[str, Measurement], tag: str) -> set[Outcome]:
    return {result.outcome for result in judge(Variant(tag=tag, kind=Kind.GGUF), GATES, found, {}).results}


def test_a_sound_model_may_be_offered_in_float16(clean: Release, tmp_path: Path) -> None:
    found = checked(clean.model, tmp_path)
    assert found["float16.failures"].value == 0
    assert 1 < found["activation.max"].value < 65504
    assert outcomes(found, "F16") == {Outcome.PASSED}


def test_activations_that_overflow_are_caught_though_no_weight_does(clean: Release, tmp_path: Path) -> None:
    model = scaled(clean, tmp_path, {"layers.2.mlp.up_proj": 6e4})
    found = checked(model, tmp_path)
    assert found["activation.max"].value > 65504
    assert any(detail.startswith("the input of model.layers.2.mlp.down_proj reaches") for detail in found["float16.failures"].details)
    assert not any("weight" in detail.split("reaches")[0] for detail in found["float16.failures"].details)
    assert outcomes(found, "F16") == {Outcome.FAILED, Outcome.PASSED}
    assert outcomes(found, "BF16") == {Outcome.PASSED}, "the other variants are not concerned"


@pytest.mark.parametrize(("factor", "words"), [(1e7, "holds the weight"), (1e-7, "weights are too small")])
def test_weights_that_float16_cannot_hold_are_caught(clean: Release, tmp_path: Path, factor: float, words: str) -> None:
    found = checked(scaled(clean, tmp_path, {"layers.1.mlp.up_proj": factor}), tmp_path)
    assert [detail for detail in found["float16.failures"].details if words in detail and "layers.1.mlp.up_proj" in detail]


def test_activations_that_are_not_finite_are_beyond_every_bound(clean: Release, tmp_path: Path) -> None:
    found = checked(scaled(clean, tmp_path, {"layers.0.mlp.up_proj": 1e30, "layers.0.mlp.gate_proj": 1e30}), tmp_path)
    assert found["activation.max"].value > 1e38


def test_without_text_there_is_no_answer(clean: Release, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(MeasurementError, match="no text"):
        activations.check(tmp_path, model=clean.model, texts=[empty], threads=1)


def test_no_hook_is_left_behind(clean: Release) -> None:
    network: Any = torch.nn.Sequential(torch.nn.Linear(2, 2))
    seen: dict[str, float] = {}
    with activations.watched(network, seen):
        network(torch.ones(1, 2))
    before = dict(seen)
    network(torch.full((1, 2), 1e9))
    assert seen == before
    assert len(before) == 2


def test_of_a_gguf_file_the_weights_are_looked_at(tmp_path: Path) -> None:
    """Whose matrices are in float16 already has lost what there is to lose."""
    random = np.random.default_rng(0)
    matrix = random.normal(size=(8, 64)).astype(np.float32)
    writer = GGUFWriter(tmp_path / "made.gguf", "llama")
    for name, values in {
        "sound": matrix,
        "large": matrix * 1e7,
        "small": matrix * 1e-9,
        "vector": matrix[0] * 1e7,
        "halved": matrix.astype(np.float16),
    }.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (found,) = activations.weights(tmp_path, gguf=tmp_path / "made.gguf", threads=1)["measurements"]
    assert (found["name"], found["value"], found["n"]) == ("float16.failures", 2, 3)
    assert [detail.partition(" ")[0] for detail in found["details"]] == ["large", "small"]
