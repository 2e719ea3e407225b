"""Layers for multi-token prediction, which llama.cpp keeps and never runs: known by its graph, in a type that needs no importances, and no failure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

from builders import calibrate, convert, ggufs, quantize
from builders import predicting as layers
from builders.plan import plan
from builders.plan.capacity import cache_bytes
from builders.rounding import improve
from builders.sensitivity import layout, measure
from builders.sensitivity.table import Sensitivity
from config.errors import UpstreamError
from engines import graph, quantizable
from qa import file_checks, preflight
from tests import predicting, releases
from tests.builders.conftest import CONVERTED, DATA, THREADS

TEXT: dict[str, Any] = {"chat": [], "plain": [DATA / "calibration_questions.txt"], "tokens": 1024, "context": 128, "threads": THREADS}
LAYERS = {"glm": 2, "qwen3_next": 4}
UNUSED = {2: 13, 4: 11}  # matrices, by layer: GLM's has embeddings and an output matrix of its own


@dataclass(frozen=True, kw_only=True)
class Made:
    """A miniature as 16-bit GGUF, with its importance matrix."""

    model: Path
    gguf: Path
    imatrix: Path
    layer: int  # that nothing runs

    @property
    def unused(self) -> list[str]:
        """The matrices of that layer."""
        return [entry.name for entry in quantizable.in_layers(self.gguf) if entry.name.startswith(f"blk.{self.layer}.")]


@pytest.fixture(scope="module", params=LAYERS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    out: Path = tmp_path_factory.mktemp(request.param)
    model: Path = getattr(predicting, request.param)(out / "model")
    gguf = out / str(convert.convert(out, model=model, name="mini")["file"])
    return Made(model=model, gguf=gguf, imatrix=out / str(calibrate.imatrix(out, model=model, gguf=gguf, **TEXT)["file"]), layer=LAYERS[request.param])


def types(file: Path) -> dict[str, str]:
    return {name: tensor.type for name, tensor in ggufs.stored(file).items()}


def test_they_are_known_and_no_failure_of_the_importance_matrix(made: Made, tmp_path: Path) -> None:
    failures, _, unused = preflight.imatrix(tmp_path, imatrix=made.imatrix, gguf=made.gguf)["measurements"]
    assert (failures["name"], failures["value"], failures["details"]) == ("imatrix.failures", 0, ())
    assert (unused["name"], unused["value"]) == ("imatrix.unused", len(made.unused))
    assert len(made.unused) == UNUSED[made.layer]
    [said] = unused["details"]
    assert said.startswith(f"Layer {made.layer} is for multi-token prediction (NextN), which llama.cpp runs in no ordinary answer")
    assert said.endswith("they are Q8_0 in every quantized GGUF file")


def test_the_graph_multiplies_all_others(made: Made) -> None:
    seen = graph.multiplied(made.gguf)
    assert [entry.name for entry in quantizable.in_layers(made.gguf) if entry.name not in seen] == made.unused
    assert "token_embd.weight" in seen, "tied, it is the output matrix"


def test_a_matrix_that_is_multiplied_and_has_no_entry_is_still_a_failure(made: Made, tmp_path: Path) -> None:
    """As when the importance matrix is of another model: here of the one without that layer's neighbour."""
    other = predicting.glm(tmp_path / "other", predicts=False)
    gguf = tmp_path / str(convert.convert(tmp_path, model=other, name="other")["file"])
    imatrix = tmp_path / str(calibrate.imatrix(tmp_path, model=other, gguf=gguf, **TEXT)["file"])
    failures, _, unused = preflight.imatrix(tmp_path, imatrix=imatrix, gguf=made.gguf)["measurements"]
    assert unused["value"] == len(made.unused)
    lacking = [detail for detail in failures["details"] if detail.endswith("has no entry: no calibration text reached it")]
    assert bool(lacking) == (made.layer == 4), "the hybrid has two layers more, and matrices of other names"


@pytest.mark.parametrize("mix", ["Q4_K_M", "IQ2_XXS", "Q2_K_S"])
def test_stock_mixes_keep_them_at_a_type_without_importances_as_is_foretold(mix: str, made: Made, tmp_path: Path) -> None:
    built = quantize.quantize(tmp_path, gguf=made.gguf, imatrix=made.imatrix, type=mix, name="mini", threads=THREADS)
    found, foretold = types(tmp_path / str(built["file"])), quantize.planned(made.gguf, mix, made.imatrix)
    assert {found[name] for name in made.unused} == {"Q8_0"}
    assert {found[name] for name in layout_names(made)} != {"Q8_0"}
    assert {name: tensor.type.name for name, tensor in foretold.items()} == found
    assert 0 <= built["bytes"] - quantize.file_bytes(ggufs.weigh(made.gguf).header_bytes, foretold.values()) < 512
    assert file_checks.gguf(tmp_path / str(built["file"]), made.gguf, threads=THREADS).details == ()
    assert not [fault for fault in file_checks.weights(tmp_path / str(built["file"]), made.gguf).details if any(name in fault for name in made.unused)]


