import json
from pathlib import Path

import pytest

from config.errors import MeasurementError
from qa import parity
from tests.qa.conftest import DATA, DEMO, Quantize, Release

TEXTS = [DATA / "evaluation.jsonl", DATA / "evaluation_questions.txt"]


def measured(out: Path, model: Path, gguf: Path, texts: list[Path] = TEXTS) -> dict[str, dict]:
    result = parity.compare(out, model=model, gguf=gguf, texts=texts, threads=1)
    json.dumps(result, allow_nan=False)
    return {m["name"]: m for m in result["measurements"]}


def test_a_right_conversion_agrees_up_to_rounding(clean: Release, tmp_path: Path) -> None:
    found = measured(tmp_path, clean.model, clean.gguf)
    assert found["parity.token_mismatches"]["value"] == found["parity.departures"]["value"] == 0
    assert 0 < found["parity.kld"]["value"] < 1e-4
    assert 0 < found["parity.max_difference"]["value"] < 0.05


def test_a_template_that_writes_bos_makes_no_difference(broken: Release, clean: Release, tmp_path: Path) -> None:
    assert measured(tmp_path, DEMO, broken.gguf) == measured(tmp_path, clean.model, clean.gguf)


def test_another_model_does_not_agree(clean: Release, quantize: Quantize, tmp_path: Path) -> None:
    found = measured(tmp_path, clean.model, quantize("Q2_K"))
    assert found["parity.kld"]["value"] > 0.01
    assert found["parity.max_difference"]["value"] > 0.5


def test_too_little_text_is_an_error(clean: Release, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Too short.")
    with pytest.raises(MeasurementError, match="too few for two windows"):
        measured(tmp_path, clean.model, clean.gguf, [text])
