from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import calibrate, matrices
from builders.sensitivity import activations, fisher, gather, importances, layout, measure, room, rows, weigh
from builders.sensitivity.gather import Pass
from builders.sensitivity.sample import mixes, relative_error, spread
from builders.sensitivity.table import TYPES, Sensitivity
from engines import hf, quantizable
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


def passed(network, gguf, chosen, *, memory=MEMORY, rounding=False, frequent=()):
    """A pass over the tensors whose names `chosen` tells."""
    stored = [tensor for tensor in layout.quantizable(gguf) if chosen(tensor.name)]
    placements = layout.find(stored, network)
    return Pass(network=network, placements=placements, stored=stored, memory=memory, rounding=rounding, frequent=frequent)


def weighed(job, windows, known):
    """The table of a pass over all these windows."""
    means, energies = {}, {}
    for group in gather.gather(job, windows, lambda _: len(windows)):
        for found in group:
            about, stored = job.placements[found.place].tensor, job.stored[found.place]
            means[found.place] = weigh.means(about, found.parts, stored, known, windows=len(windows), threads=1)
            energies[found.place] = found.energies.numpy()
    places = range(len(job.placements))
    products = weigh.products(np.stack([means[place] for place in places]), np.stack([energies[place] for place in places], axis=1))
    return Sensitivity(provider="fisher", tensors=tuple(placement.tensor for placement in job.placements), types=TYPES, products=products)


@pytest.fixture(scope="module")
def known(imatrix):
    return importances.load(imatrix)


@pytest.fixture(scope="module")
def job(network, gguf):
    return passed(network, gguf, lambda name: CHOSEN in name)


@pytest.fixture(scope="module")
def sensitivity(job, windows, known):
    return weighed(job, windows, known)


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K", "IQ4_XS"])
def test_the_prediction_is_the_measured_divergence(sensitivity, job, network, windows, known, type):
    predicted = sensitivity.predict({tensor.name: type for tensor in sensitivity.tensors})
    text = torch.from_numpy(windows[:24])
    with torch.inference_mode():
        before = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
    parameters = dict(network.named_parameters())
    originals = {}
    with torch.no_grad():
        for stored, placement in zip(job.stored, job.placements, strict=True):
            (segment,) = placement.segments
            values = matrices.values(stored)
            changed = values + matrices.error(values, type, importances=known[placement.tensor.name])
            parameter = parameters[segment.parameter]
            originals[segment.parameter] = parameter.detach().clone()
            parameter[torch.from_numpy(segment.sources)] = torch.from_numpy(changed[segment.targets])
        after = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        for name, original in originals.items():
            parameters[name].copy_(original)
    measured = float((before.exp() * (before - after)).sum(-1).mean())
    assert predicted.mean == pytest.approx(measured, rel=0.25)


