"""What headers tell of weights that are quantized, before anything is downloaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builders import packed
from builders.weights import Tensor, read_header
from config.errors import UpstreamError
from config.recipe import Recipe
from config.words import Kind, Variant
from service.release.checks import Remark, architecture, lacking, quantized
from service.release.costs import outline, sizes
from service.release.kinds import kind_of
from service.release.prospect import Prospect
from tests import releases

MakeProspect = Callable[..., Prospect]


def of(prospect: MakeProspect, folder: Path) -> Prospect:
    """What is known of a model in a folder."""
    stored = {tensor.name: tensor for tensor in read_header(folder / "model.safetensors")}
    shapes = {name: tensor.shape for name, tensor in packed.plain(stored).items()}
    return replace(prospect(), stored=stored, shapes=shapes, sizes={"model.safetensors": (folder / "model.safetensors").stat().st_size})


def test_an_ordinary_release_is_not_spoken_of(prospect: MakeProspect) -> None:
    assert list(quantized.look(prospect())) == []


def test_what_only_config_json_calls_quantized_is_left_to_the_fixes(prospect: MakeProspect) -> None:
    known = prospect()
    assert list(quantized.look(replace(known, config={**known.config, "quantization_config": {"quant_method": "bitsandbytes"}}))) == []


def test_packed_weights_are_refused(prospect: MakeProspect) -> None:
    stored = {"a.qweight": Tensor(name="a.qweight", dtype="I32", shape=(4, 4), bytes=64, file="model.safetensors")}
    known = replace(prospect(), stored=stored, config={"quantization_config": {"quant_method": "awq"}})
    said = r"^upstream/model holds weights that are quantized already \(AWQ: a\.qweight in model\.safetensors\)\. Name the repo"
    with pytest.raises(UpstreamError, match=said):
        list(quantized.look(known))


@pytest.mark.parametrize(
    ("section", "said"), [("thinker_config", "is an omni model: "), ("language_config", "describes its language model as `language_config` in config.json")]
)
def test_a_language_model_within_another_is_refused_once(section: str, said: str, prospect: MakeProspect) -> None:
    stored = {"model.norm.weight": Tensor(name="model.norm.weight", dtype="BF16", shape=(64,), bytes=128, file="model.safetensors")}
    known = replace(prospect(), stored=stored, config={"architectures": ["Other"], "model_type": "other", section: {"hidden_size": 64}})
    with pytest.raises(UpstreamError, match=f"^upstream/model {said}"):
        list(quantized.look(known))
    assert list(architecture.unknown(known)) == list(lacking.look(known)) == []


def test_8_bits_are_reckoned_as_the_16_that_they_become(prospect: MakeProspect, tmp_path: Path) -> None:
    known, usual = of(prospect, releases.float8_original(tmp_path / "model")), prospect()
    (said,) = quantized.look(known)
    assert isinstance(said, Remark)
    assert "They are multiplied out to bfloat16 once (0.01 GB)" in said
    assert (known.parameters, known.reference) == (usual.parameters, "BF16")
    assert known.weights == pytest.approx(usual.weights, rel=0.001)
    assert known.weights > 1.2 * sum(known.sizes.values())


def test_mxfp4_is_reckoned_as_what_it_becomes_and_its_variant_as_what_it_is(prospect: MakeProspect, recipe: Callable[..., Recipe]) -> None:
    experts = "model.layers.0.mlp.experts.down_proj"
    stored = {
        f"{experts}_blocks": Tensor(name=f"{experts}_blocks", dtype="U8", shape=(4, 64, 2, 16), bytes=8192, file="model.safetensors"),
        f"{experts}_scales": Tensor(name=f"{experts}_scales", dtype="U8", shape=(4, 64, 2), bytes=512, file="model.safetensors"),
    }
    wanted = recipe(variants={"gguf": ["MXFP4"], "sixteen_bit": False})
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    known = replace(prospect(recipe=wanted), stored=stored, shapes={experts: (4, 64, 64)}, config=config)
    (said,) = quantized.look(known)
    assert isinstance(said, Remark)
    assert said.startswith("upstream/model holds weights in MXFP4. They are multiplied out to bfloat16 once")
    assert packed.plain(stored) == {experts: Tensor(name=experts, dtype="BF16", shape=(4, 64, 64), bytes=32768, file="model.safetensors")}
    assert (known.weights, known.reference) == (32768, "BF16")
    assert sizes.weight(known, variant("MXFP4")) == 8192 + 512
    assert list(quantized.look(prospect(recipe=wanted))) == [
        "upstream/model holds no weights in MXFP4, so there is no variant MXFP4 of it. Take it out of the recipe's variants."
    ]


@pytest.mark.parametrize(
    ("made", "type", "bits"), [(releases.float16_original, "F16", 16), (releases.float32_original, "F32", 32), (releases.clean, "BF16", 16)]
)
def test_the_file_that_all_are_made_from_is_known_beforehand(made: releases.Oddity, type: str, bits: int, prospect: MakeProspect, tmp_path: Path) -> None:
    known = of(prospect, made(tmp_path / "model"))
    assert known.reference == type
    assert [tag for tag in ("BF16", "F16", "F32") if kind_of(variant(tag)).original(known, variant(tag))] == [type]
    assert outline.outline(known).weights == known.parameters * bits / 8
    assert sizes.weight(known, variant("F32")) == 2 * sizes.weight(known, variant("BF16"))


def variant(tag: str) -> Variant:
    return Variant(tag=tag, kind=Kind.GGUF)
