"""What a planned file would take elsewhere, and that what is counted of a model is what a real one has and does."""

import math
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders.sensitivity import fisher
from config.errors import ConfigurationError
from config.plans import Budget
from config.settings import Settings
from engines import hf
from service.machine.speed import NAMED, Speed
from service.release import alone, estimate, shapes
from service.release.costs.engines import BACKWARD
from service.release.costs.outline import Outline
from service.release.estimate import Estimated

DEMO = Path(__file__).parents[3] / "demo" / "model"
MIXTURE = Path(__file__).parents[3] / "bench" / "models" / "mixtral"
LIKE = Budget(like="Q4_K_M")


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Estimates with a machine whose speed is known as the one at hand."""
    monkeypatch.setattr(estimate, "speed", lambda settings: Speed(threads=2, ram=24 * 10**9))
    return lambda shape: estimate.estimate(Settings(home=tmp_path), shape, budget=LIKE, context=512)


def outline(tmp_path: Path, shape: str) -> Outline:
    wish = alone.Wish(tag="m", budget=LIKE, profile="any", text=estimate.Text(generated=1000), context=512, last="build m", rounded=True, probed=False)
    return estimate.outline(alone.prospect(Settings(home=tmp_path), estimate._seen(shape), wish))


@pytest.mark.parametrize("folder", [DEMO, MIXTURE], ids=["dense", "experts"])
def test_parameters_and_operations_are_those_of_the_real_model(tmp_path: Path, folder: Path) -> None:
    network, counted = hf.load_model(folder), outline(tmp_path, str(folder / "config.json"))
    network.set_experts_implementation("eager")  # the one that torch counts
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())
    context = 64
    with FlopCounterMode(display=False) as forward, torch.inference_mode():
        network(input_ids=torch.arange(3, 3 + context)[None], use_cache=False)
    operations = 2 * (counted.body + counted.table) * context
    assert operations == pytest.approx(forward.get_total_flops(), rel=0.05)  # attention is left out
    matrices = {name: lambda gradient: None for name, parameter in network.named_parameters() if parameter.ndim > 1}
    with FlopCounterMode(display=False) as both, fisher.gradients(network, matrices):
        fisher.backward(network, torch.arange(3, 3 + context).numpy(), 0)
    assert 3 * operations == pytest.approx(both.get_total_flops(), rel=0.06)
    assert BACKWARD > 2, "gradients of weights and of activations, and what is done with them"


@pytest.mark.parametrize(("short", "billions"), [("0.6B", 0.6), ("8B", 8.0), ("32B", 32.8), ("70B", 70.6), ("400B", 397)])
def test_every_named_shape_is_estimated_on_every_machine(estimated, short: str, billions: float) -> None:
    found: Estimated = estimated(short)
    assert found.parameters / 1e9 == pytest.approx(billions, rel=0.03)
    assert [one.machine for one in found.machines] == [estimate.HERE, *NAMED]
    for one in found.machines:
        assert 0 < one.seconds < 1e8
        assert one.disk > 2 * found.parameters  # what is downloaded
        assert one.memory > 0
        assert {"snapshot", "convert", "imatrix", "sensitivity", "round planned"} <= set(one.stages)
        assert (one.windows is None) or one.windows * 512 >= 2**15


def test_a_mixture_computes_with_the_experts_that_a_token_reaches(estimated) -> None:
    assert estimated("400B").active < 0.06 * estimated("400B").parameters
    assert estimated("8B").active == pytest.approx(8.03e9, rel=0.1)


def test_larger_models_and_slower_machines_take_longer(estimated) -> None:
    seconds = [[one.seconds for one in estimated(short).machines] for short in ("0.6B", "8B", "70B")]
    for small, middle, large in zip(*seconds, strict=True):
        assert small < middle < large
    assert seconds[1][0] > seconds[1][2], "two threads are slower than 64"


def test_memory_for_sums_decides_how_often_the_windows_are_read(estimated) -> None:
    large = {one.machine: one for one in estimated("32B").machines}
    assert large["RTX 4090"].streamed
    assert large["RTX 4090"].groups > large["64 cores, 1 TB"].groups == 1
    larger = {one.machine: one for one in estimated("70B").machines}
    assert larger[estimate.HERE].windows is larger["RTX 4090"].windows is None, "24 GB hold no layer of it beside its tables"


def test_a_shape_that_nobody_knows_is_told_with_those_that_are_known(estimated) -> None:
    with pytest.raises(ConfigurationError, match="There is no shape '7b'.*0.6B, 8B, 32B, 70B, 400B"):
        estimated("7b")


def test_named_shapes_have_the_tensors_of_their_sizes() -> None:
    for short, name in shapes.SHORT.items():
        assert name in shapes.MODELS, short
    assert sum(math.prod(shape) for shape in shapes.MODELS["Qwen3-0.6B"].shapes.values()) == pytest.approx(0.596e9, rel=0.01)
