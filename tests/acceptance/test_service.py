"""The running service: a poll that finds a new commit, a webhook that the Hub delivers, a republish by REST."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.acceptance.conftest import NAMESPACE, PROGRAMS, RECIPE, ROOT, UPSTREAM, Hub, Made, environment, free_port, sluice, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

GGUF = f"{NAMESPACE}/tiny-chat-GGUF"
SECRET = "correct horse"


@contextmanager
def service(hub: Hub, home: Path, *, poll_minutes: float) -> Iterator[httpx.Client]:
    """`sluice serve` on a free port, and a client with a token of its API."""
    port = free_port()
    home.mkdir(exist_ok=True)
    config = home / "sluice.yaml"
    settings = {"home": str(home), "hub_endpoint": hub.url, "namespace": NAMESPACE, "api_port": port, "poll_minutes": poll_minutes}
    config.write_text(yaml.safe_dump(settings | {"watch": [{"repo": UPSTREAM, "recipe": str(RECIPE)}]}))
    extra = {"SLUICE_CONFIG": str(config), "SLUICE_HUB_TOKEN": hub.publisher_token, "SLUICE_WEBHOOK_SECRET": SECRET}
    token = sluice("token", "create", "tests", **extra).stdout.strip()
    log = (home / "serve.log").open("w")
    with log, subprocess.Popen([PROGRAMS / "sluice", "serve"], env=environment(**extra), stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}) as client:
                wait_until(lambda: process.poll() is None and healthy(client), seconds=60, what="the service")
                yield client
        finally:
            process.terminate()
            process.wait(60)


def healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/api/v1/health").status_code == 200
    except httpx.TransportError:
        return False


def finished(client: httpx.Client, sha: str) -> dict[str, Any] | None:
    """The finished run of the release at `sha`, if there is one."""
    listed = client.get("/api/v1/runs").json()
    for item in listed["runs"] if isinstance(listed, dict) else listed:
        run: dict[str, Any] = client.get(f"/api/v1/runs/{item['run']}").json()
        if run["release"]["sha"] == sha and run["state"] in {"done", "blocked", "failed"}:
            return run
    return None


def changed_sampling(hub: Hub) -> str:
    """A new upstream commit that changes no weights: one that changes only the README would be no release."""
    settings = json.loads((ROOT / "demo/model/generation_config.json").read_text()) | {"temperature": 0.7, "do_sample": True}
    return hub.upstream.upload_file(repo_id=UPSTREAM, path_in_repo="generation_config.json", path_or_fileobj=json.dumps(settings).encode()).oid


def test_a_poll_finds_the_release_and_a_webhook_the_next_one_and_rest_republishes(hub: Hub, made: Made, tmp_path: Path) -> None:
    first = hub.upstream.model_info(UPSTREAM).sha
    assert first is not None
    with service(hub, made(tmp_path / "service"), poll_minutes=0.05) as client:
        run = wait_until(lambda: finished(client, first), seconds=400, what="the polled run")
        assert run["state"] == "done", run["error"]
        assert [row["verdict"] for row in run["variants"]] == ["passed", "failed"]
        publication = run["publications"][0]
        assert publication["repo"] == GGUF

        published = hub.commits(GGUF)
        hub.publisher.delete_file("tiny-chat-Q4_K_M.gguf", GGUF, commit_message="oops")
        answer = client.post(f"/api/v1/publications/{publication['id']}/republish")
        assert answer.status_code == 202, answer.text
        wait_until(lambda: hub.publisher.file_exists(GGUF, "tiny-chat-Q4_K_M.gguf"), seconds=200, what="the file to be back")
        assert len(hub.commits(GGUF)) == len(published) + 2
        wait_until(lambda: finished(client, first), seconds=60, what="the republishing run to end")
        runs = client.get("/api/v1/runs").json()
        assert len(runs["runs"] if isinstance(runs, dict) else runs) == 1, "polling the same commit again makes no new run"


def test_a_webhook_that_the_hub_delivers_starts_a_run(hub: Hub, made: Made, tmp_path: Path) -> None:
    with service(hub, made(tmp_path / "service"), poll_minutes=600) as client:
        hub.upstream.create_webhook(
            url=f"{client.base_url}/webhooks/huggingface", watched=[{"type": "model", "name": UPSTREAM}], domains=["repo"], secret=SECRET
        )
        sha = changed_sampling(hub)
        run = wait_until(lambda: finished(client, sha), seconds=400, what="the run of the webhook")
        assert run["state"] == "done", run["error"]
        assert run["release"] == {"repo": UPSTREAM, "sha": sha}


def test_nobody_without_a_token_and_no_webhook_without_the_secret(hub: Hub, tmp_path: Path) -> None:
    with service(hub, tmp_path / "service", poll_minutes=600) as client:
        for path in ("/api/v1/runs", "/api/v1/runs/1"):
            assert httpx.get(f"{client.base_url}{path}").status_code == 401
            assert httpx.get(f"{client.base_url}{path}", headers={"Authorization": "Bearer sluice_guess"}).status_code == 401
        assert httpx.post(f"{client.base_url}/api/v1/runs", json={"repo": UPSTREAM}).status_code == 401
        payload = {"event": {"action": "update", "scope": "repo.content"}, "repo": {"type": "model", "name": UPSTREAM}}
        for headers in ({}, {"X-Webhook-Secret": "wrong"}):
            assert httpx.post(f"{client.base_url}/webhooks/huggingface", json=payload, headers=headers).status_code == 401
        assert client.post("/api/v1/runs", json={"repo": "https://example.com/a"}).status_code == 422
