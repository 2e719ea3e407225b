"""The table of dynamic NF4, from the bundled model and one without layers that bitsandbytes quantizes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from builders import bnb, calibrate
from builders.sensitivity import nf4
from builders.sensitivity.sample import relative_error
from builders.sensitivity.table import Sensitivity
from builders.weights import stored
from config.errors import MeasurementError
from engines import hf
from engines import nf4 as engine
from tests.builders.conftest import DATA

CONTEXT = 128
TEXT = {"chat": [DATA / "calibration.jsonl"], "plain": [DATA / "calibration_questions.txt"]}


@pytest.fixture(scope="module")
def measured(fixed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Sensitivity]:
    out = tmp_path_factory.mktemp("table")
    result = nf4.measure(out, model=fixed, **TEXT, tokens=96 * CONTEXT, context=CONTEXT, threads=1)
    return result, Sensitivity.load(out)


@pytest.mark.slow
def test_the_table_has_the_layers_that_bitsandbytes_quantizes(measured: tuple[dict[str, object], Sensitivity], fixed: Path, tmp_path: Path) -> None:
    result, table = measured
    bnb.quantize(tmp_path, model=fixed, threads=1)
    packed = {name.removesuffix(".weight"): tensor.values for name, tensor in stored(tmp_path).items() if tensor.type == "NF4"}
    assert {tensor.name: tensor.parameters for tensor in table.tensors} == packed
    assert table.types == ("NF4", "BF16")
    assert not table.products[..., 1].any()
    assert (table.products[..., 0] != 0).all()
    assert result == {"provider": "fisher", "windows": 96, "tokens": 96 * CONTEXT, "relative_error": relative_error(table, nf4.mixes)}
    built = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True).model.layers[0].mlp.down_proj.weight
    original = AutoModelForCausalLM.from_pretrained(fixed, local_files_only=True).model.layers[0].mlp.down_proj.weight
    assert torch.equal(engine.pack(original).values(), engine.Packed(codes=built.data, state=built.quant_state).values()), "the error is the files' own"
    everything, some, more = (list(mix.values()).count("BF16") for mix in nf4.mixes(table))
    assert 0 == everything < some < more < len(table.tensors)


@pytest.mark.slow
def test_the_prediction_is_the_measured_divergence(measured: tuple[dict[str, object], Sensitivity], fixed: Path) -> None:
    table = measured[1]
    with hf.open_model(fixed, threads=1) as model:
        text = torch.from_numpy(calibrate.windows(hf.speaking(model.tokenizer), *TEXT.values(), tokens=24 * CONTEXT, context=CONTEXT))
        with torch.inference_mode():
            before = model.network(input_ids=text, use_cache=False).logits.log_softmax(-1)
            for tensor in table.tensors:
                weight = model.network.get_submodule(tensor.name).weight
                weight.copy_(engine.pack(weight).values())
            after = model.network(input_ids=text, use_cache=False).logits.log_softmax(-1)
    assert table.predict(next(nf4.mixes(table))).mean == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), rel=0.25)


def test_values_come_back_close_to_what_they_were() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32))
    packed = engine.pack(values)
    back = packed.values()
    assert (back.shape, back.dtype) == (values.shape, torch.float32)
    assert 0.003 < float(((back - values) ** 2).mean()) < 0.02  # 4 bits of normally distributed values: at best 0.0095, with a scale for each 64 a little more
    assert packed.codes.nbytes == values.numel() // 2


@pytest.mark.parametrize(
    ("module", "fused"),
    [
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.qkv_proj"),
        ("model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.o_proj"),
        ("model.layers.10.mlp.up_proj", "model.layers.10.mlp.gate_up_proj"),
        ("model.layers.1.mlp.down_proj", "model.layers.1.mlp.down_proj"),
        ("model.layers.1.self_attn.kv_b_proj", "model.layers.1.self_attn.kv_b_proj"),
    ],
)
def test_vllm_fuses_layers_under_names_of_its_own(module: str, fused: str) -> None:
    assert engine.fused(module) == fused


def test_fused_experts_and_their_router_are_left_out() -> None:
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(
            MixtralConfig(num_hidden_layers=2, hidden_size=64, intermediate_size=64, vocab_size=256, num_local_experts=4)
        )
    assert bnb.quantizable(network) == [f"model.layers.{layer}.self_attn.{part}_proj" for layer in range(2) for part in "qkvo"]


def test_a_model_without_such_layers_is_told(fixed: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config

    folder = tmp_path / "model"
    folder.mkdir()
    for path in fixed.iterdir():
        if path.name.startswith("tokenizer") or path.name in {"special_tokens_map.json", "chat_template.jinja"}:
            (folder / path.name).symlink_to(path)
    vocabulary = json.loads((fixed / "config.json").read_text())["vocab_size"]
    AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=vocabulary)).save_pretrained(folder)
    with pytest.raises(MeasurementError, match="bitsandbytes quantizes no layer of this model"):
        nf4.measure(tmp_path, model=folder, **TEXT, tokens=4 * CONTEXT, context=CONTEXT, threads=1)
