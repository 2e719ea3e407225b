"""`sluice data`: what a recipe names, and fetching it from an embedded Hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from hub.server import running
from service.cli.main import app
from tests.published import DATA, MMLU, TEXT, owned


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "hub").mkdir()
    with running(tmp_path / "hub") as url:
        owned(tmp_path / "hub", url)
        yield url


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = {"plain": [str(DATA / "calibration_questions.txt")]}
    found = {"name": "own", "calibration": text, "evaluation": {"divergence": {"plain": [TEXT]}, "mmlu": {"data": MMLU}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(found))
    return tmp_path / "own.yaml"


def data(home: Path, url: str, *arguments: str | Path) -> Result:
    environment = {"SLUICE_HOME": str(home), "SLUICE_HUB_ENDPOINT": url, "COLUMNS": "80"}
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env=environment)


def rows(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    return {row["form"] + " " + row["state"]: row for row in json.loads(done.stdout)["data"]}


def test_what_is_named_is_listed_before_and_after_it_is_fetched(tmp_path: Path, url: str, recipe: Path) -> None:
    home = tmp_path / "home"
    before = rows(data(home, url, "list", "--recipe", recipe, "--json"))
    assert before.keys() == {"plain here", "plain not fetched", "questions not fetched"}
    text = before["plain not fetched"]
    assert text["data"] == TEXT
    assert text["license"] == ["cc-by-sa-3.0", "gfdl"]
    assert not (home / "data").exists(), "a list fetches nothing"
    fetched = rows(data(home, url, "fetch", "--recipe", recipe, "--json"))
    assert fetched.keys() == {"plain here", "questions here"}
    # without a Hub
    after = rows(data(home, "http://127.0.0.1:1", "list", "--recipe", recipe, "--json"))
    assert after == fetched
    found = json.loads(data(home, url, "list", "--recipe", recipe, "--json").stdout)["data"]
    again = next(row for row in found if row["data"] == TEXT)
    assert (again["commit"], again["bytes"]) == (text["commit"], text["bytes"])
    assert Path(again["path"]).is_file()


def test_a_person_reads_commit_licence_and_what_to_do(tmp_path: Path, url: str, recipe: Path) -> None:
    shown = data(tmp_path / "home", url, "list", "--recipe", recipe).stdout
    assert "licence cc-by-sa-3.0, gfdl" in shown
    assert "commit " in shown
    assert f"sluice data fetch --recipe {recipe}" in " ".join(shown.split())
    assert max(map(len, shown.splitlines()[:12])) <= 80
    done = data(tmp_path / "home", url, "fetch", "--recipe", recipe)
    assert f"fetch {TEXT}" in done.stdout.replace("\n", "")
    assert "not fetched" not in data(tmp_path / "home", url, "list", "--recipe", recipe).stdout


def test_without_a_network_a_list_says_what_is_not_known_and_fetching_fails_with_every_reason(tmp_path: Path, url: str, recipe: Path) -> None:
    away = "http://127.0.0.1:1"
    listed = data(tmp_path / "home", away, "list", "--recipe", recipe)
    assert listed.exit_code == 0
    assert "cannot be reached" in " ".join(listed.stdout.split())
    done = data(tmp_path / "home", away, "fetch", "--recipe", recipe)
    assert done.exit_code == 1
    assert " ".join(done.stderr.split()).count("cannot be reached") == 2
    assert "Traceback" not in done.stderr


def test_one_that_is_not_there_does_not_keep_the_others_away(tmp_path: Path, url: str, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("owner/text@main", "owner/none@main"))
    done = data(tmp_path / "home", url, "fetch", "--recipe", recipe)
    assert done.exit_code == 1
    assert "owner/none" in done.stderr
    assert "questions here" in rows(data(tmp_path / "home", url, "list", "--recipe", recipe, "--json"))


def test_the_default_recipe_needs_no_data(tmp_path: Path) -> None:
    done = data(tmp_path / "home", "http://127.0.0.1:1", "list")
    assert "The recipe default names no data: it needs none but the model." in done.stdout
    assert rows(data(tmp_path / "home", "http://127.0.0.1:1", "fetch", "--json")) == {}


def test_wrong_recipes_are_told(tmp_path: Path, recipe: Path) -> None:
    done = data(tmp_path / "home", "http://127.0.0.1:1", "list", "--recipe", "nowhere")
    assert done.exit_code == 2
    assert "There is no recipe named" in done.stderr
    recipe.write_text(recipe.read_text().replace("text@main", "text"))
    done = data(tmp_path / "home", "http://127.0.0.1:1", "list", "--recipe", recipe)
    assert done.exit_code == 2
    assert "is not of the form hub://datasets/OWNER/NAME@REVISION/PATH" in " ".join(done.stderr.split())