def layout_names(made: Made) -> list[str]:
    """What is left to plan."""
    return [tensor.name for tensor in layout.quantizable(made.gguf, made.imatrix)]


def test_gradients_rounding_and_plans_go_without_them(made: Made, tmp_path: Path) -> None:
    sensitivity, planned, rounded = (tmp_path / name for name in ("sensitivity", "plan", "rounded"))
    for folder in (sensitivity, planned, rounded):
        folder.mkdir()
    text = {**TEXT, "tokens": 512}
    found = measure.measure(sensitivity, model=made.model, gguf=made.gguf, imatrix=made.imatrix, rounding=True, **text)
    assert (found["provider"], found["reason"]) == ("fisher", None), "transformers does not load them, which is no reason to fall back on probes"
    assert [tensor.name for tensor in Sensitivity.load(sensitivity).tensors] == layout_names(made)
    importances = sensitivity / "importances.gguf"
    chosen = plan(planned, sensitivity=sensitivity, gguf=made.gguf, imatrix=importances, budget={"like": "Q4_K_M"}, threads=THREADS)
    mix = json.loads((planned / "mix.json").read_text())
    assert {mix[name] for name in made.unused} == {"Q8_0"}
    built = quantize.mixed(planned, gguf=made.gguf, imatrix=importances, mix=planned / "mix.json", name="mini", tag="UD-Q4_K_XL", threads=THREADS)
    assert 0 <= built["bytes"] - chosen["bytes"] < 512
    assert types(planned / str(built["file"])) | mix == types(planned / str(built["file"]))
    anew = improve.improve(rounded, quantized=planned / str(built["file"]), gguf=made.gguf, statistics=sensitivity, threads=THREADS)
    assert anew["improved"]
    assert not set(anew["improved"]) & set(made.unused)


def test_a_recipe_can_leave_them_out(made: Made, tmp_path: Path) -> None:
    file = tmp_path / str(convert.convert(tmp_path, model=made.model, name="mini", mtp=False)["file"])
    fields = {name.partition(".")[2]: field.contents() for name, field in GGUFReader(file).fields.items()}
    assert fields["block_count"] == made.layer
    assert "nextn_predict_layers" not in fields
    assert set(types(file)) == {name for name in types(made.gguf) if not name.startswith(f"blk.{made.layer}.")}


@pytest.mark.parametrize("kind", LAYERS)
def test_what_the_weights_lost_is_not_announced(kind: str, tmp_path: Path) -> None:
    """As after a fine-tuning: transformers saves no such layer, and the converter of Qwen3-Next ends without one."""
    make: Callable[..., Path] = getattr(predicting, kind)
    file = tmp_path / str(convert.convert(tmp_path, model=make(tmp_path / "model", predicts=False), name="mini")["file"])
    assert not any(name.endswith("nextn_predict_layers") for name in GGUFReader(file).fields)
    assert graph.multiplied(file) >= {entry.name for entry in quantizable.in_layers(file)}


def test_an_architecture_whose_converter_cannot_leave_them_out_is_told_in_words(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights.update({name.replace(".3.", ".4."): value.clone() for name, value in weights.items() if ".layers.3." in name})

    releases.change_weights(model, add)
    with pytest.raises(UpstreamError, match="cannot leave out layers for multi-token prediction of LlamaForCausalLM.*multi_token_prediction: true"):
        convert.convert(tmp_path, model=model, name="tiny-chat", mtp=False)


def test_of_a_model_that_has_none_nothing_has_to_be_left_out(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    """Whatever its converter knows to leave out: one recipe is for many models."""
    made = convert.convert(tmp_path, model=fixed, mtp=False, **CONVERTED)
    assert (tmp_path / str(made["file"])).read_bytes() == gguf.read_bytes()


def test_they_are_told_by_their_names() -> None:
    names = {"mtp.fc.weight", "model.layers.1.up.weight", "model.layers.2.up.weight", "model.language_model.layers.3.up.weight", "vision.layers.9.up.weight"}
    drafting = {"mtp.fc.weight", "model.layers.2.up.weight", "model.language_model.layers.3.up.weight"}
    for config in ({"num_hidden_layers": 2}, {"text_config": {"num_hidden_layers": 2}}):
        assert layers.found(names, config) == drafting
    assert layers.found(names, {}) == {"mtp.fc.weight"}


def test_their_cache_is_not_counted() -> None:
    shape = {"attention.head_count": 4, "attention.head_count_kv": 2, "embedding_length": 64}
    with_one, without = (
        {"general.architecture": "glm4moe", **{f"glm4moe.{name}": value for name, value in (shape | layers).items()}}
        for layers in ({"block_count": 3, "nextn_predict_layers": 1}, {"block_count": 2})
    )
    assert cache_bytes(with_one, 100) == cache_bytes(without, 100) == 2 * 100 * 2 * (16 + 16) * 2
