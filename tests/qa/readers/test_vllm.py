"""vLLM's own model of a folder, without weights: the program is fetched by `make readers` alone (1.1 GB), so that it is skipped elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import bnb
from qa.readers import vllm
from qa.readers.words import BITS16, NF4, Refusal, Result, Variant
from tests.qa.conftest import Release
from tests.releases import edit

FOUR: Mapping[str, Any] = {"name": "model.layers.0.mlp.down_proj", "plain": False, "parts": 1, "stored": ["U8"]}
PLAIN: Mapping[str, Any] = {"name": "model.layers.0.self_attn.qkv_proj", "plain": True, "parts": 3, "stored": ["BF16"] * 3}


def test_layers_are_held_against_what_is_stored() -> None:
    found = vllm.compared("Net", "bitsandbytes", [FOUR, PLAIN])
    assert (found.result, found.words) == (Result.SAME, "Net with bitsandbytes, 1 of 2 layers in 4 bits; not run")
    mixed = {**PLAIN, "stored": ["BF16", "U8", "BF16"]}
    assert vllm.compared("Net", "bitsandbytes", [FOUR, mixed]).words == f"it looks for {PLAIN['name']} in another form than is stored"
    assert vllm.compared("Net", "bitsandbytes", [{**FOUR, "plain": True}]).result is Result.OTHER
    lacking = vllm.compared("Net", None, [{**PLAIN, "stored": ["BF16"] * 2}] * 3)
    assert lacking.words == f"it looks for {PLAIN['name']}, {PLAIN['name']} and 1 more layers, which no file holds"


def given(folder: Path, form: str) -> Variant:
    return Variant(tag="x", form=form, path=folder, files=(folder / "model.safetensors",), folder=folder, repo="readers/x")


def nothing() -> Any:
    raise AssertionError("nothing is computed")


@pytest.mark.slow
@pytest.mark.skipif(vllm.READER.missing() is not None, reason="vLLM is not installed: `make readers` does")
def test_vllm_looks_for_each_layer_in_the_form_in_which_it_is_stored(clean: Release, tmp_path: Path) -> None:
    assert vllm.ask(given(clean.model, BITS16), nothing).words == "LlamaForCausalLM with no quantization, 0 of 16 layers in 4 bits; not run"
    kept = ["model.layers.1.mlp.down_proj", *(f"model.layers.0.self_attn.{part}_proj" for part in "qkv")]
    bnb.quantize(tmp_path, model=clean.model, threads=1, skip=kept)
    variant = given(tmp_path, NF4)
    assert vllm.ask(variant, nothing).words == "LlamaForCausalLM with bitsandbytes, 14 of 16 layers in 4 bits; not run"
    edit(tmp_path / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]})
    assert vllm.ask(variant, nothing).words == f"it looks for model.layers.0.self_attn.qkv_proj, {kept[0]} in another form than is stored"
    edit(tmp_path / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "float32"})
    with pytest.raises(Refusal, match="Unsupported bnb_4bit_quant_storage: float32"):
        vllm.ask(variant, nothing)
