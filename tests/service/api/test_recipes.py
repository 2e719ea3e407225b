"""Recipes over the API: what is wrong with a text, place by place, and what a changed recipe would build anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.api import create_app
from service.api.tokens import create_token
from service.hubclient import connect
from service.release.intake import ReleaseRequest, queue_release
from service.store import Store
from tests.service.conftest import RECIPE, Upstream

Headers = dict[str, str]
GOOD = "name: small\nvariants: {gguf: [Q4_K_M]}\n"


def test_those_that_are_known_are_listed_and_shown(api: TestClient, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("read")
    assert [item["name"] for item in api.get("/recipes", headers=bearer).json()] == ["default", "reference"]
    found = api.get("/recipes/default", headers=bearer).json()
    assert (found["error"], found["text"].splitlines()[-1]) == (None, "name: default")
    assert "gates" in found["content"], "with all that it leaves out"
    assert api.get("/recipes/defualt", headers=bearer).json()["detail"].startswith("There is no recipe named 'defualt'. Did you mean default?")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (GOOD.replace("Q4_K_M", "Q4_K_N"), ["variants.gguf.0"]),
        (GOOD + "gate: []\ncard: {recommend: Q8_0, for: all}\n", ["card.for", "gate"]),
        ("name: small\nvariants: {gguf: [Q4\n", ["line 3, column 1"]),
        ("- name", ["file"]),
        ("", ["file"]),
        ("a: &a [1]\nb: *a\n", ["file"]),
        ("[" * 3000, ["line 1, column 3001"]),
        ("name: small\nwhen: 2026-99-99\n", ["file"]),
        (GOOD + "gates: [{name: x, measure: kld.meen, at_most: 1}, {name: t, measure: generated.failures, at_most: 0, scope: release}]\n", ["gates"]),
        (GOOD + "variants: {others: {unheard: [a]}}\n", ["variants"]),
        ("1: 2\n", ["file"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(api: TestClient, token_for: Callable[..., Headers], text: str, places: list[str]) -> None:
    answer = api.post("/recipes/validate", headers=token_for("read"), json={"text": text})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["valid"], found["content"], sorted(item["place"] for item in found["errors"])) == (False, None, places)
    assert all(item["message"] for item in found["errors"])


def test_what_is_left_out_is_filled_in(api: TestClient, token_for: Callable[..., Headers]) -> None:
    found = api.post("/recipes/validate", headers=token_for("read"), json={"text": GOOD}).json()
    assert (found["valid"], found["errors"]) == (True, [])
    assert found["content"]["publish"] == {"hold": "never"}
    assert found["content"]["variants"]["gguf"] == ["Q4_K_M"]


@pytest.fixture
def asked(file_store: Store, upstream: Upstream) -> Callable[[dict[str, Any]], Any]:
    """A preview, on a service that has a run of the model."""
    settings = upstream.settings
    recipe = settings.watch[0].recipe
    queue_release(file_store, settings, connect(settings), ReleaseRequest(repo="upstream/model", revision="main", recipe=recipe, trigger="test"))
    client = TestClient(create_app(file_store, settings), base_url="http://testserver/api/v1", raise_server_exceptions=False)
    bearer = {"Authorization": f"Bearer {create_token(file_store, 'ci')}"}
    return lambda body: client.post("/recipes/preview", headers=bearer, json=body)


def test_a_preview_tells_what_is_kept_and_what_is_not(
    asked: Callable[[dict[str, Any]], Any], upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = RECIPE.replace("[text.txt]", f"[{tmp_path / 'text.txt'}]")
    nothing = asked({"run": 1, "text": text}).json()
    assert nothing["repo"] == "upstream/model"
    stages = {item["name"]: item for item in nothing["stages"]}
    assert {"upstream", "convert", "build Q4_0", "publish"} <= stages.keys()
    assert not any(item["reused"] for item in nothing["stages"])
    assert (nothing["gone"], nothing["missing"]) == ([], [])
    # one more variant and one less
    other = asked({"run": 1, "text": text.replace("[Q4_0]", "[Q8_0]")}).json()
    assert "build Q4_0" in other["gone"]
    assert {item["name"] for item in other["stages"] if not item["before"]} >= {"build Q8_0", "measure Q8_0"}


def test_a_preview_reads_no_files_that_the_run_did_not(asked: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    answer = asked({"run": 1, "text": GOOD + "calibration: {plain: [/etc/passwd]}\n"})
    assert (answer.status_code, "/etc/passwd" in answer.json()["detail"]) == (422, True)
    for wrong, status in (({"run": 1}, 422), ({"run": 1, "text": GOOD, "name": "default"}, 422), ({"run": 9, "name": "default"}, 404)):
        assert asked(wrong).status_code == status
    assert asked({"run": 1, "text": GOOD.replace("Q4_K_M", "Q4_K_N")}).json()["code"] == "unusable_recipe"
    missing = asked({"run": 1, "name": "reference"}).json()
    assert len(missing["missing"]) == 3
