"""Sensitivities through llama.cpp alone: on the bundled model, and on one that transformers does not know."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from builders import calibrate, matrices, plan
from builders.assemble import Assembler
from builders.sensitivity import fisher, importances, layout, measure, probes, room, weigh
from builders.sensitivity.importances import Entry
from builders.sensitivity.table import TYPES, Sensitivity, Tensor
from config.errors import MeasurementError, UnsupportedModel
from engines import ggml, hf, llama
from qa import divergence
from tests.builders.conftest import CALIBRATION, DATA
from tests.builders.sensitivity.test_layout import written

CONTEXT = 128
FEW = ("Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q8_0", "BF16")  # building the tables of the IQ types takes seconds each
WANTED = {**CALIBRATION, "tokens": 8 * CONTEXT, "context": CONTEXT}


def tensor(name, rows=2, columns=256, experts=1):
    return Tensor(name=name, rows=rows, columns=columns, experts=experts)


@pytest.fixture(scope="module")
def text(fixed):
    with calibrate.voice(fixed, threads=1) as by:
        return calibrate.windows(by, [DATA / "calibration.jsonl"], [DATA / "calibration_questions.txt"], tokens=4 * CONTEXT, context=CONTEXT)


@pytest.fixture
def few_types(monkeypatch):
    possible = weigh.possible
    monkeypatch.setattr(weigh, "possible", lambda tensor, known: [i for i in possible(tensor, known) if TYPES[i] in FEW])


@pytest.fixture
def unknown(fixed, tmp_path):
    """The fixed model, of an architecture that transformers has no code for; the converter tells it by another name."""
    folder = shutil.copytree(fixed, tmp_path / "unknown")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "not-in-transformers"}))
    return folder


def test_a_model_that_transformers_refuses_is_probed_and_planned_and_the_reason_is_told(unknown, gguf, imatrix, tmp_path, few_types, monkeypatch):
    monkeypatch.setattr(probes, "CHECKED", (3.5, 5.0))  # the smallest of these types has 2.6 bits
    (out := tmp_path / "out").mkdir()
    told = measure.measure(out, model=unknown, gguf=gguf, imatrix=imatrix, **WANTED)
    assert told["provider"] == "probes"
    assert "'not-in-transformers'" in told["reason"]
    assert told["reason"] in told["remark"]
    assert (told["windows"], told["tokens"]) == (8, 8 * CONTEXT)
    assert len(told["probes"]) == 8 + 4  # roles and layers
    assert all(mix["predicted"] == pytest.approx(mix["measured"], rel=0.5) for mix in told["checked"])
    level = math.prod(mix["measured"] / mix["predicted"] for mix in told["checked"]) ** 0.5
    table = Sensitivity.load(out)
    assert probes.LEAST <= table.systematic < told["relative_error"]
    for name, nats in told["probes"].items():
        if not name.startswith("layers"):  # what a role's probe says is what the table says of it
            mix = {item.name: "Q3_K" if probes.role(item) == name else "BF16" for item in table.tensors}
            assert table.predict(mix).mean == pytest.approx(level * nats, rel=1e-3)
    (planned := tmp_path / "plan").mkdir()
    found = plan.plan(planned, sensitivity=out, gguf=gguf, imatrix=out / "importances.gguf", budget={"bpw": 4.5}, rules={}, threads=1)
    assert (found["provider"], found["systematic"]) == ("probes", table.systematic)
    assert found["predicted"]["stderr"] > table.systematic * found["predicted"]["mean"]


def test_a_model_that_is_merely_broken_is_not_probed(fixed, gguf, imatrix, tmp_path, monkeypatch):
    folder = shutil.copytree(fixed, tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    monkeypatch.setattr(probes, "measure", lambda *_, **__: pytest.fail("it was probed"))
    with pytest.raises(MeasurementError, match="cannot load a model") as raised:
        measure.measure(tmp_path, model=folder, gguf=gguf, imatrix=imatrix, **WANTED)
    assert not isinstance(raised.value, UnsupportedModel)
    with pytest.raises(MeasurementError, match="Name more text"):
        measure.measure(tmp_path, model=fixed, gguf=gguf, imatrix=imatrix, **{**WANTED, "tokens": CONTEXT})


def test_a_model_whose_gradients_do_not_fit_is_probed(fixed, gguf, imatrix, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "memory", lambda device: 2**20)
    monkeypatch.setattr(probes, "measure", lambda *_, **__: {"provider": "probes"})
    found = measure.measure(tmp_path, model=fixed, gguf=gguf, imatrix=imatrix, **WANTED)
    assert found["provider"] == "probes"
    assert "bytes of memory" in found["reason"]


def test_a_model_without_a_backward_pass_is_told_apart(text):
    class Frozen(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids, use_cache):
            logits = torch.zeros(1, input_ids.shape[1], 8)
            return type("Output", (), {"logits": logits if self.parts == 0 else Stuck.apply(self.weight, logits)})

    class Stuck(torch.autograd.Function):
        @staticmethod
        def forward(context, weight, logits):
            return logits * weight

    network = Frozen()
    network.weight = torch.nn.Parameter(torch.ones(1))
    for network.parts in (0, 1):
        with pytest.raises(UnsupportedModel, match="no backward pass"):
            fisher.backward(network, text[0], 0)


def test_raking_finds_the_factors_of_roles_and_depths():
    rng = np.random.default_rng(0)
    tensors = [tensor(f"blk.{layer}.{name}.weight") for layer in range(20) for name in ("attn_q", "attn_v", "ffn_down")] + [tensor("token_embd.weight")]
    found = probes.groups(tensors)
    assert [group.name for group in found.roles] == ["attn_q.weight", "attn_v.weight", "ffn_down.weight", "token_embd.weight"]
    assert [group.name for group in found.depths][::7] == ["layers 0 to 2", "layers 18 to 19"]
    assert sorted(i for group in found.depths for i in group.tensors) == list(range(60))
    errors, truth = rng.lognormal(size=61), np.empty(61)
    for groups in (found.roles, found.depths):
        for group in groups:
            truth[list(group.tensors)] = 1
    for group in (*found.roles, *found.depths):
        truth[list(group.tensors)] *= rng.lognormal()
    roles, depths = (np.array([(truth * errors)[list(group.tensors)].sum() for group in groups]) for groups in (found.roles, found.depths))
    assert probes.factors(errors, found, roles, depths) == pytest.approx(truth)
    assert probes.factors(errors, found, roles, 1.3 * depths) == pytest.approx(truth), "roles decide about the size"
    assert probes.factors(errors, found, np.array([0, *roles[1:]]), depths)[found.roles[0].tensors[0]] == 0


def test_the_level_is_corrected_and_what_still_scatters_is_the_error():
    level, error = probes.correction([1.0, 2.0, 4.0], np.array([2.0, 4.0, 8.0]))
    assert (level, error) == (pytest.approx(2), probes.LEAST)
    level, error = probes.correction([1.0, 1.0], [math.exp(0.1), math.exp(0.5)])
    assert level == pytest.approx(math.exp(0.3))
    assert error == pytest.approx(0.4 / 2**0.5 * 1.5**0.5)
    with pytest.raises(MeasurementError, match="exactly like the 16-bit model"):
        probes.correction([1.0, 1.0], [1.0, 0.0])


def test_a_single_layer_has_no_depths():
    found = probes.groups([tensor("blk.0.attn_q.weight"), tensor("output.weight")])
    assert found.depths == ()
    assert probes.factors(np.array([2.0, 4.0]), found, np.array([1.0, 1.0]), np.array([])).tolist() == [0.5, 0.25]


def test_an_expert_counts_by_the_tokens_that_reached_it(tmp_path, few_types):
    values = torch.randn(2, 4, 256, generator=torch.Generator().manual_seed(0))
    stored = written(tmp_path / "m.gguf", experts_weight=values)
    about = [layout.described(stored[0])]
    sums = np.ones((2, 256)) * [[30.0], [2.0]]
    both = probes.weighted_errors(stored, about, {"experts.weight": Entry(sums=sums, counts=np.array([30.0, 1.0]))}, threads=1)
    assert np.isnan(both[0, TYPES.index("IQ3_S")])
    type_ = TYPES.index("Q4_K")
    weights = np.array([[1.0] * 256, [2.0] * 256], dtype=np.float32)
    error = np.stack([matrices.error(part, "Q4_K", importances=own) for part, own in zip(matrices.values(stored[0]).reshape(2, 4, 256), weights, strict=True)])
    first, second = (float((weights[i] * error[i].astype(np.float64) ** 2).sum()) for i in (0, 1))
    assert both[0, type_] == pytest.approx((30 * first + second) / 31, rel=1e-5)


def test_the_divergence_of_a_probe_is_the_gates(gguf, imatrix, text, tmp_path):
    mix = {"blk.0.ffn_down.weight": "Q3_K", "blk.1.attn_q.weight": "Q2_K"}
    assembler = Assembler(gguf, importances.load(imatrix), threads=1)
    found = probes.divergences(assembler, {"some": mix, "none": {}}, text, threads=2)
    assembler.write(tmp_path / "m.gguf", mix)
    with llama.open_model(gguf, context=CONTEXT, threads=1) as reference, llama.open_model(tmp_path / "m.gguf", context=CONTEXT, threads=1) as variant:
        scores = divergence.compare(reference.logits, variant.logits, text.astype(np.int32))
    assert found[0] == pytest.approx(np.nanmean(scores.kld, axis=1), rel=0.02)  # the gates leave out the last position, whose next token is unknown
    assert found[0].min() > 0
    assert found[1] == pytest.approx(0)


def test_a_probe_that_is_not_finite_is_named(gguf, imatrix, text, tmp_path):
    spoiled = tmp_path / "spoiled.gguf"
    reader = GGUFReader(gguf)
    writer = GGUFWriter(spoiled, "llama")
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if len(field.types) > 1 else None)
    for item in reader.tensors:
        data = np.full_like(item.data, np.inf) if item.name == "output_norm.weight" else item.data
        writer.add_tensor(item.name, data, raw_dtype=item.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(MeasurementError, match="divergence of the probe 'down' is not finite"):
        probes.divergences(Assembler(spoiled, importances.load(imatrix), threads=1), {"down": {"blk.0.ffn_down.weight": "Q4_0"}}, text, threads=1)


def test_importances_are_completed_without_transformers(fixed, gguf, imatrix, text, tmp_path):
    lost = "blk.1.attn_v.weight"
    entries = {name: entry for name, entry in importances.read(imatrix).items() if name != lost}
    importances.write(tmp_path / "less.gguf", entries, importances.About.of(imatrix))
    tensors = [layout.described(item) for item in layout.quantizable(gguf)]
    done, unreached = probes._importances(tmp_path / "done.gguf", tmp_path / "less.gguf", gguf, tensors, text, 1)
    assert not unreached
    assert done.keys() == {item.name for item in tensors}
    network = hf.load_model(fixed)
    with measure._entering(network) as entered, torch.inference_mode():
        for window in text:
            network(input_ids=torch.from_numpy(window)[None], use_cache=False)
    own = entered()  # what transformers finds for the tied embedding
    assert own.counts == [text.size]
    assert done["token_embd.weight"].means == pytest.approx(own.means, rel=0.05)
    others = [entry.means.mean() for name, entry in entries.items() if name.endswith("attn_v.weight")]
    assert done[lost].means == pytest.approx(np.full((1, 256), np.mean(others)))


def test_a_type_that_no_row_fits_is_left_out(tmp_path):
    stored = written(tmp_path / "m.gguf", a_weight=torch.randn(4, 48, generator=torch.Generator().manual_seed(0)))
    errors = probes.weighted_errors(stored, [layout.described(stored[0])], {"a.weight": Entry(sums=np.ones((1, 48)), counts=np.ones(1))}, threads=1)
    assert [TYPES[i] for i in np.flatnonzero(~np.isnan(errors[0]))] == ["BF16"]
    assert not ggml.fits("Q4_0", 48)
    assert errors[0, TYPES.index("BF16")] == 0


def test_the_text_of_a_gguf_file_is_that_of_its_folder(fixed, gguf, text):
    with calibrate.voice(gguf, threads=1) as by:
        found = calibrate.windows(by, [DATA / "calibration.jsonl"], [DATA / "calibration_questions.txt"], tokens=4 * CONTEXT, context=CONTEXT)
    assert found.tolist() == text.tolist()
