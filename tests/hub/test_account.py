"""Tokens, webhooks and collections."""

import json
import stat
from pathlib import Path

import pytest
from huggingface_hub import HfApi, WebhookWatchedItem
from huggingface_hub.errors import BadRequestError

from hub.errors import BadRequest
from hub.tokens import create_token
from tests.hub.support import Place, refused


def test_whoami(place: Place) -> None:
    me = place.api("ann", "read", ("acme", "other")).whoami()
    assert me["name"] == "ann"
    assert [org["name"] for org in me["orgs"]] == ["acme", "other"]
    assert me["auth"]["accessToken"]["role"] == "read"


def test_tokens_are_kept_as_digests_only(place: Place) -> None:
    token = create_token(place.root, user="ann")
    assert token.startswith("hf_")
    assert len(token) == 37
    assert token[3:].isalnum()
    assert all(token.encode() not in path.read_bytes() for path in place.root.rglob("*") if path.is_file())
    for name in ("tokens.json", "secret"):
        assert stat.S_IMODE((place.root / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("user", ["", "../x", "api", "a--b", "a/b", "x\n"])
def test_tokens_need_a_proper_user(tmp_path: Path, user: str) -> None:
    with pytest.raises(BadRequest):
        create_token(tmp_path, user=user)


def test_webhooks_are_their_owners(place: Place, ann: HfApi) -> None:
    made = ann.create_webhook(url="http://127.0.0.1:9/x", watched=[{"type": "org", "name": "acme"}], domains=["repo"], secret="s3")
    assert (made.url, made.domains, made.secret, made.disabled) == ("http://127.0.0.1:9/x", ["repo"], "s3", False)
    assert ann.get_webhook(made.id) == made
    assert ann.disable_webhook(made.id).disabled is True
    assert ann.enable_webhook(made.id).disabled is False
    changed = ann.update_webhook(made.id, url="http://127.0.0.1:9/y", watched=[WebhookWatchedItem(type="model", name="ann/thing")])
    assert changed.url == "http://127.0.0.1:9/y"
    assert changed.secret == "s3"
    assert changed.watched == [WebhookWatchedItem(type="model", name="ann/thing")]
    bob = place.api("bob")
    assert bob.list_webhooks() == []
    for call in (bob.get_webhook, bob.delete_webhook, bob.disable_webhook):
        with refused(404):
            call(made.id)
    assert stat.S_IMODE((place.root / "webhooks.json").stat().st_mode) == 0o600
    assert json.loads((place.root / "webhooks.json").read_text())[0]["id"] == made.id
    ann.delete_webhook(made.id)
    assert ann.list_webhooks() == []


@pytest.mark.parametrize("fields", [{"url": "file:///etc/passwd"}, {"url": "http://"}, {"secret": "a\nb"}, {"domains": ["everything"]}, {"watched": []}])
def test_webhooks_that_make_no_sense_are_refused(ann: HfApi, fields: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        ann.create_webhook(**{"url": "http://127.0.0.1:9/", "watched": [{"type": "user", "name": "ann"}]} | fields)


def test_collections(place: Place, ann: HfApi) -> None:
    for name in ("acme/one", "acme/two"):
        ann.create_repo(name)
    ann.create_repo("acme/hidden", private=True)
    ann.create_repo("acme/data", repo_type="dataset")
    shelf = ann.create_collection("Tiny Chat: all variants", namespace="acme", description="Everything")
    assert shelf.slug.startswith("acme/tiny-chat-all-variants-")
    with refused(409):
        ann.create_collection("Tiny Chat: all variants", namespace="acme")
    assert ann.create_collection("Tiny Chat: all variants", namespace="acme", exists_ok=True).slug == shelf.slug
    ann.add_collection_item(shelf.slug, "acme/one", "model", note="the first")
    ann.add_collection_item(shelf.slug, "acme/two", "model")
    ann.add_collection_item(shelf.slug, "acme/data", "dataset")
    filled = ann.add_collection_item(shelf.slug, "acme/hidden", "model")
    with refused(409):
        ann.add_collection_item(shelf.slug, "acme/one", "model")
    ann.add_collection_item(shelf.slug, "acme/one", "model", exists_ok=True)
    assert [(item.item_id, item.item_type, item.note, item.position) for item in filled.items] == [
        ("acme/one", "model", "the first", 0),
        ("acme/two", "model", None, 1),
        ("acme/data", "dataset", None, 2),
        ("acme/hidden", "model", None, 3),
    ]
    ann.update_collection_item(shelf.slug, filled.items[2].item_object_id, note="data", position=0)
    ann.delete_collection_item(shelf.slug, filled.items[1].item_object_id)
    ann.delete_collection_item(shelf.slug, filled.items[1].item_object_id, missing_ok=True)
    assert [(item.item_id, item.note) for item in ann.get_collection(shelf.slug).items] == [
        ("acme/data", "data"),
        ("acme/one", "the first"),
        ("acme/hidden", None),
    ]
    assert [item.item_id for item in place.api(None).get_collection(shelf.slug).items] == ["acme/data", "acme/one"]
    updated = ann.update_collection_metadata(shelf.slug, title="Renamed", theme="pink")
    assert updated.title == "Renamed"
    assert updated.slug.startswith("acme/renamed-")
    assert ann.get_collection(shelf.slug).slug == updated.slug
    assert [each.slug for each in place.api(None).list_collections(owner="acme", item="models/acme/one")] == [updated.slug]
    for outsider in (place.api("bob"), place.api("ann", "read", ("acme",))):
        with refused(403):
            outsider.add_collection_item(shelf.slug, "acme/one", "model")
        with refused(403):
            outsider.delete_collection(shelf.slug)
    with refused(404):
        ann.add_collection_item(shelf.slug, "acme/nothing", "model")
    ann.update_collection_metadata(shelf.slug, private=True)
    with refused(404):
        place.api(None).get_collection(shelf.slug)
    ann.delete_collection(shelf.slug)
    ann.delete_collection(shelf.slug, missing_ok=True)
    assert list(ann.list_collections(owner="acme")) == []
