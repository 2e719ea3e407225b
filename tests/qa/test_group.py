from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.errors import MeasurementError
from qa import group, texts
from tests.qa.conftest import DATA, Quantize, Release

CONTEXT = 256


@pytest.fixture(scope="module")
def windows(clean: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight windows, half of each text."""
    out = tmp_path_factory.mktemp("windows")
    given = {"chat": [DATA / "evaluation.jsonl"], "plain": [DATA / "evaluation_questions.txt"]}
    assert texts.prepare(out, model=clean.model, tokens=1024, most_tokens=2048, context=CONTEXT, **given)["looks"] == [4, 8]
    return out


def measured(out: Path, clean: Release, windows: Path, variants: list[Path], **more: Any) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return group.measure(out, reference=clean.gguf, variants=variants, windows=windows, **({"context": CONTEXT, "threads": 1} | more))


def test_a_group_says_what_each_variant_alone_would(clean: Release, windows: Path, quantize: Quantize, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(quantize("Q8_0").read_bytes()[:100_000])
    variants = [quantize("Q8_0"), damaged, quantize("Q2_K")]
    result = measured(tmp_path, clean, windows, variants, threads=2)
    assert (result["variants"], result["errors"].keys()) == (3, {"1"})
    assert "damaged.gguf" in result["errors"]["1"]
    assert not (tmp_path / "1.npy").exists()
    for position in (0, 2):
        assert measured(tmp_path / f"alone-{position}", clean, windows, [variants[position]]) == {"variants": 1, "errors": {}}
        assert (tmp_path / f"alone-{position}" / "0.npy").read_bytes() == (tmp_path / f"{position}.npy").read_bytes()
    good, bad = (group.pool([group.Part(file=tmp_path / f"{position}.npy", start=0, end=8)], windows, CONTEXT).measurements for position in (0, 2))
    assert 0 < 10 * good[0].value < bad[0].value


def test_parts_give_together_what_measuring_all_at_once_gives(clean: Release, windows: Path, quantize: Quantize, tmp_path: Path) -> None:
    spans = [(0, 4), (4, 8), (0, 8)]
    for start, end in spans:
        measured(tmp_path / f"{start}-{end}", clean, windows, [quantize("Q2_K")], start=start, end=end)
    first, second, whole = (group.Part(file=tmp_path / f"{start}-{end}" / "0.npy", start=start, end=end) for start, end in spans)
    together, at_once = group.pool([first, second], windows, CONTEXT), group.pool([whole], windows, CONTEXT)
    assert together == at_once
    names = {item.name for item in at_once.measurements if item.stderr is not None}
    assert names == at_once.influences.keys()
    assert {"kld.mean", "kld.chat.mean", "same_top.plain"} < names
    half = group.pool([first], windows, CONTEXT)
    assert half.windows == at_once.windows
    assert [value is None for value in half.influences["kld.mean"]] == [False, False, True, True] * 2
    assert half.measurements[0].n < at_once.measurements[0].n


def test_safetensors_are_scored_by_the_same_code(clean: Release, windows: Path, tmp_path: Path) -> None:
    group.measure_transformers(tmp_path, reference=clean.model, variant=clean.model, windows=windows, context=CONTEXT, threads=1, start=0, end=2)
    scores = np.load(tmp_path / "0.npy")
    assert scores.shape == (5, 2, 127)
    assert np.nanmax(np.abs(scores[0])) == 0


def test_windows_of_another_context_are_refused(clean: Release, windows: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="not of 512 tokens"):
        measured(tmp_path, clean, windows, [clean.gguf], context=512)
