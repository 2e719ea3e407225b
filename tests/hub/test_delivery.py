"""Webhooks as they arrive at a real receiver: what is in them, who gets them, and that none is lost."""

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub._webhooks_payload import WebhookPayload

from hub import delivery
from hub.tokens import create_token
from tests.answering import Answer, Request, answering
from tests.hub.support import Place, Process


class Receiver:
    """A local HTTP server that keeps what is posted to it, and answers each post with the next of `answers`, then with 200."""

    def __init__(self, port: int = 0) -> None:
        self.received: queue.Queue[tuple[str | None, dict[str, Any]]] = queue.Queue()
        self.answers: list[int] = []
        self._serving = ExitStack()
        url = self._serving.enter_context(answering(self._answer, port))
        self.port, self.url = int(url.rpartition(":")[2]), f"{url}/hook"

    def _answer(self, request: Request) -> Answer:
        self.received.put((request.headers["X-Webhook-Secret"], json.loads(request.body)))
        return self.answers.pop(0) if self.answers else 200, {}, b""

    def next(self, wait: float = 15.0) -> dict[str, Any]:
        return self.received.get(timeout=wait)[1]

    def close(self) -> None:
        self._serving.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_commit_is_told_with_all_that_the_protocol_says(place: Place, ann: HfApi, receiver: Receiver) -> None:
    ann.create_repo("acme/thing")
    ann.create_webhook(url=receiver.url, watched=[{"type": "org", "name": "acme"}], domains=["repo"], secret="s3cret")
    old = ann.model_info("acme/thing").sha
    new = ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="acme/thing").oid
    secret, payload = receiver.received.get(timeout=15)
    assert secret == "s3cret"
    assert payload["event"] == {"action": "update", "scope": "repo.content"}
    assert payload["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": old, "newSha": new}]
    repo = payload["repo"]
    assert (repo["type"], repo["name"], repo["private"], repo["headSha"]) == ("model", "acme/thing", False, new)
    assert repo["url"] == {"web": f"{place.url}/acme/thing", "api": f"{place.url}/api/models/acme/thing"}
    assert repo["owner"]["id"]
    assert payload["webhook"]["version"] == 3
    assert WebhookPayload(**payload).repo.name == "acme/thing"


def test_each_kind_of_event(ann: HfApi, receiver: Receiver) -> None:
    hook = ann.create_webhook(url=receiver.url, watched=[{"type": "user", "name": "ann"}])
    ann.create_repo("ann/thing")
    ann.update_repo_settings("ann/thing", private=True)
    ann.update_repo_settings("ann/thing", private=True)
    ann.create_tag("ann/thing", tag="v1")
    ann.create_commit("ann/thing", [CommitOperationAdd("a.txt", b"a")], commit_message="Letters", create_pr=True)
    ann.comment_discussion("ann/thing", 1, "Fine")
    ann.merge_pull_request("ann/thing", 1)
    ann.move_repo("ann/thing", "ann/other")
    ann.delete_repo("ann/other")
    payloads = [receiver.next() for _ in range(10)]
    told = {(payload["event"]["scope"], payload["event"]["action"]) for payload in payloads}
    assert told == {
        ("repo", "create"),
        ("repo.config", "update"),
        ("repo.content", "update"),
        ("discussion", "create"),
        ("discussion.comment", "create"),
        ("discussion", "update"),
        ("repo", "move"),
        ("repo", "delete"),
    }
    for payload in payloads:
        WebhookPayload(**payload)
    of = {(payload["event"]["scope"], payload["event"]["action"]): payload for payload in payloads}
    assert of["repo.config", "update"]["updatedConfig"] == {"private": True}
    assert of["repo", "move"]["movedTo"]["name"] == "ann/other"
    assert of["discussion.comment", "create"]["comment"]["content"] == "Fine"
    assert of["discussion", "update"]["discussion"]["status"] == "merged"
    assert {ref["ref"] for payload in payloads for ref in payload.get("updatedRefs", ())} == {"refs/tags/v1", "refs/pr/1", "refs/heads/main"}
    ann.delete_webhook(hook.id)


def test_who_is_told(place: Place, ann: HfApi, receiver: Receiver) -> None:
    bob = place.api("bob")
    ann.create_repo("ann/open")
    ann.create_repo("ann/secret", private=True)
    ann.create_repo("ann/data", repo_type="dataset")
    for watched in ({"type": "model", "name": "ann/secret"}, {"type": "model", "name": "ann/data"}, {"type": "dataset", "name": "ann/open"}):
        bob.create_webhook(url=receiver.url, watched=[watched])
    bob.create_webhook(url=receiver.url, watched=[{"type": "user", "name": "ann"}], domains=["discussion"])
    disabled = bob.create_webhook(url=receiver.url, watched=[{"type": "user", "name": "ann"}])
    bob.disable_webhook(disabled.id)
    for repo, kind in (("ann/open", "model"), ("ann/secret", "model"), ("ann/data", "dataset")):
        ann.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=repo, repo_type=kind)
    ann.create_discussion("ann/open", "The only news")
    assert receiver.next()["discussion"]["title"] == "The only news"
    with pytest.raises(queue.Empty):
        receiver.next(wait=0.5)


def test_a_receiver_that_fails_is_asked_again(ann: HfApi, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RETRY_AFTER", (0.05, 0.05, 0.05))
    receiver.answers[:] = [500, 302, 404]
    ann.create_webhook(url=receiver.url, watched=[{"type": "user", "name": "ann"}])
    ann.create_repo("ann/thing")
    payloads = [receiver.next() for _ in range(4)]
    assert all(payload == payloads[0] for payload in payloads)
    with pytest.raises(queue.Empty):
        receiver.next(wait=0.5)


def test_what_was_not_delivered_is_delivered_after_a_restart(process: Callable[..., Process]) -> None:
    receiver = Receiver()
    port = receiver.port
    receiver.close()
    first = process()
    api = HfApi(endpoint=first.url, token=create_token(first.root, user="ann"))
    api.create_webhook(url=f"http://127.0.0.1:{port}/hook", watched=[{"type": "user", "name": "ann"}], secret="s")
    api.create_repo("ann/thing")
    sha = api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="ann/thing").oid
    api.create_repo("ann/gone")
    api.delete_repo("ann/gone")
    first.kill()
    receiver = Receiver(port)
    try:
        second = process()
        payloads = [receiver.next() for _ in range(4)]
        told = {(payload["repo"]["name"], payload["event"]["scope"], payload["event"]["action"]) for payload in payloads}
        assert told == {
            ("ann/thing", "repo", "create"),
            ("ann/thing", "repo.content", "update"),
            ("ann/gone", "repo", "create"),
            ("ann/gone", "repo", "delete"),
        }
        assert sha in {ref["newSha"] for payload in payloads for ref in payload.get("updatedRefs", ())}
        assert second.stop() == 0
        # Nothing is owed any more: a third run is silent, and the deleted repo has left no folder.
        process()
        with pytest.raises(queue.Empty):
            receiver.next(wait=0.5)
        assert len(list((first.root / "repos").iterdir())) == 1
    finally:
        receiver.close()
