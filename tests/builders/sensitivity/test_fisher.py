from itertools import chain

import numpy as np
import pytest
import torch

from builders import calibrate, matrices
from builders.sensitivity import fisher, importances, layout, rows
from builders.sensitivity.sample import mixes, relative_error
from builders.sensitivity.table import TYPES, Sensitivity
from config.errors import MeasurementError
from engines import hf
from tests.builders.conftest import DATA

CHOSEN = "attn_v"  # four small matrices: quantizing all of the model to all types takes a minute
CONTEXT = 128
MEMORY = 2**30


@pytest.fixture(scope="module")
def network(fixed):
    return hf.load_model(fixed)


@pytest.fixture(scope="module")
def windows(fixed):
    files = [DATA / "calibration.jsonl"], [DATA / "calibration_questions.txt"]
    return calibrate.windows(hf.speaking(hf.load_tokenizer(fixed)), *files, tokens=48 * CONTEXT, context=CONTEXT)


@pytest.fixture(scope="module")
def job(network, gguf, imatrix):
    def make(memory=MEMORY):
        stored = [tensor for tensor in layout.quantizable(gguf) if CHOSEN in tensor.name]
        values = importances.load(imatrix)
        return fisher.Pass(network=network, placements=layout.find(stored, network), stored=stored, importances=values, threads=1, memory=memory)

    return make


@pytest.fixture(scope="module")
def sensitivity(job, windows):
    made = job()
    products = fisher.measure(made, windows, 0)
    return Sensitivity(provider="fisher", tensors=tuple(placement.tensor for placement in made.placements), types=TYPES, products=products)


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K", "IQ4_XS"])
def test_the_prediction_is_the_measured_divergence(sensitivity, job, network, windows, type):
    made = job()
    predicted = sensitivity.predict({tensor.name: type for tensor in sensitivity.tensors})
    text = torch.from_numpy(windows[:24])
    with torch.inference_mode():
        before = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
    parameters = dict(network.named_parameters())
    originals = {}
    with torch.no_grad():
        for stored, placement in zip(made.stored, made.placements, strict=True):
            (segment,) = placement.segments
            values = matrices.values(stored)
            changed = values + matrices.error(values, type, importances=made.importances[placement.tensor.name])
            parameter = parameters[segment.parameter]
            originals[segment.parameter] = parameter.detach().clone()
            parameter[torch.from_numpy(segment.sources)] = torch.from_numpy(changed[segment.targets])
        after = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        for name, original in originals.items():
            parameters[name].copy_(original)
    measured = float((before.exp() * (before - after)).sum(-1).mean())
    assert predicted.mean == pytest.approx(measured, rel=0.25)


def test_groups_give_the_products_of_one_pass(sensitivity, job, windows):
    one = fisher.delta_bytes(sensitivity.tensors, [fisher.Unit(tensor=0, type=0)])
    tight = job(memory=30 * one)  # a group begins in the middle of a tensor's types
    assert len(fisher.grouped(sensitivity.tensors, tight.importances, tight.memory)) == 3
    products = fisher.measure(tight, windows[:2], 0)
    assert np.allclose(products, sensitivity.products[:2], rtol=1e-4, atol=1e-7)


def test_the_formula_for_memory_counts_the_tensors_that_are_held(sensitivity, job):
    made = job()
    one = fisher.delta_bytes(sensitivity.tensors, [fisher.Unit(tensor=0, type=0)])
    groups = fisher.grouped(sensitivity.tensors, made.importances, 30 * one)
    assert [list(chain(*groups))] == fisher.grouped(sensitivity.tensors, made.importances, MEMORY)
    held = [sum(task.squares.nbytes for task in fisher._tasks(made, group)) for group in groups[-1:]]
    assert held == [fisher.delta_bytes(sensitivity.tensors, groups[-1])]  # these tensors are taken whole; where rows are left out, at most
    assert all(fisher.delta_bytes(sensitivity.tensors, group) <= 30 * one for group in groups)
    with pytest.raises(MeasurementError, match="Give the stage more memory"):
        fisher.grouped(sensitivity.tensors, made.importances, one - 1)


