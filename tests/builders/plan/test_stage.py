"""Plans for the bundled model's file: sizes foretold, budgets of every kind, rules kept, files made."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from builders import plan, quantize
from builders.plan.curve import curve
from builders.plan.solve import bits
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from config.errors import ConfigurationError, ToolError
from config.plans import Rules
from engines import ggml

Foretold = Callable[[str], int]

STOCK = ("Q2_K", "IQ2_M", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")


@pytest.fixture(scope="module")
def table(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up sensitivities of the real file's tensors, with the types that llama-quantize can write with this imatrix."""
    random, tensors = np.random.default_rng(7), []
    shapes = {tensor.name: tensor.shape for tensor in GGUFReader(gguf).tensors}
    for name, made in quantize.planned(gguf, "Q8_0").items():
        if made.quantized:
            tensors.append(Tensor(name=name, rows=int(shapes[name][1]), columns=int(shapes[name][0])))
    scale = np.array([[2.0 ** -bits(type) for type in TYPES]]) * random.lognormal(0, 1, (len(tensors), 1))
    products = (random.standard_normal((64, len(tensors), len(TYPES))) * scale).astype(np.float32)
    for i, tensor in enumerate(tensors):
        for j, type in enumerate(TYPES):
            if not ggml.fits(type, tensor.columns) or (tensor.name == "token_embd.weight" and ggml.needs_importances(type)):
                products[:, i, j] = np.nan
    folder = tmp_path_factory.mktemp("sensitivity")
    Sensitivity(provider="fisher", tensors=tuple(tensors), types=TYPES, products=products).save(folder)
    return folder


@pytest.fixture
def make(gguf: Path, imatrix: Path, table: Path, tmp_path: Path) -> Any:
    def plan_with(budget: dict[str, Any], profile: Any = "any", **rules: Any) -> dict[str, Any]:
        return plan.plan(tmp_path, sensitivity=table, gguf=gguf, imatrix=imatrix, budget=budget, profile=profile, rules=rules, threads=1)

    return plan_with


@pytest.mark.parametrize("stock", STOCK)
def test_a_plan_like_a_stock_mix_is_no_larger_and_foretold_better(make: Any, foretold: Foretold, stock: str) -> None:
    result = make({"like": stock})
    size = foretold(stock)
    assert 0.995 * size < result["bytes"] <= size
    assert result["bound"] <= result["predicted"]["mean"] <= result["stock"]["mean"]
    assert sum(result["shares"].values()) == pytest.approx(result["predicted"]["mean"])


@pytest.mark.parametrize("stock", ["IQ2_M", "Q4_K_M"])
def test_the_file_is_what_was_planned(make: Any, gguf: Path, imatrix: Path, tmp_path: Path, stock: str) -> None:
    planned = make({"like": stock})
    out = tmp_path / "out"
    out.mkdir()
    made = quantize.mixed(out, gguf=gguf, imatrix=imatrix, mix=tmp_path / "mix.json", name="tiny-chat", tag=f"UD-{stock}", threads=1)
    assert [path.name for path in out.iterdir()] == [made["file"]] == [f"tiny-chat-UD-{stock}.gguf"]
    assert 0 <= made["bytes"] - planned["bytes"] < 512
    assert made["bpw"] == pytest.approx(planned["bpw"])
    reader = GGUFReader(out / made["file"])
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    mix = json.loads((tmp_path / "mix.json").read_text())
    assert len(mix) == 29
    assert len(set(mix.values())) > 3
    assert {name: types[name] for name in mix} == mix
    assert b"/tmp" not in (out / made["file"]).read_bytes()


def test_a_planned_file_of_one_stock_mix_is_that_stock_file(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    types = {name: tensor.type.name for name, tensor in quantize.planned(gguf, "Q4_K_M", imatrix).items() if tensor.quantized}
    (tmp_path / "mix.json").write_text(json.dumps(types))
    stock = quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type="Q4_K_M", name="stock", threads=1)
    made = quantize.mixed(tmp_path, gguf=gguf, imatrix=imatrix, mix=tmp_path / "mix.json", name="planned", tag="UD", threads=1)
    assert (tmp_path / made["file"]).read_bytes() == (tmp_path / stock["file"]).read_bytes()
    assert made["bytes"] == stock["bytes"]


