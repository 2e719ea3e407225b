"""Dynamic NF4: which modules stay in 16 bits, and that transformers keeps them so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import bnb
from builders.plan import nf4
from builders.sensitivity.table import Sensitivity, Tensor
from builders.weights import parameters, read_header, stored, weight_files
from config.errors import ConfigurationError, UpstreamError
from engines import nf4 as engine

SENSITIVE = {"model.layers.1.mlp.down_proj": 9.0, "model.layers.0.self_attn.v_proj": 6.0, "model.layers.3.self_attn.o_proj": 5.0}
ROWS = {"k_proj": 128, "v_proj": 128, "gate_proj": 768, "up_proj": 768}
MODULES = tuple(
    f"model.layers.{layer}.{part}"
    for layer in range(4)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
)


def table(names: tuple[str, ...] = MODULES, types: tuple[str, ...] = ("NF4", "BF16")) -> Sensitivity:
    """A table of the bundled model's shape, in which a few modules matter more than the others."""
    random = np.random.default_rng(0)
    tensors = tuple(Tensor(name=name, rows=ROWS.get(name.rpartition(".")[2], 256), columns=768 if "down" in name else 256) for name in names)
    products = np.zeros((256, len(names), len(types)), dtype=np.float32)
    products[:, :, 0] = 0.01 * random.standard_normal((256, len(names))) * np.array([SENSITIVE.get(name, 1.0) for name in names])
    return Sensitivity(provider="fisher", tensors=tensors, types=types, products=products)


def test_the_most_sensitive_modules_stay_in_16_bits() -> None:
    downs = tuple(name for name in MODULES if "down" in name)
    random = np.random.default_rng(0)
    products = np.zeros((32, 4, 2), dtype=np.float32)
    products[:, :, 0] = random.standard_normal((32, 4)) * np.array([1, 4, 2, 3])
    few = Sensitivity(provider="fisher", tensors=table(downs).tensors, types=nf4.TYPES, products=products)
    small, large = engine.stored_bytes(256 * 768), 2 * 256 * 768
    assert nf4.choose(few, capacity=4 * small) == nf4.Choice(kept=[], bytes=4 * small)
    assert nf4.choose(few, capacity=2 * small + 2 * large).kept == [downs[1], downs[3]]
    assert len(nf4.choose(few, capacity=4 * large).kept) == 4
    with pytest.raises(ConfigurationError, match="smallest allowed types need"):
        nf4.choose(few, capacity=4 * small - 1)
    with pytest.raises(ConfigurationError, match="needs sensitivities of the types NF4, BF16; given are Q4_K, BF16"):
        nf4.choose(table(downs, ("Q4_K", "BF16")), capacity=10**9)


def test_what_vllm_runs_as_one_layer_is_kept_as_one() -> None:
    groups = [[MODULES[place] for place in group] for group in nf4.grouped(table())]
    assert groups[:4] == [list(MODULES[:3]), [MODULES[3]], list(MODULES[4:6]), [MODULES[6]]]
    small = sum(engine.stored_bytes(tensor.parameters) for tensor in table().tensors)
    qkv = sum(2 * tensor.parameters - engine.stored_bytes(tensor.parameters) for tensor in table().tensors[:3])
    kept = nf4.choose(table(), capacity=small + qkv).kept
    assert set(kept) in ({*MODULES[:3]}, {"model.layers.3.self_attn.o_proj"}, {"model.layers.3.self_attn.o_proj", "model.layers.0.self_attn.o_proj"})
    alone = nf4.choose(table(MODULES[:3]), capacity=sum(engine.stored_bytes(tensor.parameters) for tensor in table(MODULES[:3]).tensors) + qkv - 1).kept
    assert alone == [], "v alone would fit, but not with q and k"


