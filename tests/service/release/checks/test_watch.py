"""Recipes of a watch list that break, are mended, and break again while a service looks at them."""

import os
import time
from pathlib import Path

import pytest

from config import written as recipes
from config.settings import Watched
from service.release.checks.watch import Broken, broken
from tests.service.conftest import RECIPE
from tests.service.helpers import eventually


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    (tmp_path / "text.txt").write_text("Some text.\n", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    return Watched(repo="upstream/model", recipe=str(tmp_path / "small.yaml"))


def rewritten(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(time.time_ns(), time.time_ns()))


def test_every_broken_entry_is_named(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "mistyped.yaml").write_text(RECIPE.replace("kld.mean", "kld.meen"), encoding="utf-8")
    mistyped = Watched(repo="upstream/other", recipe=str(tmp_path / "mistyped.yaml"))
    unknown, missing = Watched(repo="upstream/third", recipe="nonesuch"), Watched(repo="upstream/fourth", recipe=str(tmp_path / "gone.yaml"))
    found = broken([watched, mistyped, unknown, missing])
    assert [(item.repo, item.recipe) for item in found] == [(item.repo, item.recipe) for item in (mistyped, unknown, missing)]
    assert found[0] == Broken(
        repo="upstream/other",
        recipe=mistyped.recipe,
        error="Gate close is on kld.meen, which nothing in this recipe measures. Did you mean kld.mean?",
    )
    assert "There is no recipe named 'nonesuch'" in found[1].error
    assert "gone.yaml does not exist" in found[2].error


def test_a_recipe_that_breaks_and_is_mended(watched: Watched) -> None:
    path = Path(watched.recipe)
    assert broken([watched]) == ()
    rewritten(path, RECIPE.replace("gates:", "gate:"))
    assert "gate: Extra inputs" in broken([watched])[0].error
    rewritten(path, RECIPE)
    eventually(lambda: broken([watched]) == ())
    path.unlink()
    assert "does not exist" in broken([watched])[0].error


def test_data_that_vanish_and_come_back(watched: Watched, tmp_path: Path) -> None:
    assert broken([watched]) == ()
    (tmp_path / "text.txt").rename(tmp_path / "away.txt")
    assert "text.txt does not exist" in broken([watched])[0].error
    (tmp_path / "away.txt").rename(tmp_path / "text.txt")
    assert broken([watched]) == ()


def test_data_that_were_not_there_at_first(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "text.txt").unlink()
    assert "text.txt does not exist" in broken([watched])[0].error
    (tmp_path / "text.txt").write_text("Some text.\n")
    eventually(lambda: broken([watched]) == ())


def test_a_sound_recipe_is_read_once(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken([watched]) == ()
    monkeypatch.setattr(recipes.Recipe, "model_validate", lambda *_, **__: pytest.fail("it was read again"))
    for _ in range(100):
        assert broken([watched]) == ()
