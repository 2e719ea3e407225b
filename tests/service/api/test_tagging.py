from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema_rs import Draft202012Validator

from config.progress import Progress
from config.wire import PROBLEM
from service.store import Published, Store
from tests.service.helpers import queue_run

Headers = dict[str, str]


@pytest.fixture
def run(file_store: Store) -> int:
    """A run that was queued."""
    return queue_run(file_store).id


def published(store: Store, run: int) -> int:
    return (
        store.record_publication(
            run, Published(repo="ours/m-GGUF", revision="1" * 40, url="http://hub/ours/m-GGUF", files=("README.md",), manifest_digest="m", changed=True)
        )
        or store.all_publications(limit=1)[0].id
    )


@pytest.mark.parametrize("path", ["/runs", "/runs/1", "/runs/1/stages", "/runs/1/gates", "/queue", "/recipes", "/recipes/default", "/publications", "/watch"])
def test_who_knows_an_answer_is_not_sent_it_again(api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers], path: str) -> None:
    bearer = token_for("read")
    answer = api.get(path, headers=bearer)
    tag = answer.headers["ETag"]
    assert tag[0] == tag[-1] == '"', "a strong one"
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = api.get(path, headers={**bearer, "If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert api.get(path, headers={**bearer, "If-None-Match": '"other"'}).json() == answer.json()
    assert api.get(path, headers={"If-None-Match": tag}).status_code == 401, "a token is needed all the same"


def test_every_answer_in_json_to_get_carries_a_tag(api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers]) -> None:
    published(file_store, run)
    described = api.get("/openapi.json").json()["paths"]
    untagged = {"/api/v1/health", "/api/v1/live"}  # which are of the moment
    places = {"id": "1", "stage": "convert", "name": "default"}
    for path, operations in described.items():
        answers = operations.get("get", {}).get("responses", {})
        if "application/json" not in answers.get("200", {}).get("content", {}) or path in untagged:
            continue
        assert "304" in answers, path
        answer = api.get(path.removeprefix("/api/v1").format(**places), headers=token_for("admin"))
        assert answer.status_code == 404 or "ETag" in answer.headers, path
    assert {"ETag" in api.get(path, headers=token_for("admin")).headers for path in ("/audit", "/tokens", "/runs/1/attempts")} == {True}


def test_a_tag_changes_with_what_it_is_of(api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("read")
    before = api.get("/runs/1", headers=bearer).headers["ETag"]
    file_store.prioritize(run, 3, source="test", details={})
    answer = api.get("/runs/1", headers={**bearer, "If-None-Match": before})
    assert (answer.status_code, answer.json()["priority"]) == (200, 3)
    assert answer.headers["ETag"] != before


def test_a_change_counts_only_while_the_run_is_as_it_was(api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("operate")

    def ask(verb: str, tag: str, body: Any = None) -> Any:
        return api.post(f"/runs/{run}/{verb}", headers={**bearer, "If-Match": tag}, json=body)

    seen = api.get(f"/runs/{run}", headers=bearer).headers["ETag"]
    file_store.prioritize(run, 3, source="somebody else", details={})
    refused = ask("cancel", seen)
    assert (refused.status_code, refused.json()["code"]) == (412, "changed")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert file_store.run(run).state == "queued"
    now = api.get(f"/runs/{run}", headers=bearer).headers["ETag"]
    assert ask("pause", f"W/{now}").status_code == 412, "a weak tag proves nothing"
    assert ask("pause", f'"other", {now}').json()["state"] == "paused"
    assert ask("resume", "*").json()["state"] == "queued"


def test_that_a_run_went_on_for_a_moment_changes_its_tag_and_hinders_nothing(
    api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers]
) -> None:
    bearer = token_for("operate")
    file_store.lease("worker", seconds=600)
    stage = file_store.stage_started(run, "measure", "k", estimate=60.0)
    first, second = (api.get(f"/runs/{run}", headers=bearer).headers["ETag"] for _ in range(2))
    assert first != second, "a strong tag is of every byte"
    assert api.post(f"/runs/{run}/priority", headers={**bearer, "If-Match": first}, json={"priority": 0}).status_code == 202
    file_store.stage_progressed(stage, Progress(done=7, total=40, unit="windows"))
    assert api.post(f"/runs/{run}/cancel", headers={**bearer, "If-Match": first}).status_code == 412


def test_publications_and_entries_change_only_as_they_were_seen(api: TestClient, run: int, file_store: Store, token_for: Callable[..., Headers]) -> None:
    bearer = token_for("admin")
    number = published(file_store, run)
    refused = api.post(f"/publications/{number}/republish", headers={**bearer, "If-Match": '"old"'})
    assert (refused.status_code, refused.json()["code"]) == (412, "changed")
    made = api.post("/watch", headers=bearer, json={"repo": "upstream/model"}).json()["id"]
    tag = api.get(f"/watch/{made}", headers=bearer).headers["ETag"]
    changed = api.put(f"/watch/{made}", headers={**bearer, "If-Match": tag}, json={"repo": "upstream/other"})
    assert (changed.status_code, changed.json()["entry"]["repo"]) == (200, "upstream/other")
    assert api.put(f"/watch/{made}", headers={**bearer, "If-Match": tag}, json={"repo": "upstream/third"}).status_code == 412
    assert api.delete(f"/watch/{made}", headers={**bearer, "If-Match": tag}).status_code == 412
    assert api.get(f"/watch/{made}", headers=bearer).json()["entry"]["repo"] == "upstream/other"


def test_the_description_tells_tags_and_an_example_of_each_body(api: TestClient) -> None:
    described = api.get("/openapi.json").json()
    read = described["paths"]["/api/v1/runs/{id}"]["get"]
    assert {"If-None-Match"} <= {item["name"] for item in read["parameters"]}
    assert {"200", "304"} <= read["responses"].keys()
    assert "ETag" in read["responses"]["200"]["headers"]
    cancel = described["paths"]["/api/v1/runs/{id}/cancel"]["post"]
    assert ("If-Match" in {item["name"] for item in cancel["parameters"]}, "412" in cancel["responses"]) == (True, True)
    sent = {path: item["post"]["requestBody"] for path, item in described["paths"].items() if "requestBody" in item.get("post", {})}
    contents = {path: body["content"]["application/json"] for path, body in sent.items() if "$ref" in body["content"]["application/json"]["schema"]}
    assert len(contents) > 9
    for path, content in contents.items():
        schema = described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        assert content["example"], path
        assert set(schema.get("required", [])) <= content["example"].keys() <= schema["properties"].keys(), path


def test_every_answer_in_json_is_told_with_an_example_that_its_schema_has(api: TestClient) -> None:
    described = api.get("/openapi.json").json()
    seen = 0
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    if "json" not in kind:
                        continue
                    rooted = {**content["schema"], "components": described["components"]}
                    wrong = [error.message for error in Draft202012Validator(rooted).iter_errors(content["example"])]
                    assert wrong == [], (method, path, status)
                    assert status[0] == "2" or kind != PROBLEM or content["example"]["status"] == int(status)
                    seen += 1
    assert seen > 200
    run, artifacts = (described["paths"][f"/api/v1/runs/{{id}}{part}"]["get"]["responses"]["200"]["content"] for part in ("", "/artifacts"))
    assert run["application/json"]["example"]["release"]["repo"] == "Qwen/Qwen3-0.6B"
    assert artifacts["application/json"]["example"][0]["bytes"] == 484_220_320
