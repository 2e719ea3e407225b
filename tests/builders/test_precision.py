"""The GGUF file that everything is made from holds the upstream's weights bit for bit, whatever they are stored in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file

from builders import convert, precision
from builders.weights import Tensor
from config.errors import UpstreamError
from tests import releases

FINE = 1 + 2**-20  # needs 32 bits


def converted(model: Path, out: Path) -> tuple[str, dict[str, np.ndarray]]:
    """The file's name, and the values of its tensors."""
    out.mkdir()
    found = convert.convert(out, model=model, name="tiny")
    assert found["file"] == f"tiny-{found['type']}.gguf"
    tensors = GGUFReader(out / str(found["file"])).tensors
    assert {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) > 1} == {found["type"]}
    return str(found["file"]), {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}


@pytest.mark.parametrize(("made", "type"), [(releases.float16_original, "F16"), (releases.float32_original, "F32"), (releases.clean, "BF16")])
def test_every_weight_is_the_upstreams(made: releases.Oddity, type: str, tmp_path: Path) -> None:
    model = made(tmp_path / "model")
    file, values = converted(model, tmp_path / "out")
    assert file == f"tiny-{type}.gguf"
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for name, own in load_file(model / "model.safetensors").items():
        part = name.removeprefix("model.layers.").partition(".")
        short = {
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        }
        if (known := short.get(part[2].removesuffix(".weight"))) is not None:
            names[f"blk.{part[0]}.{known}.weight"] = name
        elif "q_proj" in name or "k_proj" in name:  # whose rows the converter puts in another order
            there = values[f"blk.{part[0]}.attn_{part[2][10]}.weight"]
            assert np.array_equal(np.sort(there, axis=0), np.sort(own.float().numpy(), axis=0)), name
    upstream = load_file(model / "model.safetensors")
    for there, name in names.items():
        assert np.array_equal(values[there].view(np.uint32), upstream[name].float().numpy().view(np.uint32)), name
    assert len(names) == 2 + 5 * 4


@pytest.mark.parametrize(("dtype", "type"), [(torch.bfloat16, "BF16"), (torch.float16, "F16")])
def test_what_was_only_saved_in_32_bits_needs_16(dtype: torch.dtype, type: str, tmp_path: Path) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        weights.update({name: value.to(dtype).float() for name, value in weights.items()})

    made = releases.float16_original if type == "F16" else releases.clean
    assert precision.exact(releases.change_weights(made(tmp_path / "model"), widen)) == type


def saved(folder: Path, **weights: torch.Tensor) -> Path:
    save_file({name.replace("__", "."): value for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def test_what_the_converter_keeps_in_32_bits_decides_nothing(tmp_path: Path) -> None:
    half, whole = torch.ones(4, 4, dtype=torch.bfloat16), torch.full((4, 4), FINE)
    router, norm = {"model__layers__0__block_sparse_moe__gate__weight": whole}, {"model__norm__weight": whole[0].clone()}
    assert precision.exact(saved(tmp_path, model__embed_tokens__weight=half, **router, **norm)) == "BF16"
    assert precision.exact(saved(tmp_path, model__embed_tokens__weight=half, model__visual__patch__weight=whole)) == "BF16"
    assert precision.exact(saved(tmp_path, model__embed_tokens__weight=half, model__layers__0__mlp__up_proj__weight=whole)) == "F32"


def test_types_of_16_bits_side_by_side_need_32_unless_one_holds_both(tmp_path: Path) -> None:
    fine = torch.full((4, 4), 1 + 2**-10, dtype=torch.float16)
    large = torch.full((4, 4), 2.0**100, dtype=torch.bfloat16)
    assert precision.exact(saved(tmp_path, a__weight=fine, b__weight=large)) == "F32"
    assert precision.exact(saved(tmp_path, a__weight=fine, b__weight=torch.ones(4, 4, dtype=torch.bfloat16))) == "F16"
    assert precision.exact(saved(tmp_path, a__weight=torch.ones(4, 4, dtype=torch.float16), b__weight=large)) == "BF16"


def test_headers_tell_the_type_or_the_most_it_can_be() -> None:
    def of(*dtypes: str) -> str:
        return precision.stated(Tensor(name=f"{number}.weight", dtype=dtype, shape=(2, 2), bytes=8) for number, dtype in enumerate(dtypes))

    assert [of("BF16", "BF16"), of("F16"), of("F32"), of("F16", "BF16"), of("BF16", "I64"), of()] == ["BF16", "F16", "F32", "F32", "BF16", "BF16"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named_with_its_file(value: float, tmp_path: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["model.embed_tokens.weight"][2000, 3] = value  # a token that no text of a check holds

    model = releases.change_weights(releases.clean(tmp_path / "model"), spoil)
    (tmp_path / "out").mkdir()
    with pytest.raises(UpstreamError, match=r"not numbers .*: model\.embed_tokens\.weight in model\.safetensors\. Nothing sound can be made"):
        convert.convert(tmp_path / "out", model=model, name="tiny")
    assert list((tmp_path / "out").iterdir()) == []


Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"), r"lacks model\.layers\.1\.mlp\.up_proj\.weight, which the architecture"),
        (lambda weights: weights.update({"model.layers.9.odd.weight": torch.ones(2, 2)}), r"holds the tensor model\.layers\.9\.odd\.weight, which the conv"),
    ],
)
def test_weights_that_are_missing_or_of_no_use_are_named(change: Change, words: str, tmp_path: Path) -> None:
    model = releases.change_weights(releases.clean(tmp_path / "model"), change)
    (tmp_path / "out").mkdir()
    with pytest.raises(UpstreamError, match=words):
        convert.convert(tmp_path / "out", model=model, name="tiny")
    assert list((tmp_path / "out").iterdir()) == []
