"""`sluice recipes preview`: what a changed recipe would do anew for the release of a run, its data beside it."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli.main import app
from service.hubclient import connect
from service.release.intake import ReleaseRequest, queue_release
from service.store import Store
from tests.service.conftest import RECIPE, Upstream


@pytest.fixture
def queued(file_store: Store, upstream: Upstream) -> int:
    """A run of the model."""
    wanted = ReleaseRequest(repo="upstream/model", revision="main", recipe=upstream.settings.watch[0].recipe, trigger="test")
    return queue_release(file_store, upstream.settings, connect(upstream.settings), wanted)[0].id


def previewed(upstream: Upstream, *words: str | int) -> Result:
    token = upstream.settings.token or ""
    environment = {
        "SLUICE_HOME": str(upstream.settings.home),
        "SLUICE_HUB_ENDPOINT": upstream.settings.hub_endpoint,
        "SLUICE_HUB_TOKEN": token,
        "COLUMNS": "100",
    }
    return CliRunner().invoke(app, ["recipes", "preview", *map(str, words)], env=environment)


def test_paths_in_a_file_are_relative_to_it(upstream: Upstream, queued: int, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace("[Q4_0]", "[Q8_0]"))
    done = previewed(upstream, queued, str(other))
    assert done.exit_code == 0, done.output
    assert "not here" not in done.stdout, "text.txt lies beside the recipe"
    assert "build Q8_0" in done.stdout
    assert "no more: " in done.stdout
    document = json.loads(previewed(upstream, queued, str(other), "--json").stdout)
    assert (document["missing"], "build Q4_0" in document["gone"]) == ([], True)


def test_data_that_are_nowhere_are_told(upstream: Upstream, queued: int, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace("calibration: {plain: [text.txt]}", "calibration: {plain: [gone.txt]}"))
    done = previewed(upstream, queued, str(other))
    assert done.exit_code == 0, done.output
    assert f"not here {tmp_path / 'gone.txt'}: what reads it counts as to be done anew" in " ".join(done.stdout.split())
    assert previewed(upstream, 99, str(other)).exit_code == 1
    assert previewed(upstream, queued, str(tmp_path / "none.yaml")).exit_code == 2
