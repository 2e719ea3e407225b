"""Every stage that can be long reports how far it has come, in its unit and to the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfApi

from builders import bnb, calibrate, convert, quantize, snapshot
from builders.assemble import Assembler
from builders.rounding import improve
from builders.sensitivity import activations, gather, importances, layout, nf4, probes, room, weigh
from builders.sensitivity.gather import Pass
from builders.sensitivity.table import TYPES
from config.words import Release
from engines import hf
from hub.server import running
from hub.tokens import create_token
from tests.builders.conftest import CALIBRATION, DATA, DEMO
from tests.builders.rounding.test_hessians import collected
from tests.heard import hearing, phases, whole

TEXT: dict[str, Any] = {"chat": [DATA / "calibration.jsonl"], "plain": [DATA / "calibration_questions.txt"]}
CONTEXT = 128


@pytest.fixture(scope="module")
def windows(fixed: Path) -> calibrate.Windows:
    return calibrate.windows(hf.speaking(hf.load_tokenizer(fixed)), [*TEXT["chat"]], [*TEXT["plain"]], tokens=4 * CONTEXT, context=CONTEXT)


def test_fetch_tells_bytes_that_arrive_and_then_those_that_are_checked(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with running(tmp_path / "hub") as url:
        owner = HfApi(endpoint=url, token=create_token(tmp_path / "hub", user="upstream"))
        owner.create_repo("upstream/tiny-chat")
        sha = owner.upload_folder(repo_id="upstream/tiny-chat", folder_path=DEMO).oid
        (tmp_path / "out").mkdir()
        with hearing() as found:
            result = snapshot.fetch(tmp_path / "out", api=HfApi(endpoint=url, token=False), release=Release(repo="upstream/tiny-chat", sha=sha))
    assert whole(found, "bytes") == [result["total"]] * 2


def test_convert_tells_bytes(fixed: Path, tmp_path: Path) -> None:
    with hearing() as found:
        convert.convert(tmp_path, model=fixed, name="tiny-chat")
    assert whole(found, "bytes")


def test_imatrix_tells_the_passages_it_reads_and_the_chunks_it_computes(fixed: Path, gguf: Path, tmp_path: Path) -> None:
    with hearing() as found:
        result = calibrate.imatrix(tmp_path, model=fixed, gguf=gguf, **CALIBRATION)
    assert len(whole(found, "passages")) == 1
    assert whole(found, "chunks") == [result["chunks"]]
    assert "conversations" in {item.unit for item in found}


def test_quantize_tells_tensors_of_stock_and_planned_mixes(gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    mix = tmp_path / "mix.json"
    mix.write_text(json.dumps({"blk.0.attn_q.weight": "Q4_K"}))
    with hearing() as found:
        quantize.quantize(tmp_path, gguf=gguf, imatrix=imatrix, type="Q4_K_M", name="m", threads=1)
        quantize.mixed(tmp_path, gguf=gguf, imatrix=imatrix, mix=mix, name="m", tag="planned", threads=1)
    assert whole(found, "tensors") == [38, 38]


def test_bnb_tells_tensors_it_loads_and_files_it_writes(fixed: Path, tmp_path: Path) -> None:
    with hearing() as found:
        bnb.quantize(tmp_path, model=fixed, threads=1)
    assert whole(found, "tensors")[0] > 28
    assert whole(found, "files") == [1]


def test_gradients_tell_tensors_and_windows_over_all_groups(fixed: Path, gguf: Path, imatrix: Path, windows: calibrate.Windows) -> None:
    network = hf.load_model(fixed)
    stored = [tensor for tensor in layout.quantizable(gguf) if "attn_v" in tensor.name]
    with hearing() as found:
        placements = layout.find(stored, network)
    assert whole(found, "tensors") == [4]
    one = room.held(placements[0].tensor, 2**21, rounding=False)
    watched = activations.Rounding.of(network, placements).watched
    job = Pass(network=network, placements=placements, stored=stored, memory=2 * one, rounding=False, watched=watched)
    groups = gather.grouped([placement.tensor for placement in placements], job.memory, rounding=False)
    assert len(groups) == 2
    with hearing() as found:
        assert len(list(gather.gather(job, windows, lambda energies: min(len(energies) + 2, len(windows))))) == 2
    assert whole(found, "windows") == [2, len(windows)]  # those that are added count on from the first


def test_nf4_tells_layers_and_windows(fixed: Path, tmp_path: Path) -> None:
    with hearing() as found:
        result = nf4.measure(tmp_path, model=fixed, **TEXT, tokens=4 * CONTEXT, context=CONTEXT, threads=1)
    assert whole(found, "layers") == [28]
    assert whole(found, "windows") == [result["windows"]]


def test_probes_tell_tensors_probes_and_windows_of_all_probes(gguf: Path, imatrix: Path, windows: calibrate.Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TOGETHER", 2)
    stored = [tensor for tensor in layout.quantizable(gguf) if "attn_v" in tensor.name]
    entries, tensors = importances.read(imatrix), [layout.described(tensor) for tensor in stored]
    monkeypatch.setattr(weigh, "possible", lambda *_: [TYPES.index("Q8_0")])
    with hearing() as found:
        probes.weighted_errors(stored, tensors, entries, threads=1)
    assert whole(found, "tensors") == [4]
    mixes = {tensor.name: {tensor.name: "Q8_0"} for tensor in tensors[:3]}
    with hearing() as found:
        divergences = probes.divergences(Assembler(gguf, importances.load(imatrix), threads=1), mixes, windows, threads=1)
    assert np.isfinite(divergences).all()
    for unit, total in (("probes", 3), ("windows", 3 * len(windows))):
        counts = [item.done for item in found if item.unit == unit]
        assert (counts[0], counts[-1], counts) == (0, total, sorted(counts))
        assert {item.total for item in found if item.unit == unit} == {total}


def test_rounding_tells_tensors(fixed: Path, gguf: Path, imatrix: Path, tmp_path: Path) -> None:
    statistics, quantized, out = (tmp_path / name for name in ("statistics", "quantized", "out"))
    for folder in (statistics, quantized, out):
        folder.mkdir()
    collected(statistics, (fixed, gguf), tokens=2 * CONTEXT)
    file = quantize.quantize(quantized, gguf=gguf, imatrix=imatrix, type="Q4_0", name="m", threads=1)["file"]
    with hearing() as found:
        improve.improve(out, quantized=quantized / str(file), gguf=gguf, statistics=statistics, threads=1)
    assert whole(found, "tensors") == [38]
    assert len(phases(found)) == 1
