"""Weights of 8 bits are multiplied out by one rule, in every form in which they are stored, and what does not add up is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import fixes, packed
from builders.fixes import stale_quantization
from builders.float8 import multiplied
from builders.weights import Tensor, read_header
from config.errors import UpstreamError
from engines import hf
from tests import releases
from tests.releases import edit, read

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
NAME = "model.layers.0.mlp.up_proj.weight"  # (768, 256)


def repaired(made: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    found: dict[str, Any] = fixes.repair(out, snapshot=made, repo="upstream/tiny-chat", fixes=True)
    return found


def test_blocks_are_multiplied_out_once_and_the_model_is_an_ordinary_one(tmp_path: Path) -> None:
    made = releases.float8_original(tmp_path / "made")
    found = repaired(made, tmp_path / "out")
    (patch,) = found["patches"]
    assert (patch["fix"], patch["file"], patch["key"], patch["after"]) == ("plain-weights", "config.json", "quantization_config", None)
    assert "(28 matrices in F8_E4M3, a scale for each block of 128 x 128)." in patch["reason"]
    assert "quantization_config" not in read(tmp_path / "out" / "config.json")
    before, after = load_file(made / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert set(after) == {name for name in before if not name.endswith("_scale_inv")}
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    numbers, scales = before[NAME].float(), before[f"{NAME}_scale_inv"]
    by_hand = torch.stack([torch.stack([numbers[row, column] * scales[row // 128, column // 128] for column in range(256)]) for row in (0, 127, 128, 767)])
    assert torch.equal(after[NAME][[0, 127, 128, 767]], by_hand.to(torch.bfloat16))
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    assert (found["parameters"], found["bpw"]) == (3_672_320, pytest.approx(16.01, abs=0.01))
    assert hf.stored_dtype(tmp_path / "out") is torch.bfloat16
    hf.require_all(tmp_path / "out")
    original = load_file(releases.clean(tmp_path / "clean") / "model.safetensors")[NAME].float()
    assert float((after[NAME].float() - original).norm() / original.norm()) < 0.04, "e4m3 keeps three bits of a mantissa"


def test_transformers_own_reading_of_blocks_is_the_same(tmp_path: Path) -> None:
    """Its dequantizer, for the same file, to bfloat16."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    made = releases.float8_original(tmp_path / "made")
    repaired(made, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(made, quantization_config=FineGrainedFP8Config(dequantize=True), dtype=torch.bfloat16).state_dict()
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(theirs[NAME], ours[NAME])


FORMS = {
    "one scale": (E4M3, torch.tensor([0.25]), "_scale", {"quant_method": "compressed-tensors", "format": "naive-quantized"}),
    "a scale without dimensions": (E4M3, torch.tensor(0.25), "_scale_inv", {"quant_method": "fp8", "weight_block_size": None}),
    "blocks of a group": (
        E4M3,
        torch.full((6, 2), 0.5),
        "_scale",
        {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"weights": {"block_structure": [128, 128]}}}},
    ),
    "rows": (E4M3, torch.arange(1, 769).float()[:, None] / 64, "_scale", {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "rows in bfloat16": (E4M3, torch.arange(1, 769).bfloat16() / 64, "_scale", {"quant_method": "fbgemm_fp8"}),
    "powers of two": (E4M3, torch.full((6, 2), 0.5).to(torch.float8_e8m0fnu), "_scale_inv", {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "another type": (E5M2, torch.tensor([2.0]), "_scale", {"quant_method": "modelopt"}),
    "no scale": (E4M3, None, "", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_scale(form: str, tmp_path: Path) -> None:
    dtype, scale, ending, described = FORMS[form]
    made = releases.clean(tmp_path / "made")
    weights = load_file(made / "model.safetensors")
    numbers = weights[NAME] = (weights[NAME].float() * 100).to(dtype)
    if scale is not None:
        weights |= {NAME + ending: scale, NAME.replace("weight", "input_scale"): torch.tensor([7.0]), "model.layers.0.self_attn.k_scale": torch.tensor(1.0)}
    save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
    edit(made / "config.json", quantization_config=described or releases.GONE)
    found = repaired(made, tmp_path / "out")
    assert {patch["fix"] for patch in found["patches"]} == {"plain-weights"}
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert not any(name.endswith(("scale", "_inv")) for name in after)
    factor = torch.tensor(1.0) if scale is None else scale.float()
    factor = factor.reshape(-1, 1) if form.startswith("rows") else factor.flatten()[0]
    assert torch.equal(after[NAME], (numbers.float() * factor).to(torch.bfloat16))
    assert read(tmp_path / "out" / "config.json")["dtype"] == "bfloat16"
    assert repaired(tmp_path / "out", tmp_path / "again")["patches"] == []


def test_blocks_that_do_not_divide_a_matrix_end_with_it() -> None:
    numbers, scales = torch.ones(5, 7).to(E4M3), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = torch.tensor([[1.0] * 4 + [2.0] * 3] * 3 + [[3.0] * 4 + [4.0] * 3] * 2)
    assert torch.equal(multiplied(numbers, scales, (3, 4)).float(), expected)
    experts = multiplied(torch.ones(2, 3, 4).to(E4M3), torch.tensor([2.0, 4.0]), (1,))
    assert experts[:, 0, 0].tolist() == [2.0, 4.0]


def test_blocks_that_nobody_states_are_of_128_where_that_fits() -> None:
    """As transformers takes them by default; a side of 192 with two scales has blocks of 128 and 64, not two of 96."""

    def blocks(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, ...]:
        held = {"a.weight": tensor("a.weight", "F8_E4M3", shape), "a.weight_scale_inv": tensor("a.weight_scale_inv", "F32", scales)}
        return packed.scaled({"quant_method": "fp8"}, held)["a.weight"].blocks

    assert blocks((192, 576), (2, 5)) == (128, 128)
    assert blocks((256, 384), (4, 3)) == (64, 128)
    assert blocks((192, 448), (192, 1)) == (1, 448)


def test_what_transformers_saves_of_blocks_that_it_multiplied_out_is_the_same_model(tmp_path: Path) -> None:
    """Transformers (5.23.0) writes the weights in 8 bits again, embeddings too, and nothing in config.json that says so."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    made, saved = releases.float8_original(tmp_path / "made"), tmp_path / "saved"
    theirs = AutoModelForCausalLM.from_pretrained(made, quantization_config=FineGrainedFP8Config(dequantize=True), dtype=torch.bfloat16)
    theirs.save_pretrained(saved)
    for path in made.iterdir():
        if not (saved / path.name).exists():
            (saved / path.name).write_bytes(path.read_bytes())
    assert "quantization_config" not in read(saved / "config.json")
    assert load_file(saved / "model.safetensors")[NAME].dtype is E4M3
    repaired(saved, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    for name in (NAME, "model.embed_tokens.weight", "model.norm.weight"):
        before = theirs.state_dict()[name].float()
        assert float((after[name].float() - before).norm() / before.norm()) < 0.04, name


def test_shards_are_indexed_anew_even_where_scales_lie_in_another(tmp_path: Path) -> None:
    made = releases.in_shards(tmp_path / "made")
    whole = load_file(releases.float8_original(tmp_path / "whole") / "model.safetensors")
    edit(made / "config.json", quantization_config=read(tmp_path / "whole" / "config.json")["quantization_config"])
    index = read(made / "model.safetensors.index.json")["weight_map"]
    scales = {name for name in whole if name.endswith("_scale_inv")}
    index = {name: "model-00001-of-00003.safetensors" if name in scales else index[name] for name in whole}
    index |= dict.fromkeys([name for name in index if "norm" in name], "model-00003-of-00003.safetensors")
    for file in set(index.values()):
        save_file({name: whole[name] for name in whole if index[name] == file}, made / file, metadata={"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in whole.values())
    (made / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}))
    assert {patch["fix"] for patch in repaired(made, tmp_path / "out")["patches"]} == {"plain-weights"}
    after = read(tmp_path / "out" / "model.safetensors.index.json")
    assert after["weight_map"] == {name: file for name, file in index.items() if name not in scales}
    held = {tensor.name: tensor for file in set(index.values()) for tensor in read_header(tmp_path / "out" / file)}
    assert after["metadata"]["total_size"] == sum(tensor.bytes for tensor in held.values())
    assert {name: tensor.file for name, tensor in held.items()} == after["weight_map"]
    one = repaired(tmp_path / "whole", tmp_path / "alone")
    assert one["parameters"] == 3_672_320
    assert torch.equal(load_file(tmp_path / "out" / held[NAME].file)[NAME], load_file(tmp_path / "alone" / "model.safetensors")[NAME])
    hf.require_all(tmp_path / "out")


def test_a_file_without_such_weights_is_only_linked(tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    repaired(made, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").samefile(made / "model.safetensors")


# ---- what is refused --------------------------------------------------------------------------------------------------------------------------


def tensor(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (256, 256)) -> Tensor:
    return Tensor(name=name, dtype=dtype, shape=shape, bytes=0, file="model.safetensors")


EIGHT, SCALE = tensor("a.weight", "F8_E4M3"), tensor("a.weight_scale_inv", "F32", (2, 2))
OTHER = ("a.scale", "a.scale_weight", "a.weight.scale", "a.weight_scales", "a.w_scale")


@pytest.mark.parametrize(
    ("method", "tensors", "words"),
    [
        ("gptq", [tensor("a.qweight", "I32"), tensor("a.qzeros", "I32"), tensor("a.g_idx", "I32")], "(GPTQ: a.g_idx in model.safetensors)"),
        ("awq", [tensor("a.qweight", "I32"), tensor("a.qzeros", "I32")], "(AWQ: a.qweight in model.safetensors)"),
        ("bitsandbytes", [tensor("a.weight", "U8"), tensor("a.weight.absmax", "U8")], "(bitsandbytes: a.weight.absmax in model.safetensors)"),
        ("", [tensor("a.weight", "I8"), tensor("a.SCB", "F32")], "(bitsandbytes: a.SCB in model.safetensors)"),
        ("mxfp4", [tensor("a.experts.gate_up_proj_blocks", "U8")], "(MXFP4: a.experts.gate_up_proj_blocks in model.safetensors)"),
        ("compressed-tensors", [tensor("a.weight_packed", "I32")], "(compressed-tensors: a.weight_packed in model.safetensors)"),
        ("modelopt", [tensor("a.weight", "U8"), tensor("a.weight_scale_2", "F32")], "(modelopt: a.weight_scale_2 in model.safetensors)"),
        (
            "compressed-tensors",
            [tensor("a.weight", "I8"), tensor("a.weight_scale", "F32", (256, 1))],
            "(compressed-tensors: a.weight in model.safetensors is I8)",
        ),
        *(
            ("", [tensor("a.weights", type)], f"({bits} bits")
            for type, bits in (("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8))
        ),
        ("nvfp4", [tensor("a.weight", "F4")], "(nvfp4: a.weight in model.safetensors is F4)"),
        ("", [tensor("a.weight", "U8")], "(integers: a.weight in model.safetensors is U8)"),
        ("fp8", [EIGHT], "(a.weight in model.safetensors is F8_E4M3, and its scale a.weight_scale_inv is missing)"),
        (
            "fp8",
            [EIGHT, tensor("a.weight_scale_inv", "F32", (3, 2))],
            "(a.weight_scale_inv in model.safetensors has the shape [3, 2], which does not fit [256, 256])",
        ),
        ("fp8", [EIGHT, tensor("a.weight_scale_inv", "F32", (2, 2, 2))], "has the shape [2, 2, 2], which does not fit"),
        ("fp8", [EIGHT, tensor("a.weight_scale_inv", "F32", (0, 2))], "has the shape [0, 2], which does not fit"),
        *(
            (method, [EIGHT, tensor(name, "F32", (2, 2))], f"nobody can tell what {name} in model.safetensors beside it")
            for method in ("fp8", "")
            for name in OTHER
        ),
        ("fp8", [EIGHT, SCALE, tensor("a.weight_zero_point", "F32", (2, 2))], "(a.weight in model.safetensors is F8_E4M3, and nobody can tell what"),
        ("fp8", [EIGHT, tensor("a.weight_scale", "U8", (256, 8))], "(a.weight_scale in model.safetensors is U8, not a number to multiply with)"),
    ],
)
def test_other_quantized_weights_are_refused_by_name(method: str, tensors: list[Tensor], words: str) -> None:
    config = {"quantization_config": {"quant_method": method, "weight_block_size": [128, 128]}} if method else {}
    said = packed.refusal(config, {item.name: item for item in tensors})
    assert said is not None
    assert said.startswith("holds weights that are quantized already (")
    assert words in said
    assert said.endswith("Name the repo with the 16-bit weights that it was made from.")


@pytest.mark.parametrize("name", ["score.weight", "v_head.summary.weight", "model.score.weight", "classifier.dense.weight"])
def test_a_model_that_rates_texts_is_none_that_writes_them(name: str, tmp_path: Path) -> None:
    made = releases.change_weights(releases.clean(tmp_path / "made"), lambda weights: weights.update({name: torch.ones(1, 256)}))
    with pytest.raises(UpstreamError, match=rf"^upstream/tiny-chat is no language model but one that rates or sorts texts: {name} in model\.safetensors is"):
        repaired(made, tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
            "as BitNet, each is rounded to three values in every pass",
        ),
        ({"quant_method": "fp_quant", "store_master_weights": True}, "quantization_config of config.json says 'fp_quant' of them"),
        ({"quant_method": ["junk"]}, "left over"),
    ],
)
def test_weights_that_are_stored_in_one_way_and_used_in_another_are_refused(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    made = releases.clean(tmp_path / "made")
    edit(made / "config.json", quantization_config=said)
    with pytest.raises(UpstreamError, match=rf"^upstream/tiny-chat .*{re.escape(words)}"):
        repaired(made, tmp_path / "out")
    files, tensors = {"config.json": {"quantization_config": said}}, {"a": tensor("a")}
    assert stale_quantization.repair(files, None, tensors=tensors) == [], "nor is it taken for left over"
    eight = {item.name: item for item in (EIGHT, tensor("a.weight_scale", "F32", (1,)))}
    assert packed.refusal(files["config.json"], eight) is None, "numbers of 8 bits are multiplied out"


def test_complex_numbers_are_refused_as_what_they_are() -> None:
    said = packed.refusal({}, {"a.freqs_cis": tensor("a.freqs_cis", "C64")})
    assert said is not None
    assert "holds complex numbers, which are no language model's: a.freqs_cis in model.safetensors is C64." in said


def test_numbers_that_are_values_and_scales_that_are_known_are_not_refused() -> None:
    beside = [tensor("a.bias"), tensor("b.scale"), tensor("a.input_scale", "F32", ()), tensor("a.input_scale_ub", "F32", (1,)), tensor("a.weight_bias")]
    assert packed.refusal({}, {item.name: item for item in (EIGHT, *beside)}) is None
    known = {item.name: item for item in (EIGHT, SCALE, tensor("a.scale"), *beside)}
    assert packed.refusal({"quantization_config": {"quant_method": "fp8"}}, known) is None, "a module may have a scale of its own"
    assert set(packed.plain(known)) == {"a.weight", "a.scale", "a.bias", "a.weight_bias", "b.scale"}


def test_what_is_sound_is_not_refused() -> None:
    names = [
        "model.layers.0.mlp.gate.e_score_correction_bias",
        "lm_head.weight",
        "model.layers.0.block_sparse_moe.experts.0.w1.weight",
        "transformer.h.0.attn.bias",
    ]
    sound = {name: tensor(name) for name in names} | {"transformer.h.0.attn.masked": tensor("transformer.h.0.attn.masked", "U8", (1, 1, 8, 8))}
    assert packed.refusal({}, sound) is None
    assert packed.refusal({"quantization_config": {"quant_method": "bitsandbytes"}}, sound) is None, "a stale remark, which a fix removes"
    assert packed.refusal({"quantization_config": 7, "text_config": 7}, sound) is None
    assert packed.plain(sound) == sound
