"""The importance matrix by transformers is llama-imatrix's, and llama-quantize reads it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader

from builders import calibrate, convert, fixes, inputs, quantize
from builders.sensitivity import importances, room
from config.errors import UnsupportedModel
from engines import hf, quantizable
from tests.builders.conftest import CALIBRATION, ROOT

WAYS = {
    torch.float32: 0.01,
    torch.bfloat16: 0.03,
}  # the largest relative difference of a tensor; llama.cpp rounds what enters products to bfloat16


def compared(mine: Path, llama: Path) -> dict[str, float]:
    """Of each tensor ‖difference‖ / ‖llama-imatrix's‖, all experts together."""
    own, right = importances.read(mine), importances.read(llama)
    assert own.keys() == {name for name in right if quantizable.allowed(name)}  # llama-imatrix sees routers too, which nobody quantizes
    assert all(np.array_equal(entry.counts, right[name].counts) or len(entry.counts) > 1 for name, entry in own.items())
    return {name: float(np.linalg.norm(entry.sums - right[name].sums) / np.linalg.norm(right[name].sums)) for name, entry in own.items()}


@pytest.mark.parametrize("dtype", WAYS, ids=str)
def test_it_agrees_with_llama_imatrix_on_every_tensor(fixed: Path, gguf: Path, imatrix: Path, tmp_path: Path, dtype: torch.dtype, monkeypatch) -> None:
    monkeypatch.setattr(room, "working", lambda stored, on: dtype)
    result = inputs.imatrix(tmp_path, model=fixed, gguf=gguf, **CALIBRATION)
    assert result == {"file": "imatrix.gguf", "tokens": 4096, "chunks": 16}
    found = compared(tmp_path / "imatrix.gguf", imatrix)
    assert len(found) == 28
    assert max(found.values()) < WAYS[dtype]
    fields, right = (GGUFReader(path).fields for path in (tmp_path / "imatrix.gguf", imatrix))
    assert {name: field.contents() for name, field in fields.items() if name.startswith("imatrix.")} == {
        name: field.contents() for name, field in right.items() if name.startswith("imatrix.")
    }


def test_experts_have_the_tokens_that_reach_them(tmp_path: Path) -> None:
    model, base, mine, llama = (tmp_path / name for name in ("model", "base", "mine", "llama"))
    for folder in (model, base, mine, llama):
        folder.mkdir()
    fixes.repair(model, snapshot=ROOT / "bench" / "models" / "mixtral", repo="upstream/mixture", fixes=True)
    gguf = base / str(convert.convert(base, model=model, name="mixture")["file"])
    inputs.imatrix(mine, model=model, gguf=gguf, **CALIBRATION)
    calibrate.imatrix(llama, model=model, gguf=gguf, **CALIBRATION)
    found, right = (importances.read(folder / "imatrix.gguf") for folder in (mine, llama))
    assert max(compared(mine / "imatrix.gguf", llama / "imatrix.gguf").values()) < 0.05  # a router chooses otherwise where two experts are as good
    counts, wanted = (entries["blk.1.ffn_down_exps.weight"].counts for entries in (found, right))
    assert len(counts) == 4
    assert counts == pytest.approx(wanted, rel=0.02)
    assert counts.sum() == wanted.sum()


def test_llama_quantize_reads_it(fixed: Path, gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    inputs.imatrix(tmp_path, model=fixed, gguf=gguf, **CALIBRATION)
    sizes = []
    for name, matrix in (("mine", tmp_path / "imatrix.gguf"), ("llama", imatrix)):
        (tmp_path / name).mkdir()
        sizes.append(quantize.quantize(tmp_path / name, gguf=gguf, imatrix=matrix, type="IQ2_XS", name="m", threads=1)["bytes"])
    assert abs(sizes[0] - sizes[1]) < 512  # names of files in the header


def test_a_gpu_is_used_where_there_is_one_and_the_model_shows_its_inputs(fixed: Path, gguf: Path, imatrix: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(room, "device", lambda: torch.device("cuda"))
    for name, way in (("whole", lambda out, **given: {"file": "theirs"}), ("hidden", unsupported)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(inputs, "imatrix", way)
        found = calibrate.imatrix(tmp_path / name, model=fixed, gguf=gguf, **CALIBRATION)
        assert found["file"] == ("theirs" if name == "whole" else "imatrix.gguf")


def unsupported(out: Path, **given: object) -> None:
    raise UnsupportedModel("no")


def test_a_matrix_that_nothing_is_seen_to_enter_is_named(fixed: Path, gguf: Path, monkeypatch) -> None:
    network = hf.load_model(fixed)
    placements = inputs.layout.find([tensor for tensor in inputs.layout.quantizable(gguf) if tensor.name == "blk.0.attn_v.weight"], network)
    layer = network.model.layers[0].self_attn.v_proj
    monkeypatch.setattr(layer, "forward", lambda states: states @ layer.weight.T)
    with pytest.raises(UnsupportedModel, match="does not show what enters blk.0.attn_v.weight"):
        inputs.sums(network, placements, np.arange(3, 67)[None])