@pytest.fixture(scope="module")
def plain(fixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in plain NF4."""
    out = tmp_path_factory.mktemp("plain")
    bnb.quantize(out, model=fixed, threads=1)
    return out


@pytest.fixture
def plan(fixed: Path, plain: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(made: Sensitivity | None = None, **budget: Any) -> dict[str, Any]:
        (made or table()).save(tmp_path)
        return nf4.plan(tmp_path, sensitivity=tmp_path, model=fixed, plain=plain, budget=budget, threads=1)

    return make


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(folder))


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"above": 0.1}, {"above": 0.3}, {"bpw": 8.0}, {"bytes": "3MB"}, {}])
def test_the_files_are_as_large_as_foretold_and_no_larger_than_the_budget(
    plan: Callable[..., dict[str, Any]], plain: Path, fixed: Path, tmp_path: Path, budget: dict[str, Any]
) -> None:
    planned = plan(**budget)
    most = {"bpw": parameters(weight_files(fixed)), "bytes": 3_000_000}.get(next(iter(budget), ""), size(plain) * (1 + budget.get("above", 0.1)))
    (tmp_path / "files").mkdir()
    built = bnb.quantize(tmp_path / "files", model=fixed, threads=1, skip=planned["kept"])
    assert built["bytes"] <= planned["bytes"] <= most
    assert built["bytes"] == pytest.approx(planned["bytes"], abs=700 * len(planned["kept"])), "a header is shorter by the entries of the scales"
    assert built["bytes"] > size(plain)
    assert planned["bpw"] == pytest.approx(built["bpw"], rel=0.01)
    assert 0 < planned["predicted"]["mean"] < planned["stock"]["mean"]
    kinds = {name: tensor.type for name, tensor in stored(tmp_path / "files").items() if name.endswith("proj.weight")}
    assert {name.removesuffix(".weight") for name, kind in kinds.items() if kind == "BF16"} == set(planned["kept"])
    assert {kind for name, kind in kinds.items() if name.removesuffix(".weight") not in planned["kept"]} == {"NF4"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"bytes": 2_000_000}, r"The budget of 2000000 bytes is below the 27\d+ of plain NF4"),
        ({"bpw": 4.5}, "is below the"),
        ({"above": 0.001}, r"keeps no layer in 16 bits: plain NF4 has 27\d+, and the smallest step takes \d+ more"),
        ({"bytes": "1GB"}, "leaves nothing in 4 bits"),
        ({"above": -1}, "The budget of the plan is wrong"),
        ({"like": "Q4_0"}, "The budget of the plan is wrong"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_told(plan: Callable[..., dict[str, Any]], budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        plan(**budget)


# What vLLM takes from `quantization_config` of a folder that is quantized already (up to 0.27 by itself, later with vllm-bnb-plugin 0.0.3, which was read for
# this): it refuses any other storage, would quantize by itself without the first two, and has another default for the type.
VLLM_READS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4"}


def vllm_keeps(module: str, skipped: set[str]) -> bool:
    """Whether vLLM looks for a layer, by its own name of it, in 16 bits: it or what it lies in is listed whole, or a part of its name by itself."""
    parts = module.split(".")
    return bool(skipped & {*parts, *(".".join(parts[:count]) for count in range(1, len(parts) + 1))})


@pytest.mark.slow
def test_skipped_modules_are_stored_in_16_bits_and_load(fixed: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    attention = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    bnb.quantize(tmp_path, model=fixed, threads=1, skip=["model.layers.1.mlp.down_proj", "model.layers.2.mlp.up_proj", *attention])
    found = {tensor.name: tensor for tensor in read_header(tmp_path / "model.safetensors")}
    kept = [found[f"model.layers.{layer}.mlp.down_proj.weight"].dtype for layer in range(2)]
    assert (kept, found["model.embed_tokens.weight"].dtype) == (["U8", "BF16"], "BF16")
    name = "model.layers.0.mlp.down_proj.weight"
    bytes = sum(tensor.bytes for key, tensor in found.items() if key.startswith(name))
    assert bytes == pytest.approx(engine.stored_bytes(256 * 768), abs=100)
    assert (stored(tmp_path)[name].bytes, stored(tmp_path)[name].values) == (bytes, 256 * 768)
    described = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert {**described, **VLLM_READS} == described
    skipped = set(described["llm_int8_skip_modules"])
    linear = {name.removesuffix(".weight"): tensor.dtype for name, tensor in found.items() if name.endswith("proj.weight")}
    alone = "model.layers.2.mlp.up_proj"  # vLLM runs it as one layer with a gate in 4 bits; a plan keeps both or none
    assert {name for name in linear if vllm_keeps(engine.fused(name), skipped)} == {name for name, dtype in linear.items() if dtype == "BF16"} - {alone}
    assert skipped >= {"model.layers.1.mlp.down_proj", "lm_head", *attention}
    assert "model.layers.0.self_attn.qkv_proj" in skipped, "vLLM's name of q, k and v"
    assert "model.layers.2.mlp.gate_up_proj" not in skipped, "gate is in 4 bits"
    model = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert model.model.layers[1].mlp.down_proj.weight.dtype == torch.bfloat16
    assert model.model.layers[1].mlp.up_proj.weight.dtype == torch.uint8
    with pytest.raises(UpstreamError, match=r"model\.layers\.9"):
        bnb.quantize(tmp_path, model=fixed, threads=1, skip=["model.layers.9.mlp.down_proj"])
