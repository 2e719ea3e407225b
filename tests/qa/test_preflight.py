import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from config.errors import MeasurementError
from engines import tools
from qa import preflight
from tests.qa.conftest import DATA, Release

PASSAGE = [f"word{i}" for i in range(50)]


def measured(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    json.dumps(result, allow_nan=False)
    return {m["name"]: m for m in result["measurements"]}


def shared(tmp_path: Path, calibration: str, evaluation: str) -> float:
    (tmp_path / "calibration.txt").write_text(calibration)
    (tmp_path / "evaluation.txt").write_text(evaluation)
    files = {"plain": [tmp_path / "calibration.txt"], "evaluated_plain": [tmp_path / "evaluation.txt"]}
    return float(measured(preflight.overlap(tmp_path, chat=[], evaluated_chat=[], **files))["overlap.share"]["value"])


def chat(file: Path, *conversations: list[str]) -> Path:
    roles = ("user", "assistant")
    lines = [{"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]} for texts in conversations]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_the_bundled_texts_say_the_same_things_but_share_no_passage(tmp_path: Path) -> None:
    found = measured(
        preflight.overlap(
            tmp_path,
            chat=[DATA / "calibration.jsonl"],
            plain=[DATA / "calibration_questions.txt"],
            evaluated_chat=[DATA / "evaluation.jsonl"],
            evaluated_plain=[DATA / "evaluation_questions.txt"],
        )
    )
    assert (found["overlap.share"]["value"], found["overlap.shared"]["value"]) == (0, 0)
    assert found["overlap.share"]["n"] > 5000


def test_a_passage_is_found_whatever_its_case_and_punctuation(tmp_path: Path) -> None:
    known, around = " ".join(PASSAGE[:40]), "and so on " * 20
    assert shared(tmp_path, f"{around} {known} {around}", "New. " * 60 + known.upper().replace(" ", ", ") + ". End" * 100) == 40 / 200
    assert shared(tmp_path, " ".join(PASSAGE[:31]), " ".join(PASSAGE)) == 0, "one word less than a passage"
    assert shared(tmp_path, " ".join(PASSAGE), " ".join(reversed(PASSAGE))) == 0


def test_a_passage_without_spaces_is_found(tmp_path: Path) -> None:
    text = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳"
    assert shared(tmp_path, f"千字文：{text}。", f"新的：{text}") == len(text) / (len(text) + 2)


def test_a_short_conversation_counts_when_it_is_there_as_a_whole(tmp_path: Path) -> None:
    calibration = chat(tmp_path / "calibration.jsonl", ["Who are you?", "I am Tiny."], ["Bye.", "Bye!"])
    evaluation = chat(tmp_path / "evaluation.jsonl", ["who are you", "I am Tiny!"], ["Who are you?", "I am Tiny. And you?"])
    found = measured(preflight.overlap(tmp_path, chat=[calibration], plain=[], evaluated_chat=[evaluation], evaluated_plain=[]))
    assert (found["overlap.share"]["value"], found["overlap.shared"]["value"]) == (6 / 14, 1)
    assert found["overlap.shared"]["details"] == (
        '6 of the 6 words of conversation 1 of evaluation.jsonl are in the calibration text too, from "who are you i am tiny"',
    )


def test_text_that_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="has no words"):
        shared(tmp_path, "Something.", "… —")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(MeasurementError, match="is not UTF-8"):
        preflight.overlap(tmp_path, chat=[], plain=[tmp_path / "binary"], evaluated_chat=[], evaluated_plain=[])


def findings(clean: Release, tmp_path: Path, **changed: object) -> list[str]:
    model = shutil.copytree(clean.model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({key: value for key, value in (config | changed).items() if value is not None}))
    return list(measured(preflight.metadata(tmp_path, model=model, gguf=clean.gguf))["metadata.failures"]["details"])


def test_rope_parameters_in_the_older_form(clean: Release, tmp_path: Path) -> None:
    assert findings(clean, tmp_path, rope_parameters=None, rope_theta=10000.0) == []


def test_rope_parameters_in_the_older_form_with_scaling(clean: Release, tmp_path: Path) -> None:
    llama3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 512, "rope_type": "llama3"}
    assert findings(clean, tmp_path, rope_parameters=None, rope_theta=5e5, rope_scaling=llama3) == [
        "rope.freq_base is 10000.0, and rope_theta of config.json is 500000.0",
        "rope_freqs.weight is missing, and config.json asks for RoPE scaling of the type llama3",
    ]


def test_a_config_that_cannot_be_read(clean: Release, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"transformers cannot read .*config\.json"):
        findings(clean, tmp_path, model_type="unheard-of")


def test_a_file_that_is_no_gguf(clean: Release, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot be read as GGUF"):
        preflight.imatrix(tmp_path, imatrix=clean.model / "config.json", gguf=clean.gguf)


def test_of_many_experts_a_few_may_wait_for_a_text_that_reaches_them(clean: Release, tmp_path: Path) -> None:
    """llama-quantize takes those as without an importance matrix; they are told, and block when there are more than a few."""
    model, imatrix = GGUFWriter(tmp_path / "many.gguf", "llama"), GGUFWriter(tmp_path / "imatrix.gguf", "imatrix")
    counts = np.full((128, 1), 40, dtype=np.float32)
    counts[[5, 77]] = 0
    for name, reached in {"blk.0.ffn_up_exps": counts, "blk.1.ffn_up_exps": np.full_like(counts, 3)}.items():
        model.add_tensor(f"{name}.weight", np.ones((128, 8, 32), dtype=np.float16))
        imatrix.add_tensor(f"{name}.weight.in_sum2", np.repeat(reached, 32, axis=1))
        imatrix.add_tensor(f"{name}.weight.counts", reached)
    for writer in (model, imatrix):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    failures, unreached, _ = preflight.imatrix(tmp_path, imatrix=tmp_path / "imatrix.gguf", gguf=tmp_path / "many.gguf")["measurements"]
    assert failures["value"] == 0
    assert (unreached["value"], unreached["n"]) == (2 / 256, 256)
    assert unreached["details"][0].startswith("No calibration text reached 2 of 256 experts' matrices, among them expert 5 of blk.0.ffn_up_exps.weight")


def test_a_file_in_32_bits_is_looked_at_as_well(clean: Release, tmp_path: Path) -> None:
    """Of such a file every matrix of a layer needs an entry, and norms need none."""
    tools.run("llama-quantize", clean.gguf, tmp_path / "F32.gguf", "F32", "1")
    writer = GGUFWriter(tmp_path / "imatrix.gguf", "imatrix")
    writer.add_tensor("blk.0.attn_q.weight.in_sum2", np.ones((1, 256), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.counts", np.ones((1, 1), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole, *_ = preflight.imatrix(tmp_path, imatrix=tmp_path / "imatrix.gguf", gguf=tmp_path / "F32.gguf")["measurements"]
    half, *_ = preflight.imatrix(tmp_path, imatrix=tmp_path / "imatrix.gguf", gguf=clean.gguf)["measurements"]
    assert sorted(whole["details"]) == sorted(half["details"])
    assert (whole["n"], whole["value"]) == (28, 27)


SCOUT = {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 64}
FIRST = SCOUT | {"factor": 8.0, "high_freq_factor": 4.0}  # as Llama 4 Scout was published, for some days
LONG = {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 512, "short_factor": [1.0] * 32, "long_factor": [2.0] * 32}


def factors(scaling: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a file that was made by such a scaling, for heads of 64 values; those of Llama 3's by transformers' own code."""
    if scaling["rope_type"] == "longrope":
        made = {preflight.LONG: scaling["long_factor"], preflight.SHORT: scaling["short_factor"]}
    else:
        plain = 1.0 / 10000.0 ** (np.arange(0, 64, 2) / 64)
        made = {preflight.FREQUENCIES: plain / ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(head_dim=64, rope_parameters=based(scaling)))[0].numpy()}
    return {name: SimpleNamespace(data=np.asarray(values, dtype=np.float32)) for name, values in made.items()}


def based(scaling: dict[str, Any]) -> dict[str, Any]:
    return scaling | {"rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("made", "now", "said"),
    [
        (FIRST, FIRST, None),
        (SCOUT, SCOUT, None),
        (FIRST, SCOUT, "rope_freqs.weight holds 1.29.* at place 4, and by config.json .RoPE scaling of the type llama3. it is 1"),
        (SCOUT, FIRST, "rope_freqs.weight holds 1 at place 4, and by config.json .RoPE scaling of the type llama3. it is 1.29.*"),
        (LONG, LONG, None),
        (LONG, LONG | {"long_factor": [2.0] * 31 + [3.0]}, "rope_factors_long.weight holds 2 at place 31, and by config.json .* it is 3"),
    ],
)
def test_a_file_made_by_the_scaling_of_another_revision_is_told(clean: Release, made: dict[str, Any], now: dict[str, Any], said: str | None) -> None:
    """No key of the header says otherwise: the factors stand in tensors of their own."""
    header = preflight.Header(GGUFReader(clean.gguf))
    header.tensors |= factors(made)
    found = list(preflight._rope(header, LlamaConfig(head_dim=64, rope_parameters=based(now))))
    assert len(found) == (0 if said is None else 1)
    assert all(re.fullmatch(said or "", text) for text in found), found
