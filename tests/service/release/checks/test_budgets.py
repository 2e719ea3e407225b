"""Budgets that no mix can keep are refused early, and none that the plan itself could keep."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from builders import convert, fixes, quantize
from builders.plan.capacity import capacity
from builders.plan.solve import solution
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from builders.weights import read_header, weight_files
from config.errors import ConfigurationError
from config.plans import PROFILES, Budget, Rules
from config.recipe import Recipe
from engines import ggml
from service.release.checks import budgets, smallest
from service.release.prospect import Prospect
from tests.service.release.conftest import ROOT

MakeProspect = Callable[..., Prospect]


@dataclass(frozen=True, kw_only=True)
class Real:
    """A model as the plan gets it: converted, with a table of made-up sensitivities of its real tensors."""

    gguf: Path
    table: Sensitivity
    early: smallest.Model  # from headers and config.json

    def plan(self, budget: Budget, rules: Rules) -> int:
        """The bytes of the best file. Raises ConfigurationError."""
        room = capacity(budget, gguf=self.gguf, imatrix=None, planned=[tensor.name for tensor in self.table.tensors])
        return room.overhead + solution(self.table, capacity=room.planned, rules=rules).bytes


@pytest.fixture(
    scope="module",
    params=["demo/model", pytest.param("bench/models/gemma3", marks=pytest.mark.slow), pytest.param("bench/models/mixtral", marks=pytest.mark.slow)],
)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Real:
    folder, fixed, out = ROOT / request.param, tmp_path_factory.mktemp("fixed"), tmp_path_factory.mktemp("gguf")
    fixes.repair(fixed, snapshot=folder, repo="upstream/model", fixes=True)
    gguf = out / str(convert.convert(out, model=fixed, name="model")["file"])
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in GGUFReader(gguf).tensors}
    made = [name for name, tensor in quantize.planned(gguf, "Q8_0").items() if tensor.quantized]
    tensors = tuple(Tensor(name=name, rows=int(np.prod(shapes[name][1:])), columns=shapes[name][0]) for name in made)
    products = np.ones((2, len(tensors), len(TYPES)), dtype=np.float32)
    for i, tensor in enumerate(tensors):
        products[:, i, [not ggml.fits(type, tensor.columns) for type in TYPES]] = np.nan
    early = smallest.of_safetensors(
        {tensor.name: tensor.shape for path in weight_files(folder) for tensor in read_header(path)}, json.loads((folder / "config.json").read_bytes())
    )
    return Real(gguf=gguf, table=Sensitivity(provider="fisher", tensors=tensors, types=TYPES, products=products), early=early)


RULES = [Rules().within(profile) for profile in PROFILES] + [
    Rules(floors={r"ffn_down|attn_v": "Q6_K", r"^(token_embd|output)\.": "Q8_0"}).within("any"),
    Rules(types=("Q4_K", "Q6_K"), ceilings={".": "Q5_K"}).within("any"),
    Rules(types=("IQ1_S", "BF16"), floors={"": "BF16"}).within("any"),
]


@pytest.mark.parametrize("rules", RULES)
def test_the_bound_is_below_the_smallest_file_that_the_plan_makes(real: Real, rules: Rules) -> None:
    least, exact = smallest.least(real.early, rules), smallest.least(smallest.of_gguf(real.gguf), rules)
    assert least.bytes <= exact.bytes
    size = least.bytes
    while True:  # the least budget that the real plan keeps, but for a step
        try:
            size = real.plan(Budget(bytes=size), rules)
            break
        except ConfigurationError:
            size = size * 21 // 20
    assert least.bytes < size
    assert exact.bytes > 0.9 * (size - GGUFReader(real.gguf).data_offset)


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("bpw", [1.5, 1.6, 2.5, 2.7, 4.4, 4.6])
def test_whatever_is_refused_early_the_plan_refuses_too(real: Real, profile: Any, bpw: float) -> None:
    budget, rules = Budget(bpw=bpw), Rules().within(profile)
    if budgets.too_small(budget, real.early, profile=profile, rules=Rules()) is not None:
        with pytest.raises(ConfigurationError, match="smallest allowed types"):
            real.plan(budget, rules)


@pytest.mark.parametrize("memory", ["513MiB", "514MiB", "515MiB", "520MiB", "600MiB"])
@pytest.mark.parametrize("context", [512, 8192])
def test_so_it_is_with_memories(real: Real, memory: str, context: int) -> None:
    budget = Budget(fit={"memory": memory, "context": context})
    if budgets.too_small(budget, real.early, profile="any", rules=Rules()) is not None:
        with pytest.raises(ConfigurationError):
            real.plan(budget, Rules().within("any"))


def test_every_impossible_variant_is_told_with_the_smallest_size_there_is(prospect: MakeProspect, recipe: Callable[..., Recipe]) -> None:
    entries = [
        "UD-Q4_K_XL",
        {"tag": "tight", "bytes": 600_000},
        {"tag": "fine", "bytes": "2MB"},
        {"tag": "low", "bpw": 3, "profile": "arm"},
        {"tag": "full", "fit": {"memory": "512MiB", "context": 512}},
    ]
    wanted = recipe(variants={"dynamic": entries, "dynamic_bnb_4bit": ["dynamic-bnb-4bit", {"tag": "a-bnb-4bit", "bytes": "2MB"}]})
    tight, low, full, nf4 = budgets.impossible(prospect(recipe=wanted))
    assert tight == (
        "The variant tight cannot be built: its budget of 600.00 kB leaves 599.49 kB for the weights, and in no mix are they smaller than 716.80 kB "
        "(1.56 bits per weight), mostly in IQ1_S. Raise the budget above that, or allow smaller types."
    )
    assert "(4.50 bits per weight), mostly in IQ4_NL, the smallest that the profile arm allows" in low
    assert "full" in full
    assert "0.50 GiB cannot hold the model" in full
    assert "plain NF4 has more than 2.67 MB" in nf4


def test_of_weights_that_are_packed_nothing_is_said(prospect: MakeProspect, recipe: Callable[..., Recipe]) -> None:
    packed = prospect(recipe=recipe(variants={"dynamic": [{"tag": "tight", "bytes": 600_000}]}))
    assert list(budgets.impossible(packed))
    packed = prospect(recipe=packed.recipe, config={**packed.config, "quantization_config": {"quant_method": "fp8"}})
    assert list(budgets.impossible(packed)) == []


def test_layers_beyond_the_model_s_own_and_other_towers_do_not_count() -> None:
    shape, config = (256, 256), {"num_hidden_layers": 2, "tie_word_embeddings": True}
    counted = {"model.layers.1.mlp.up_proj.weight": shape, "model.language_model.layers.0.self_attn.q_proj.weight": shape}
    ignored = ["model.layers.2.mlp.up_proj.weight", "vision_tower.layers.0.mlp.up_proj.weight", "mtp.layers.0.mlp.up_proj.weight", "lm_head.weight"]
    model = smallest.of_safetensors({**counted, **dict.fromkeys(ignored, shape)}, config)
    assert [matrix.name for matrix in model.matrices] == ["blk.1.ffn_up.weight", "blk.0.attn_q.weight"]
    assert smallest.of_safetensors(counted, {}).matrices == ()


def test_names_are_those_of_the_converter() -> None:
    import gguf

    known = [gguf.get_tensor_name_map(arch, 1) for arch in gguf.MODEL_ARCH if "RWKV" not in arch.name]
    for part, short in smallest._PARTS.items():
        found = {tensors.get_name(f"model.layers.0.{part}", try_suffixes=(".weight",)) for tensors in known} - {None}
        if short is not None:
            assert found == {f"blk.0.{short}.weight"}, part
