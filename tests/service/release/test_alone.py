"""What one file takes outside of a release, and how a model on the Hub is named."""

from pathlib import Path

import pytest

from config.plans import Budget
from config.settings import Settings
from config.texts import Text
from service.machine.speed import Speed
from service.release import alone

SHAPES = {
    "model.embed_tokens.weight": (32000, 512),
    **{f"model.layers.{layer}.mlp.{part}_proj.weight": (1024, 512) for layer in range(4) for part in ("gate", "up")},
}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose speed is known."""
    monkeypatch.setattr(alone, "speed", lambda settings: Speed(threads=1))


def wish(tmp_path: Path, last: str, **changes: object) -> alone.Wish:
    text = tmp_path / "text.txt"
    text.write_text("A sentence of some words. " * 4000)
    values = {
        "tag": "planned",
        "budget": Budget(like="Q4_K_M"),
        "profile": "any",
        "text": Text(plain=(text,)),
        "context": 512,
        "last": last,
        "rounded": True,
        "probed": False,
    }
    return alone.Wish(**{**values, **changes})  # type: ignore[arg-type]


def seen(**changes: object) -> alone.Seen:
    return alone.Seen(**{"repo": "local/x", "sizes": {"config.json": 500, "model.safetensors": 10**8}, "shapes": SHAPES, "config": {}, **changes})  # type: ignore[arg-type]


@pytest.mark.usefixtures("quiet")
def test_only_the_stages_that_lead_to_the_file_count(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    stock = alone.expected(settings, seen(), wish(tmp_path, "build Q4_K_M", tag="Q4_K_M", budget=None), ())
    assert set(stock.stages) == {"fix", "convert", "imatrix", "build Q4_K_M"}
    planned = alone.expected(settings, seen(remote=True), wish(tmp_path, "round planned"), ())
    steps = {"snapshot", "fix", "convert", "imatrix", "sensitivity", "plan planned", "build planned", "round planned"}
    assert set(planned.stages) == steps
    assert planned.seconds > stock.seconds > 0
    assert min(planned.memory, planned.more_disk) > 0
    half = alone.expected(settings, seen(remote=True), wish(tmp_path, "round planned"), {"snapshot", "fix", "convert", "imatrix", "sensitivity"})
    assert half.seconds < planned.seconds
    assert half.more_disk < planned.more_disk


@pytest.mark.usefixtures("quiet")
def test_a_gguf_file_is_neither_repaired_nor_converted_nor_rounded(tmp_path: Path) -> None:
    found = alone.expected(Settings(home=tmp_path / "home"), seen(gguf=True), wish(tmp_path, "round planned"), ())
    assert set(found.stages) == {"convert", "imatrix", "sensitivity", "plan planned", "build planned"}
    assert found.stages["convert"].seconds == 0