def test_a_mix_of_another_model_is_refused(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(json.dumps({"blk.99.attn_q.weight": "Q4_K"}))
    with pytest.raises(ToolError, match=r"blk\.99\.attn_q\.weight"):
        quantize.mixed(tmp_path, gguf=gguf, imatrix=imatrix, mix=tmp_path / "mix.json", name="x", tag="y", threads=1)


def test_a_tensor_that_llama_quantize_does_not_convert_is_an_error_and_leaves_no_file(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(json.dumps({"output_norm.weight": "Q4_K"}))
    with pytest.raises(ToolError, match=r"output_norm\.weight is F32 instead of Q4_K"):
        quantize.mixed(tmp_path, gguf=gguf, imatrix=imatrix, mix=tmp_path / "mix.json", name="x", tag="y", threads=1)
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("budget", [{"bytes": "2MB"}, {"bpw": 4.2}, {"fit": {"memory": "520MiB", "context": 1024}}])
def test_other_budgets(make: Any, gguf: Path, budget: dict[str, Any]) -> None:
    result = make(budget)
    match budget:
        case {"bytes": _}:
            assert 1_980_000 < result["bytes"] <= 2_000_000 - 512
        case {"bpw": bpw}:
            assert 0.99 * bpw < result["bpw"] <= bpw
        case _:
            cache = 1024 * 4 * 2 * sum(int(GGUFReader(gguf).fields[f"llama.attention.{key}"].contents()) for key in ("key_length", "value_length"))
            assert result["bytes"] <= 520 * 2**20 - 512 * 2**20 - cache * 0.1


@pytest.mark.parametrize("profile", ["arm", "no-iq", "fast-gpu"])
def test_profiles_are_kept(make: Any, tmp_path: Path, profile: str) -> None:
    make({"like": "Q5_K_M"}, profile)
    mix = json.loads((tmp_path / "mix.json").read_text())
    if profile == "fast-gpu":
        assert all(mix[f"blk.{layer}.ffn_gate.weight"] == mix[f"blk.{layer}.ffn_up.weight"] for layer in range(4))
        assert "IQ1_M" not in mix.values()
    else:
        banned = ("IQ1", "IQ2", "IQ3", "Q2", "Q3", "Q4_1", "Q5_0", "Q5_1", "IQ4_XS") if profile == "arm" else ("IQ",)
        assert not [type for type in mix.values() if type.startswith(banned)]


def test_coarsely_rounded_activations_count_except_on_gpus(make: Any, gguf: Path, imatrix: Path, table: Path, tmp_path: Path) -> None:
    known = Sensitivity.load(table)
    coarse = np.array([0.0 if type in ("IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16") else 1.0 for type in TYPES])
    folder = tmp_path / "rounded"
    folder.mkdir()
    replace(known, activations=np.tile(coarse, (len(known.tensors), 1))).save(folder)

    def planned(profile: Any, **rules: Any) -> tuple[set[str], dict[str, Any]]:
        given = {"gguf": gguf, "imatrix": imatrix, "budget": {"like": "Q5_K_M"}, "threads": 1}
        result = plan.plan(tmp_path, sensitivity=folder, profile=profile, rules=rules, **given)
        return set(json.loads((tmp_path / "mix.json").read_text()).values()), result

    fine = {type for type, cost in zip(TYPES, coarse, strict=True) if not cost}
    types, result = planned("any")
    assert types <= fine
    assert result["activations"] == 0
    for profile, rules in (("fast-gpu", {}), ("any", {"activations": False})):
        types, result = planned(profile, **rules)
        assert not types <= fine
        assert result["activations"] >= 1
        assert result["predicted"]["mean"] > result["activations"], "what is foretold is what a CPU will measure"
        assert result["bound"] < 1
    assert make({"like": "Q5_K_M"})["activations"] == 0, "a table without them, by probes say"


def test_floors_ceilings_and_types(make: Any, tmp_path: Path) -> None:
    result = make(
        {"like": "Q4_K_M"}, floors={"token_embd": "Q8_0"}, ceilings={r"ffn_(gate|up)": "Q4_K", "nothing": "Q8_0"}, types=["Q3_K", "Q4_K", "Q6_K", "Q8_0"]
    )
    mix = json.loads((tmp_path / "mix.json").read_text())
    assert mix["token_embd.weight"] == "Q8_0"
    assert {type for name, type in mix.items() if "ffn_gate" in name or "ffn_up" in name} <= {"Q3_K", "Q4_K"}
    assert result["unmatched"] == ["nothing"]


@pytest.mark.parametrize(
    ("budget", "profile", "rules", "words"),
    [
        ({"bytes": 100_000}, "any", {}, "smallest allowed types need"),
        ({"like": "Q2_K"}, "arm", {}, "smallest allowed types need"),
        ({"like": "Q4_K_M", "bpw": 4}, "any", {}, "exactly one of"),
        ({}, "any", {}, "given: none"),
        ({"bytes": "8 gigs"}, "any", {}, "not a number of bytes"),
        ({"fit": {"memory": "100MiB", "context": 512}}, "any", {}, "cannot hold the model"),
        ({"like": "Q4_K_M"}, "arm", {"types": ["IQ2_S"]}, "none of the types IQ2_S"),
        ({"like": "Q4_K_M"}, "any", {"floors": {"(": "Q4_K"}}, "not a regular expression"),
        ({"like": "Q4_K_M"}, "any", {"floors": {"attn_q": "Q8_0"}, "ceilings": {"attn": "Q4_K"}}, "leave no type for"),
    ],
)
def test_what_cannot_be_is_said(make: Any, tmp_path: Path, budget: dict[str, Any], profile: str, rules: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make(budget, profile, **rules)
    assert not list(tmp_path.glob("mix.json"))


def test_the_same_plan_twice_is_the_same_file(make: Any, tmp_path: Path) -> None:
    make({"bpw": 3.3})
    first = (tmp_path / "mix.json").read_bytes()
    make({"bpw": 3.3})
    assert (tmp_path / "mix.json").read_bytes() == first


def test_unplanned_tensors_are_kept_as_llama_quantize_keeps_them(gguf: Path, imatrix: Path, table: Path, foretold: Foretold, tmp_path: Path) -> None:
    whole = Sensitivity.load(table)
    part = Sensitivity(provider="fisher", tensors=whole.tensors[3:], types=whole.types, products=whole.products[:, 3:])
    (tmp_path / "part").mkdir()
    part.save(tmp_path / "part")
    result = plan.plan(tmp_path, sensitivity=tmp_path / "part", gguf=gguf, imatrix=imatrix, budget={"like": "Q4_K_M"}, threads=1)
    mix, stock = json.loads((tmp_path / "mix.json").read_text()), quantize.planned(gguf, "Q4_K_M", imatrix)
    assert {tensor.name: mix[tensor.name] for tensor in whole.tensors[:3]} == {tensor.name: stock[tensor.name].type.name for tensor in whole.tensors[:3]}
    assert result["bytes"] <= foretold("Q4_K_M")


def test_a_curve_goes_through_the_plans_and_the_stock_mixes(make: Any, gguf: Path, imatrix: Path, table: Path, foretold: Foretold) -> None:
    planned, stock = curve(Sensitivity.load(table), gguf=gguf, imatrix=imatrix, rules=Rules())
    exact, like = make({"bpw": 4.5}), make({"like": "Q4_K_M"})
    assert (exact["bytes"], exact["bpw"], exact["predicted"]["mean"]) in [(point.bytes, point.bpw, point.mean) for point in planned]
    mixes = {point.name: point for point in stock}
    assert mixes["Q4_K_M"].mean == like["stock"]["mean"]
    assert mixes["Q4_K_M"].bytes == foretold("Q4_K_M")
