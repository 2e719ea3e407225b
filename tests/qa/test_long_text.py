"""What differs far into a text: beyond a window of attention, and beyond the length that positions are scaled from."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builders import convert
from config.errors import MeasurementError
from config.recipe import Gate
from config.words import Kind, Measurement, Outcome, Variant
from config.written import load_recipe
from qa import gates, long_text, parity, preflight, reach
from tests import releases
from tests.qa.conftest import DATA, Release

TEXTS = [DATA / "evaluation.jsonl"]
BOUND = 0.01  # nats, of the gate


def converted(model: Path, out: Path) -> Release:
    return Release(model=model, gguf=out / str(convert.convert(out, model=model, name="far")["file"]))


def measured(release: Release, out: Path, *, texts: list[Path] = TEXTS) -> dict[str, Measurement]:
    result = long_text.compare(out, model=release.model, gguf=release.gguf, texts=texts, threads=1)
    json.dumps(result, allow_nan=False)
    return {item["name"]: Measurement(**item) for item in result["measurements"]}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Release:
    out = tmp_path_factory.mktemp("windowed")
    return converted(releases.sliding_window(out / "model"), out)


def test_a_right_conversion_agrees_to_the_end(clean: Release, tmp_path: Path) -> None:
    found = measured(clean, tmp_path)
    assert 0 < found["long.kld"].value < 1e-4
    assert found["long.kld"].n == reach.SCORED - 1
    assert found["long.kld"].stderr is not None
    assert found["long.known"].value == found["long.unseen"].value == 0


def test_a_window_that_gguf_has_no_place_for_is_a_known_difference_that_is_told(windowed: Release, clean: Release, tmp_path: Path) -> None:
    """Neither the header nor windows of 512 tokens show it."""
    found = measured(windowed, tmp_path)
    assert found["long.known"].value > 0.1
    [said] = found["long.known"].details
    assert said.startswith("Beyond 768 tokens llama.cpp attends to the whole text, where transformers attends to the last 768 tokens only")
    assert f"over tokens {2048 - reach.SCORED} to 2048 of a text their divergence is {found['long.known'].value:.2g} nats" in said
    assert found["long.kld"].value == pytest.approx(measured(clean, tmp_path)["long.kld"].value), "without the window they are one and the same model"
    assert judged(found).outcome is Outcome.PASSED
    short = parity.compare(tmp_path, model=windowed.model, gguf=windowed.gguf, texts=TEXTS, threads=1)["measurements"]
    assert next(item["value"] for item in short if item["name"] == "parity.kld") < 1e-4


def test_no_version_of_llama_cpp_is_believed_that_was_not_looked_at(windowed: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.toolchain.VERSION", "99")
    found = measured(windowed, tmp_path)
    assert found["long.known"].value == 0
    assert judged(found).outcome is Outcome.FAILED


def test_what_the_window_does_not_account_for_blocks(windowed: Release, tmp_path: Path) -> None:
    """Here the base of the positions is another, too."""
    model = Path(shutil.copytree(windowed.model, tmp_path / "model"))
    releases.edit(model / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 20000.0})
    found = measured(Release(model=model, gguf=windowed.gguf), tmp_path)
    assert found["long.known"].value == 0
    assert found["long.kld"].value > BOUND
    assert judged(found).outcome is Outcome.FAILED


def headed(release: Release, out: Path) -> list[str]:
    """What the header of the GGUF file says otherwise than the model."""
    measurements = preflight.metadata(out, model=release.model, gguf=release.gguf)["measurements"]
    return [said for item in measurements if item["name"] == "metadata.failures" for said in item["details"]]


SCALED = {"yarn": partial(releases.scaled, kind="yarn"), "llama3": partial(releases.scaled, kind="llama3"), "longrope": releases.long_rope}


@pytest.mark.parametrize("make", SCALED.values(), ids=SCALED)
def test_scaled_positions_agree_beyond_the_original_length(make: Callable[[Path], Path], tmp_path: Path) -> None:
    release = converted(make(tmp_path / "model"), tmp_path)
    config = json.loads((release.model / "config.json").read_text())
    assert [edge.tokens for edge in reach.edges(config)] == [releases.FAR]
    found = measured(release, tmp_path)
    assert found["long.kld"].value < 1e-3
    assert found["long.known"].value == 0
    assert headed(release, tmp_path) == []


def test_other_factors_far_away_are_seen_there_and_in_the_header_and_in_no_short_text(tmp_path: Path) -> None:
    release = converted(releases.long_rope(tmp_path / "model"), tmp_path)
    config = json.loads((release.model / "config.json").read_text())
    other = [1 + number / 2 for number in range(32)]
    releases.edit(release.model / "config.json", **{key: config[key] | {"long_factor": other} for key in ("rope_parameters", "rope_scaling")})
    short = parity.compare(tmp_path, model=release.model, gguf=release.gguf, texts=TEXTS, threads=1)["measurements"]
    assert next(item["value"] for item in short if item["name"] == "parity.kld") < 1e-4
    assert measured(release, tmp_path)["long.kld"].value > BOUND
    [said] = headed(release, tmp_path)
    assert said.startswith("rope_factors_long.weight holds 1.125 at place 1, and by config.json (RoPE scaling of the type longrope) it is 1.5")


def test_a_short_text_is_read_over_and_over(clean: Release, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Too short.")
    found = measured(clean, tmp_path, texts=[text])
    assert found["long.kld"].n == reach.SCORED - 1
    text.write_text("")
    with pytest.raises(MeasurementError, match="There is no text"):
        measured(clean, tmp_path, texts=[text])


def test_what_is_compared_anyway_is_not_looked_at_again(tmp_path: Path) -> None:
    model = releases.clean(tmp_path / "model")
    releases.edit(model / "config.json", max_position_embeddings=512)
    found = measured(converted(model, tmp_path), tmp_path)
    assert found["long.kld"].inapplicable == "The model was made for 512 tokens at most, which are compared anyway"
    assert judged(found).outcome is Outcome.PASSED


DISTANT = 32768  # tokens: more than are read


def test_positions_far_beyond_the_text_are_given_to_a_short_one(tmp_path: Path) -> None:
    """LongRoPE's other factors begin there, of which neither windows of 512 tokens nor the long text shows anything."""
    release = converted(releases.long_rope(tmp_path / "model", far=DISTANT), tmp_path)
    found = measured(release, tmp_path)
    assert found["long.kld"].value < 1e-3
    assert found["long.unseen"].value == 0
    config = json.loads((release.model / "config.json").read_text())
    other = [1 + number / 2 for number in range(32)]
    releases.edit(release.model / "config.json", **{key: config[key] | {"long_factor": other} for key in ("rope_parameters", "rope_scaling")})
    changed = measured(release, tmp_path)["long.kld"]
    assert changed.value > BOUND
    assert changed.details == (f"at positions {DISTANT + reach.PLACED - changed.n} to {DISTANT + reach.PLACED}",)


