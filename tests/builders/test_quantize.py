"""llama.cpp's stock mixes: size, metadata, determinism, and sizes foretold."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFReader, dequantize

from builders import convert, quantize, twins
from builders.ggufs import weigh
from builders.plan.capacity import IMATRIX_BYTES, capacity
from config.digests import file_sha256
from config.errors import ToolError
from config.plans import Budget, GgufType
from engines import tools
from qa import file_checks

MODEL = Path(__file__).parents[2] / "demo" / "model"
Foretold = Callable[[str], int]

FAST = ("Q2_K", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "IQ2_XXS")
WHOLE = ("F32", "BF16", "F16")  # no quantized types, see below
TYPES = [type_ if type_ in FAST else pytest.param(type_, marks=pytest.mark.slow) for type_ in get_args(GgufType) if type_ not in WHOLE]


@pytest.mark.parametrize("type_", TYPES)
def test_a_mix_is_as_large_as_foretold_and_holds_no_paths(gguf: Path, imatrix: Path, foretold: Foretold, tmp_path: Path, type_: str) -> None:
    result = quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type=type_, name="tiny-chat", threads=2)
    file = tmp_path / f"tiny-chat-{type_}.gguf"
    assert [path.name for path in tmp_path.iterdir()] == [result["file"]] == [file.name]
    assert result["bytes"] == file.stat().st_size < gguf.stat().st_size
    assert 0 <= result["bytes"] - foretold(type_) < 512
    tensors = GGUFReader(file).tensors
    assert result["bpw"] == pytest.approx(8 * sum(int(tensor.n_bytes) for tensor in tensors) / 3_672_320)
    fields = GGUFReader(file).fields
    assert (fields["quantize.imatrix.file"].contents(), fields["quantize.imatrix.dataset"].contents()) == ("imatrix.gguf", "calibration.txt")
    told = [name for name in GGUFReader(gguf).fields if name.startswith(("general.license", "general.base_model", "general.languages", "general.tags"))]
    assert {name: fields[name].contents() for name in told} == {name: GGUFReader(gguf).fields[name].contents() for name in told}
    assert b"/tmp" not in file.read_bytes()


def test_float16_keeps_every_weight_that_it_can_hold(gguf: Path, imatrix: Path, foretold: Foretold, tmp_path: Path) -> None:
    result = quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type="F16", name="tiny-chat", threads=2)
    assert 0 <= result["bytes"] - foretold("F16") < 512
    before = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    for tensor in GGUFReader(tmp_path / result["file"]).tensors:
        original = before[tensor.name]
        assert tensor.tensor_type.name == ("F16" if original.tensor_type.name == "BF16" else "F32")
        values = [dequantize(item.data, item.tensor_type).astype(np.float16) for item in (original, tensor)]
        np.testing.assert_array_equal(*values)


def test_mixes_are_ordered_by_size(gguf: Path, foretold: Foretold) -> None:
    sizes = [foretold(type_) for type_ in ("IQ1_S", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")]
    assert [*sizes, gguf.stat().st_size] == sorted([*sizes, gguf.stat().st_size])


def test_the_same_again_gives_the_same_bytes_with_any_number_of_threads(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    digests = set()
    for threads in (1, 2):
        out = tmp_path / str(threads)
        out.mkdir()
        digests.add(file_sha256(out / str(quantize.quantize(out, gguf=gguf, imatrix=imatrix, type="Q4_K_M", name="x", threads=threads)["file"])))
    assert len(digests) == 1


def test_bf16_is_the_file_itself(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    result = quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type="BF16", name="renamed", threads=1)
    assert (tmp_path / "renamed-BF16.gguf").samefile(gguf)
    assert result["bytes"] == gguf.stat().st_size
    assert result["bpw"] == weigh(gguf).bpw == pytest.approx(16.01, abs=0.01)


@pytest.mark.parametrize("own", ["F16", "F32"])
def test_each_type_may_be_the_file_itself_and_all_others_are_conversions(own: str, gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "source.gguf", tmp_path / "out"
    tools.run("llama-quantize", gguf, source, own, "1")
    out.mkdir()
    assert quantize.unquantized(source) == own
    for type_ in ("BF16", "F16", "F32", "Q8_0"):
        made = out / str(quantize.quantize(out, gguf=source, imatrix=imatrix, type=type_, name="x", threads=1)["file"])
        assert made.samefile(source) == (type_ == own)
        assert {tensor.tensor_type.name for tensor in GGUFReader(made).tensors if len(tensor.shape) > 1} == {type_}
        assert file_checks.weights(made, source).details == ()


@pytest.mark.parametrize("own", ["F16", "F32"])
def test_budgets_that_speak_of_unquantized_files_are_their_sizes(own: str, gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    tools.run("llama-quantize", gguf, source, own, "1")
    planned = {name for name, tensor in quantize.planned(source, "Q8_0", imatrix).items() if tensor.quantized}
    for type_ in ("BF16", "F16", "F32"):
        made = tmp_path / str(quantize.quantize(tmp_path, gguf=source, imatrix=imatrix, type=type_, name="x", threads=1)["file"])
        room = capacity(Budget(like=type_), gguf=source, imatrix=imatrix, planned=planned)
        assert room.planned + room.overhead == pytest.approx(made.stat().st_size, abs=IMATRIX_BYTES), type_


def test_what_is_planned_for_each_tensor(gguf: Path) -> None:
    plan = quantize.planned(gguf, "Q4_0")
    assert len(plan) == 38
    assert not plan["blk.0.attn_norm.weight"].quantized
    assert (plan["blk.0.attn_q.weight"].type.name, plan["blk.0.attn_q.weight"].bytes) == ("Q4_0", 256 * 256 // 32 * 18)


def test_a_tool_that_fails_says_why_and_leaves_nothing(imatrix: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.gguf", tmp_path / "out"
    broken.write_bytes(b"GGUF" + b"\0" * 60)
    out.mkdir()
    with pytest.raises(ToolError, match="llama-quantize ended with exit code"):
        quantize.quantize(out, gguf=broken, imatrix=imatrix, type="Q4_0", name="x", threads=1)
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_types_that_stand_in_where_rows_do_not_fit_blocks_of_256_are_named(tmp_path: Path) -> None:
    transformers.set_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 2048, "num_attention_heads": 3, "num_key_value_heads": 3}
    model = Path(shutil.copytree(MODEL, tmp_path / "model"))
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).to(torch.bfloat16).save_pretrained(model)
    whole = tmp_path / str(convert.convert(tmp_path, model=model, name="narrow")["file"])
    for type_, narrow in (("Q4_K_M", "Q5_0"), ("Q8_0", None), ("IQ4_NL", None)):
        tools.run("llama-quantize", whole, tmp_path / f"{type_}.gguf", type_, "1")
        found = quantize.fallbacks(tmp_path / f"{type_}.gguf", type_)
        assert "ffn_down" not in {role for roles in found.values() for role in roles}, "its rows are 256 long"
        if narrow is None:
            assert found == {}
        else:
            assert found[narrow]["attn_q"] == found[narrow]["ffn_up"] == [0, 1]
    for type_ in ("Q2_K", "Q3_K_S"):
        tools.run("llama-quantize", whole, tmp_path / f"{type_}.gguf", type_, "1")
    assert file_sha256(tmp_path / "Q2_K.gguf") != file_sha256(tmp_path / "Q3_K_S.gguf")
    assert twins.compare(tmp_path, one=tmp_path / "Q2_K.gguf", other=tmp_path / "Q3_K_S.gguf") == {"same": True}, (
        "both are Q4_0 where rows fit no blocks of 256"
    )