def test_both_uses_of_a_tied_embedding_are_counted(network, gguf, windows):
    stored = [tensor for tensor in layout.quantizable(gguf) if tensor.name == "token_embd.weight"]
    made = fisher.Pass(network=network, placements=layout.find(stored, network), stored=stored, importances={}, threads=1, memory=MEMORY)
    type = TYPES.index("Q3_K")
    (task,) = fisher._tasks(made, [fisher.Unit(tensor=0, type=type)])
    products = np.zeros((len(windows), 1, len(TYPES)), dtype=np.float32)
    with fisher._hooked(network, [task]) as into:
        for n, window in enumerate(windows):
            into[0] = products[n]
            fisher.backward(network, window, n)
    text = torch.from_numpy(windows)
    embedding = network.get_input_embeddings().weight
    original = embedding.detach().clone()
    error = torch.from_numpy(matrices.error(matrices.values(stored[0]), "Q3_K", importances=None))
    assert torch.equal(error.square(), task.squares.reshape(embedding.shape))
    with torch.inference_mode():
        before = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        embedding += 0.1 * error  # so little that nothing but the second order counts
        after = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        embedding.copy_(original)
    measured = float((before.exp() * (before - after)).sum(-1).double().mean()) / 0.1**2
    predicted = 0.5 * products[..., type].mean()  # 40 % less when one of the uses is left out
    assert predicted == pytest.approx(measured, rel=0.25)


def test_a_sample_is_the_error_weighed_by_the_squared_gradient(sensitivity, job, network, windows):
    made, type = job(), TYPES.index("Q4_K")
    stored, placement = made.stored[0], made.placements[0]
    (segment,) = placement.segments
    error = matrices.error(matrices.values(stored), "Q4_K", importances=made.importances[stored.name])
    found = []
    with fisher.gradients(network, {segment.parameter: found.append}):
        fisher.backward(network, windows[3], 3)
    rows = layout.part(found[0], segment, torch.from_numpy(segment.sources)).numpy()
    assert sensitivity.products[3, 0, type] == pytest.approx(np.linalg.norm(rows * error[segment.targets]), rel=1e-4)


@pytest.fixture
def few(monkeypatch):
    """Some rows of each tensor, and of a vocabulary, stand for all."""
    monkeypatch.setattr(rows, "ROWS", 160)
    monkeypatch.setattr(rows, "FREQUENT", 256)


@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.2.ffn_down.weight", "blk.0.attn_q.weight", "token_embd.weight"])
def test_a_sample_of_rows_tells_the_errors_of_all(network, gguf, imatrix, windows, monkeypatch, few, name):
    stored = [tensor for tensor in layout.quantizable(gguf) if tensor.name == name]
    placements, known = layout.find(stored, network), importances.load(imatrix)
    about = placements[0].tensor
    tokens, counts = np.unique(windows, return_counts=True)
    made = fisher.Pass(
        network=network, placements=placements, stored=stored, importances=known, threads=1, memory=MEMORY, frequent=tokens[np.argsort(-counts)].tolist()
    )
    types = [TYPES.index(type) for type in ("Q2_K", "IQ3_S", "Q4_K", "Q6_K") if TYPES.index(type) in fisher.possible(about, known)]
    monkeypatch.setattr(fisher, "possible", lambda *_: types)
    part = fisher.measure(made, windows[:12], 0)[..., types].astype(float)
    assert rows.most(about) < about.rows
    monkeypatch.setattr(rows, "ROWS", about.rows)
    whole = fisher.measure(fisher.Pass(**{**vars(made), "held": []}), windows[:12], 0)[..., types].astype(float)
    cost, right = np.square(part).mean(axis=0)[0], np.square(whole).mean(axis=0)[0]
    assert cost == pytest.approx(right, rel=0.2)
    assert cost / cost[0] == pytest.approx(right / right[0], rel=0.1)  # types stand to one another as they do in all rows


def test_no_gradient_outlives_its_products(sensitivity, network):
    assert all(parameter.grad is None for parameter in network.parameters())


def test_types_that_need_importances_are_left_out_without_them(job):
    made = job()
    tensor = made.placements[0].tensor
    assert {TYPES[i] for i in fisher.possible(tensor, {})} == set(TYPES) - {"IQ1_S", "IQ2_XXS", "IQ2_XS"}
    assert len(fisher.possible(tensor, made.importances)) == len(TYPES)


def test_what_is_stored_comes_back(sensitivity, tmp_path):
    sensitivity.save(tmp_path)
    again = Sensitivity.load(tmp_path)
    assert again.tensors == sensitivity.tensors
    assert np.array_equal(again.products, sensitivity.products)


def test_more_windows_make_the_error_smaller_and_mixes_keep_to_their_size(sensitivity):
    few = Sensitivity(provider="fisher", tensors=sensitivity.tensors, types=TYPES, products=sensitivity.products[:6])
    assert 0 < relative_error(sensitivity) < relative_error(few)
    *_, largest = mixes(sensitivity)
    assert sensitivity.bytes(largest) * 8 <= 5.75 * sum(tensor.parameters for tensor in sensitivity.tensors)


def test_labels_follow_the_probabilities():
    probabilities = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).repeat(4000, 1)
    labels = fisher._drawn(probabilities, np.random.default_rng(0).random(4000))
    assert (torch.bincount(labels, minlength=4) / 4000).numpy() == pytest.approx([0.2, 0, 0.5, 0.3], abs=0.03)