def test_edges_that_are_too_far_away_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "MOST_MEMORY", 2**20)
    found = measured(converted(releases.scaled(tmp_path / "model", "yarn", far=DISTANT), tmp_path), tmp_path)
    assert found["long.unseen"].details == (
        "What begins after 32768 tokens (original_max_position_embeddings) was not compared: the comparison ends at 2048 tokens",
    )


def test_what_a_header_has_no_place_for_and_no_text_reaches_is_told(tmp_path: Path) -> None:
    model = releases.sliding_window(tmp_path / "model")
    releases.edit(model / "config.json", max_position_embeddings=32768, sliding_window=16384)
    release = converted(model, tmp_path)

    def lacking() -> tuple[str, ...]:
        found = preflight.metadata(tmp_path, model=model, gguf=release.gguf)["measurements"]
        return next(tuple(item["details"]) for item in found if item["name"] == "metadata.lacking")

    [said] = lacking()
    assert "attend to the last 16384 tokens only (`sliding_window`), and the GGUF file has no place for that" in said
    releases.edit(model / "config.json", sliding_window=4096)
    assert lacking() == (), "`qa.long_text` measures it"
    releases.edit(model / "config.json", sliding_window=None, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0})
    [said] = lacking()
    assert said.startswith("config.json stretches positions beyond 32768 tokens by the length of the text (`rope_type: dynamic`)")


def judged(found: dict[str, Measurement]) -> Any:
    """The verdict of the default recipe's gate."""
    gate: Gate = next(gate for gate in load_recipe("default").gates if gate.measure == "long.kld")
    assert gate.at_most == BOUND
    return gates.judge(Variant(tag="Q8_0", kind=Kind.GGUF), [gate], found, {})
