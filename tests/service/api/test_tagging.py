import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from jsonschema_rs import Draft202012Validator
from sqlalchemy import select

from config.progress import Progress
from config.settings import Settings
from config.wire import PROBLEM
from service.api import create_app, publications, steering, watch
from service.api.tagging import StoreOfEntry, StoreOfPublication, StoreOfRun
from service.api.tokens import create_token
from service.store import AuditFilter, KeptRecipe, Published, Store
from service.store.outside import WatchRow
from service.store.tables import RunRow
from tests.service.helpers import judged_run, queue_run

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


@pytest.fixture
def anywhere(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    """The API on each kind of database in turn, for whom may do everything."""
    settings = Settings(home=tmp_path / "home", hub_endpoint="http://127.0.0.1:1", namespace="ours")
    headers = {"Authorization": f"Bearer {create_token(store, 'anywhere')}"}
    with TestClient(create_app(store, settings), base_url="http://testserver/api/v1", headers=headers, raise_server_exceptions=False) as opened:
        yield opened


def of_two_at_once(store: Store, ask: Callable[[int], Any]) -> list[int]:
    """The statuses of two requests of which neither can write before both have looked."""
    with ThreadPoolExecutor(2) as pool:
        with store.write() as session:
            for table in (RunRow, WatchRow):
                session.execute(select(table.id).with_for_update())
            asked = [pool.submit(ask, number) for number in (1, 2)]
            time.sleep(1.0)  # one that comes later than that finds what the other made of it, and the same comes out
        return sorted(item.result().status_code for item in asked)


def test_of_two_changes_of_an_entry_as_it_was_seen_one_counts(anywhere: TestClient, store: Store) -> None:
    made = anywhere.post("/watch", json={"repo": "upstream/model"}).json()["id"]
    tag = anywhere.get(f"/watch/{made}").headers["ETag"]

    def change(number: int) -> Any:
        return anywhere.put(f"/watch/{made}", headers={"If-Match": tag}, json={"repo": f"upstream/model-{number}"})

    assert of_two_at_once(store, change) == [200, 412]
    assert [event.action for event in store.audit_events(subject=f"watch/{made}")] == ["changed", "added"]
    tag = anywhere.get(f"/watch/{made}").headers["ETag"]
    assert of_two_at_once(store, lambda _: anywhere.delete(f"/watch/{made}", headers={"If-Match": tag})) in ([204, 404], [204, 412])


@pytest.mark.parametrize("verb", ["priority", "cancel", "pause", "redo"])
def test_of_two_changes_of_a_run_as_it_was_seen_one_counts(anywhere: TestClient, store: Store, verb: str) -> None:
    store.keep_recipe(KeptRecipe(digest="d" * 64, content={"name": "small", "variants": {"gguf": ["IQ1_S"]}}, sources=()))
    run = judged_run(store) if verb == "redo" else queue_run(store).id
    seen = anywhere.get(f"/runs/{run}").headers["ETag"]
    bodies = {"priority": lambda number: {"priority": number}, "redo": lambda _: {"stages": ["convert"]}}

    def change(number: int) -> Any:
        body = bodies[verb](number) if verb in bodies else None
        return anywhere.post(f"/runs/{run}/{verb}", headers={"If-Match": seen}, json=body)

    assert of_two_at_once(store, change) == [202, 412]
    assert len(store.audit_events(wanted=AuditFilter(subject=f"run/{run}", source="api"))) == 1


def test_a_change_as_it_was_seen_and_a_plain_one_do_not_block_one_another(anywhere: TestClient, store: Store) -> None:
    """Whoever queues a run locks its release first, and so does who asks under a condition."""
    run = queue_run(store).id
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            seen = anywhere.get(f"/runs/{run}").headers["ETag"]
            asked = pool.submit(anywhere.post, f"/runs/{run}/cancel", headers={"If-Match": seen})
            queued = pool.submit(queue_run, store, again=True)
            assert asked.result().status_code in {202, 409, 412}
            assert queued.result().id == run


def test_whatever_takes_an_if_match_looks_again_where_it_writes() -> None:
    rooms = (steering.acting, publications.acting, watch.router, watch.acting)
    routes = [route for room in rooms for route in room.routes if isinstance(route, APIRoute) and "{id}" in route.path and "GET" not in route.methods]
    seen = {route.name: {*get_type_hints(route.endpoint, include_extras=True).values()} for route in routes}
    assert len(seen) > 12
    blind = {name for name, hints in seen.items() if not {StoreOfRun, StoreOfPublication, StoreOfEntry} & hints}
    assert blind == {"unpublish"}, "which begins at the Hub: what it did there is not to be refused afterwards"
