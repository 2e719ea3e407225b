"""What rounding activations costs, against ggml's own rounding and against models whose inputs are rounded."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from builders import calibrate
from builders.sensitivity import activations, fisher, products
from builders.sensitivity.layout import Placement, Segment, View
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from config.errors import MeasurementError
from engines import ggml, hf
from tests.builders.conftest import DATA

ROOT = Path(__file__).parents[3]
CONTEXT = 128
FINE, COARSE = TYPES.index("Q8_0"), TYPES.index("Q6_K")


@pytest.fixture(scope="module", params=["demo/model", "bench/models/gemma3", "bench/models/mixtral"])
def network(request):
    return hf.load_model(ROOT / request.param)


@pytest.fixture(scope="module")
def windows(network):
    voice = hf.speaking(hf.load_tokenizer(Path(network.name_or_path)))
    return calibrate.windows(voice, [DATA / "calibration.jsonl"], [], tokens=24 * CONTEXT, context=CONTEXT)


def costs_of(network, placements, windows):
    """What rounding costs by these windows, in which no matrix gets a gradient."""
    rounding = activations.Rounding.of(network, placements)
    with fisher.gradients(network, {}), rounding.watched():
        for number, window in enumerate(windows):
            fisher.backward(network, window, number)
    return rounding.costs(len(windows))


def placed(network, *, rows=np.arange):
    """Every matrix as one tensor, with those of its rows (of all experts) that are wanted."""
    found = []
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and "gate.weight" not in name and "router" not in name:
            sources = rows(parameter.numel() // parameter.shape[-1])
            tensor = Tensor(name=name, rows=len(sources), columns=parameter.shape[-1])
            segment = Segment(parameter=name, view=View(transposed=False), targets=np.arange(len(sources)), sources=sources)
            found.append(Placement(tensor=tensor, segments=(segment,)))
    return found


def by_hooks(network, window, *, rows=slice(None)):
    """Σ h² ε² in blocks of 256 and of 32 for each linear module, h by what torch's own hooks see of these rows of its matrix."""
    inputs, found = {}, {}

    def before(module, given):
        inputs[module] = given[0].detach()

    def after(module, _, gradients, *, name):
        own = (gradients[0][..., rows] @ module.weight[rows]).square()
        found[f"{name}.weight"] = [float((own * (activations.rounded(inputs[module], block) - inputs[module]).square()).sum()) for block in (256, 32)]

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            hooks += [module.register_forward_pre_hook(before), module.register_full_backward_hook(lambda *given, name=name: after(*given, name=name))]
    fisher.backward(network, window, 0)
    network.zero_grad()
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(("type", "block", "numbers"), [(8, 32, "<e"), (15, 256, "<f")], ids=["Q8_0", "Q8_K"])
def test_values_are_rounded_as_ggml_rounds_them(type, block, numbers):
    values = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    values[0, :block] = 0
    scale = np.dtype(numbers).itemsize
    size = scale + block + (block // 16 * 2 if block == 256 else 0)  # Q8_K keeps sums of 16 besides
    out = np.empty(values.size // block * size, dtype=np.uint8)
    convert = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(ggml._cpu_library().ggml_get_type_traits_cpu(type).contents.from_float)
    convert(values.ctypes.data, out.ctypes.data, values.size)
    blocks = out.reshape(-1, size)
    scales, steps = blocks[:, :scale].copy().view(numbers).astype(np.float32), blocks[:, scale : scale + block].view(np.int8)
    ours = activations.rounded(torch.from_numpy(values), block).numpy()
    off = np.abs(ours - (scales * steps).reshape(values.shape))
    assert (off > 1e-5).sum() <= 2  # a value half way between two steps goes either way
    assert off.max() <= 1.01 * np.abs(scales).max()
    assert 0 < np.abs(ours - values).max() <= 0.51 * np.abs(scales).max()


def test_every_type_rounds_as_ggml_says():
    fine = {type for type in TYPES if ggml.activation_block(type) == 32}
    assert fine == {"IQ4_NL", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
    assert ggml.activation_block("BF16") is None
    assert all(ggml.activation_block(type) == 256 for type in set(TYPES) - fine - {"BF16"})


@pytest.mark.parametrize("rows", [slice(None), slice(0, None, 3)], ids=["all rows", "some rows"])
def test_a_cost_is_what_hooks_of_torch_see(network, windows, rows):
    placements = placed(network, rows=lambda count: np.arange(count)[rows].copy())
    costs = costs_of(network, placements, windows[:1])
    names = [placement.tensor.name for placement in placements]
    expected = by_hooks(network, windows[0], rows=rows)
    linear = [(costs[names.index(name)], squares) for name, squares in expected.items() if name in names]
    assert len(linear) > 8
    for found, (coarse, fine) in linear:
        assert found[COARSE] == pytest.approx(coarse / 2, rel=1e-3)
        assert found[FINE] == pytest.approx(fine / 2, rel=1e-3)
        assert found[FINE] < found[COARSE]
    assert not costs[:, TYPES.index("BF16")].any()


@pytest.mark.parametrize("type", [FINE, COARSE], ids=["Q8_0", "Q6_K"])
def test_the_costs_foretell_the_divergence_of_rounded_inputs(network, windows, monkeypatch, type):
    """Experts are in it, which torch has no hooks for, and so is the embedding where it serves as output."""
    placements, block = placed(network), ggml.activation_block(TYPES[type])
    predicted = costs_of(network, placements, windows)[:, type].sum()
    known = {placement.tensor.name for placement in placements}
    matrices = {id(parameter) for name, parameter in network.named_parameters() if name in known}
    plain = functional.linear

    def linear(inputs, weight, bias=None):
        return plain(activations.rounded(inputs, block) if id(weight if weight._base is None else weight._base) in matrices else inputs, weight, bias)

    text = torch.from_numpy(windows)
    network.set_experts_implementation("eager")
    with torch.no_grad():
        before = network(input_ids=text, use_cache=False).logits.double().log_softmax(-1)
        monkeypatch.setattr(functional, "linear", linear)
        after = network(input_ids=text, use_cache=False).logits.double().log_softmax(-1)
    measured = float((before.exp() * (before - after)).sum(-1).mean())
    least = 0.1 if network.name_or_path.endswith("mixtral") else 0.8  # one token that goes to another expert is more than any expansion knows
    assert least * measured < predicted < 1.2 * measured


def test_the_network_is_left_as_it_was(network, windows):
    parameter = next(iter(network.parameters()))
    original, experts = parameter.detach().clone(), network.get_experts_implementation()
    with torch.no_grad():
        parameter[:] = torch.nan
    with pytest.raises(MeasurementError, match="not finite"):
        costs_of(network, placed(network), windows[:1])
    with torch.no_grad():
        parameter.copy_(original)
    assert functional.linear is products.linear
    assert network.get_experts_implementation() == experts
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert not network.get_input_embeddings()._forward_hooks


def test_a_table_has_both(tmp_path):
    tensors = tuple(Tensor(name=name, rows=256, columns=256) for name in "ab")
    products = np.full((3, 2, len(TYPES)), 0.2, dtype=np.float32)
    rounding = np.arange(2 * len(TYPES)).reshape(2, -1) / 100
    table = Sensitivity(provider="fisher", tensors=tensors, types=TYPES, products=products, activations=rounding)
    mix = {"a": TYPES[1], "b": TYPES[2]}
    assert table.predict(mix).mean == pytest.approx(2 * 0.02 + rounding[0, 1] + rounding[1, 2])
    assert table.rounding(mix) == pytest.approx(rounding[0, 1] + rounding[1, 2])
    assert sum(table.shares(mix).values()) == pytest.approx(table.predict(mix).mean)
    table.save(tmp_path)
    assert np.array_equal(Sensitivity.load(tmp_path).costs, table.costs)
