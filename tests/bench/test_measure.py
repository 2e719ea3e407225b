"""The bench's log: a file measured once is not measured again, and a torn line costs one file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from bench.plan import peers
from bench.plan.measure import Case, Log, Source, Text, build, measure
from builders.assemble import Assembler
from builders.sensitivity import importances
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from engines import ggml
from qa import texts

CONTEXT = 64


@pytest.fixture(scope="module")
def source(gguf: Path, imatrix: Path) -> Source:
    windows = np.random.default_rng(0).integers(10, 2000, size=(2, CONTEXT), dtype=np.int32)
    marks = np.full(windows.shape, texts.PLAIN, dtype=np.int8)
    assembler = Assembler(gguf, importances.load(imatrix), threads=1)
    text = Text(name="noise", windows=windows, marks=marks)
    files: dict[str, Any] = {"gguf": gguf, "imatrix": imatrix, "statistics": gguf.parent, "assembler": assembler}
    return Source(**files, texts=(text,), context=CONTEXT, digest="abc", rounding="def")


def test_a_bench_goes_on_where_it_ended(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    cases = [Case(stock="Q8_0"), Case(mix={"blk.0.attn_q.weight": "Q4_K"})]
    first = measure(source, cases[:1], Log(path), threads=1)
    assert first[0]["noise.kld"] > 0
    with path.open("a") as file:
        file.write('{"key": "torn')  # as when the power fails
    log = Log(path)
    assert list(log.rows.values()) == first
    both = measure(source, cases, log, threads=1)
    assert both[0] == first[0]
    assert both[1]["key"] != both[0]["key"]
    again = Log(path)
    assert [again.rows[case.key(source)] for case in cases] == both
    missing = replace(source, gguf=tmp_path / "gone.gguf")
    assert measure(missing, cases, again, threads=1) == both  # nothing is built that the log has


def test_a_case_is_told_by_its_file_and_its_text(source: Source) -> None:
    one, same, other = Case(mix={"a": "Q4_K", "b": "Q6_K"}), Case(mix={"b": "Q6_K", "a": "Q4_K"}), Case(mix={"a": "Q6_K", "b": "Q4_K"})
    elsewhere = replace(source, digest="def")
    assert one.key(source) == same.key(source) != other.key(source)
    assert one.key(source) != one.key(elsewhere)
    assert json.dumps(one.key(source))


def test_a_file_put_together_holds_what_llama_quantize_writes(source: Source, tmp_path: Path) -> None:
    mix = {"token_embd.weight": "Q6_K", "blk.0.attn_q.weight": "Q4_K", "blk.1.ffn_down.weight": "IQ4_XS", "blk.2.attn_k.weight": "Q8_0"}
    mix = {tensor.name: mix.get(tensor.name, "Q3_K") for tensor in source.assembler.reader.tensors if len(tensor.shape) > 1} | {"blk.3.attn_v.weight": "BF16"}
    files = [build(tmp_path, source, Case(mix=mix, by_tool=by_tool), str(by_tool), threads=1)[0] for by_tool in (False, True)]
    ours, theirs = ({tensor.name: tensor for tensor in GGUFReader(file).tensors} for file in files)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor.tensor_type, tensor.shape.tolist()) == (theirs[name].tensor_type, theirs[name].shape.tolist())
        assert np.array_equal(tensor.data, theirs[name].data), name
    assert measure(source, [Case(mix=mix)], Log(tmp_path / "log"), threads=1)[0]["noise.kld"] > 0


def test_relative_errors_are_those_of_llama_cpps_own_quantizer(gguf: Path) -> None:
    names = ("blk.0.attn_q.weight", "blk.1.attn_k.weight")
    stored = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    tensors = tuple(Tensor(name=name, rows=int(stored[name].shape[1]), columns=int(stored[name].shape[0])) for name in names)
    products = np.full((1, 2, len(TYPES)), np.nan, dtype=np.float32)
    products[:, :, [TYPES.index(type_) for type_ in ("Q4_K", "Q8_0", "BF16")]] = 0  # building the tables of the IQ types takes seconds each
    like = Sensitivity(provider="fisher", tensors=tensors, types=TYPES, products=products)
    weights = np.random.default_rng(0).lognormal(size=256).astype(np.float32)
    found = peers.weighted_errors(gguf, dict.fromkeys(names, weights), like, threads=1)
    values = ggml.dequantize(stored[names[0]].data.view(np.uint8), "BF16", 256)
    error = ggml.dequantize(ggml.quantize(values, "Q4_K", importances=weights), "Q4_K", 256) - values
    expected = sum(float(weights @ row**2) / float(weights @ value**2) for row, value in zip(error, values, strict=True))
    assert found.costs[0, TYPES.index("Q4_K")] == pytest.approx(expected, rel=1e-4)
    assert found.costs[:, TYPES.index("BF16")] == pytest.approx([0, 0], abs=1e-12)
    assert (found.costs[:, TYPES.index("Q8_0")] < found.costs[:, TYPES.index("Q4_K")]).all()
    assert np.isnan(found.costs[:, TYPES.index("IQ2_XXS")]).all()