def test_groups_give_the_sums_of_one_pass(sensitivity, job, network, gguf, windows, known):
    sizes = [room.held(tensor, MEMORY, rounding=False) for tensor in sensitivity.tensors]
    tight = passed(network, gguf, lambda name: CHOSEN in name, memory=sizes[0] + sizes[1])
    assert [len(group) for group in gather.grouped(sensitivity.tensors, tight.memory, rounding=False)] == [2, 2]
    assert np.allclose(weighed(tight, windows, known).products, sensitivity.products, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("rounding", [True, False])
def test_the_formula_for_memory_counts_the_sums_that_are_held(network, gguf, windows, rounding):
    made = passed(network, gguf, lambda name: True, rounding=rounding)
    (group,) = gather.gather(made, windows[:1], lambda _: 1)
    held = sum(part.squares.nbytes for found in group for part in found.parts) + sum(found.sums.bytes for found in group if found.sums is not None)
    stated = sum(room.held(placement.tensor, MEMORY, rounding=rounding) for placement in made.placements)
    assert 0.98 * stated <= held <= stated  # at most: the most frequent tokens are among the rows with the largest gradients
    assert 0.9 * stated <= gather.foretold(network, rounding=rounding) <= 1.1 * stated


def test_windows_run_until_they_are_enough(job, windows):
    asked = []

    def more(energies):
        asked.append(energies.shape)
        return 3 if len(energies) < 3 else 5

    (group,) = gather.gather(job, windows, more)
    assert asked == [(0, 4), (3, 4), (5, 4)]
    assert all(len(found.energies) == 5 for found in group)
    assert all((found.energies > 0).all() for found in group)


def test_the_first_windows_tell_what_rounding_costs_and_give_the_same_sums(network, gguf, windows, monkeypatch):
    monkeypatch.setattr(gather, "WATCHED", 2)
    plain = passed(network, gguf, lambda name: CHOSEN in name or name == "token_embd.weight")
    on_the_way, alone = (activations.Rounding.of(network, plain.placements) for _ in range(2))
    (found,), (watched,) = (gather.gather(job, windows[:4], lambda _: 4) for job in (plain, replace(plain, watched=on_the_way.watched)))
    for one, other in zip(found, watched, strict=True):
        assert torch.allclose(one.energies, other.energies, rtol=1e-4)
        assert all(torch.allclose(a.squares, b.squares, rtol=1e-3, atol=1e-9) for a, b in zip(one.parts, other.parts, strict=True))
    with fisher.gradients(network, {}), alone.watched():
        for number in range(2):
            fisher.backward(network, windows[number], number)
    assert np.allclose(on_the_way.costs(2), alone.costs(2), rtol=1e-4)
    assert on_the_way.costs(2).any(axis=1).all()


def test_no_window_is_read_twice(fixed, gguf, imatrix, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "FIRST", 2)
    monkeypatch.setattr(quantizable, "KEPT", (*quantizable.KEPT, "ffn", "token_embd", "attn_q", "attn_k", "attn_output"))
    read, backward = [], fisher.backward
    monkeypatch.setattr(fisher, "backward", lambda network, window, number: (read.append(number), backward(network, window, number)))
    text = {"chat": [DATA / "calibration.jsonl"], "plain": [], "tokens": 2 * CONTEXT, "context": CONTEXT}
    assert measure.by_gradients(tmp_path, model=fixed, gguf=gguf, imatrix=imatrix, **text, threads=1)["windows"] == 2
    assert read == [0, 1]
    assert Sensitivity.load(tmp_path).activations.any(axis=1).all()


def test_both_uses_of_a_tied_embedding_are_counted(network, gguf, windows):
    made = passed(network, gguf, lambda name: name == "token_embd.weight")
    table = weighed(made, windows, {})
    text = torch.from_numpy(windows)
    embedding = network.get_input_embeddings().weight
    original = embedding.detach().clone()
    error = torch.from_numpy(matrices.error(matrices.values(made.stored[0]), "Q3_K", importances=None))
    with torch.inference_mode():
        before = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        embedding += 0.1 * error  # so little that nothing but the second order counts
        after = network(input_ids=text, use_cache=False).logits.log_softmax(-1)
        embedding.copy_(original)
    measured = float((before.exp() * (before - after)).sum(-1).double().mean()) / 0.1**2
    predicted = table.weights[0, TYPES.index("Q3_K")]  # 40 % less when one of the uses is left out
    assert predicted == pytest.approx(measured, rel=0.25)


def gradient(network, job, windows, number):
    """Of the first tensor's rows, in a window."""
    (segment,) = job.placements[0].segments
    found = []
    with fisher.gradients(network, {segment.parameter: found.append}):
        fisher.backward(network, windows[number], number)
    rows = np.empty((len(segment.targets), found[0].shape[1]), dtype=np.float32)
    rows[segment.targets] = layout.part(found[0], segment, torch.from_numpy(segment.sources)).numpy()
    return rows


def test_costs_are_the_errors_weighed_by_squared_gradients(job, network, windows, known):
    table = weighed(job, windows[:3], known)
    stored = job.stored[0]
    for type in ("IQ2_XXS", "Q4_K", "Q8_0"):
        error = matrices.error(matrices.values(stored), type, importances=known[stored.name])
        right = np.mean([np.linalg.norm(gradient(network, job, windows, number) * error) ** 2 for number in range(3)])
        assert np.square(table.products[:, 0, TYPES.index(type)]).mean() == pytest.approx(right, rel=1e-4)


def test_windows_differ_as_their_errors_do(sensitivity, job, network, windows, known):
    stored = job.stored[0]
    error = matrices.error(matrices.values(stored), "Q3_K", importances=known[stored.name])
    right = np.array([np.linalg.norm(gradient(network, job, windows, number) * error) for number in range(12)])
    found = sensitivity.products[:12, 0, TYPES.index("Q3_K")]
    assert np.corrcoef(found, right)[0, 1] > 0.98
    assert found == pytest.approx(right, rel=0.25)


def test_bfloat16_gives_the_same_costs(sensitivity, fixed, gguf, windows, known):
    network = hf.load_model(fixed, dtype=torch.bfloat16)
    table = weighed(passed(network, gguf, lambda name: CHOSEN in name), windows, known)
    found, right = (one.weights[:, :-1] for one in (table, sensitivity))  # without BF16, which costs nothing
    assert (found / right).mean() == pytest.approx(1, abs=0.1)  # other labels are drawn where probabilities differ by little
    assert found / found[:, :1] == pytest.approx(right / right[:, :1], rel=0.05)


@pytest.fixture
def few(monkeypatch):
    """Some rows of each tensor, and of a vocabulary, stand for all."""
    monkeypatch.setattr(rows, "ROWS", 160)
    monkeypatch.setattr(rows, "FREQUENT", 256)


@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.2.ffn_down.weight", "blk.0.attn_q.weight", "token_embd.weight"])
def test_a_sample_of_rows_tells_the_errors_of_all(network, gguf, known, windows, monkeypatch, few, name):
    tokens, counts = np.unique(windows, return_counts=True)
    made = passed(network, gguf, lambda other: other == name, frequent=tokens[np.argsort(-counts)].tolist())
    (about,) = (placement.tensor for placement in made.placements)
    types = [TYPES.index(type) for type in ("Q2_K", "IQ3_S", "Q4_K", "Q6_K") if TYPES.index(type) in weigh.possible(about, known)]
    monkeypatch.setattr(weigh, "possible", lambda *_: types)
    cost = weighed(made, windows[:12], known).weights[0, types]
    assert rows.most(about) < about.rows
    monkeypatch.setattr(rows, "ROWS", about.rows)
    right = weighed(made, windows[:12], known).weights[0, types]
    assert cost == pytest.approx(right, rel=0.2)
    assert cost / cost[0] == pytest.approx(right / right[0], rel=0.1)  # types stand to one another as they do in all rows


def test_no_gradient_outlives_its_sums(sensitivity, network):
    assert all(parameter.grad is None for parameter in network.parameters())


def test_types_that_need_importances_are_left_out_without_them(job, known):
    tensor = job.placements[0].tensor
    assert {TYPES[i] for i in weigh.possible(tensor, {})} == set(TYPES) - {"IQ1_S", "IQ2_XXS", "IQ2_XS"}
    assert len(weigh.possible(tensor, known)) == len(TYPES)


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


def test_the_spread_of_energies_tells_the_error_of_mixes(sensitivity):
    energies = np.square(sensitivity.products[:, :, TYPES.index("Q4_0")], dtype=np.float64)
    values = np.array([tensor.parameters for tensor in sensitivity.tensors])
    assert spread(energies, values) == pytest.approx(relative_error(sensitivity), rel=0.25)
    assert spread(energies[:1], values) == np.inf


def test_labels_follow_the_probabilities():
    probabilities = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).repeat(4000, 1)
    labels = fisher._drawn(probabilities, np.random.default_rng(0).random(4000))
    assert (torch.bincount(labels, minlength=4) / 4000).numpy() == pytest.approx([0.2, 0, 0.5, 0.3], abs=0.03)
