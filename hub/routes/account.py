"""What belongs to a user: who they are, their webhooks, their collections."""

import dataclasses
from typing import Any, Final

from hub import collections, names
from hub.call import Call
from hub.errors import BadRequest, NotFound, Unauthorized
from hub.names import KINDS
from hub.routes import REPO, Address
from hub.webhooks import owner_id

WEBHOOK: Final = "/api/settings/webhooks/{id}"
COLLECTION: Final = "/api/collections/{ns}/{slug}"


def whoami(call: Call) -> Any:
    """GET /api/whoami-v2"""
    if call.identity is None:
        raise Unauthorized("Invalid username or password.")
    user = call.identity
    token = {"displayName": "embedded Hub token", "role": user.scope, "createdAt": user.created_at}
    return {
        "type": "user",
        "id": owner_id(user.user),
        "name": user.user,
        "fullname": user.user,
        "isPro": False,
        "orgs": [{"type": "org", "id": owner_id(org), "name": org, "fullname": org, "roleInOrg": user.scope} for org in user.orgs],
        "auth": {"type": "access_token", "accessToken": token},
    }


def list_webhooks(call: Call) -> Any:
    """GET /api/settings/webhooks"""
    return [webhook.wire() for webhook in call.hub.webhooks.of(call.user().user)]


def create_webhook(call: Call) -> Any:
    """POST /api/settings/webhooks"""
    return {"webhook": call.hub.webhooks.create(call.user(write=True), call.body).wire()}


def show_webhook(call: Call) -> Any:
    """GET /api/settings/webhooks/{id}"""
    return {"webhook": call.hub.webhooks.owned(call.user(), call.part("id")).wire()}


def update_webhook(call: Call) -> Any:
    """POST /api/settings/webhooks/{id}"""
    webhook = call.hub.webhooks.owned(call.user(write=True), call.part("id"))
    return {"webhook": call.hub.webhooks.update(webhook, call.body).wire()}


def switch_webhook(call: Call) -> Any:
    """POST /api/settings/webhooks/{id}/enable and /disable"""
    webhook = call.hub.webhooks.owned(call.user(write=True), call.part("id"))
    if call.part("switch") not in ("enable", "disable"):
        raise NotFound("Page not found")
    return {"webhook": call.hub.webhooks.replace(dataclasses.replace(webhook, disabled=call.part("switch") == "disable")).wire()}


def delete_webhook(call: Call) -> Any:
    """DELETE /api/settings/webhooks/{id}"""
    call.hub.webhooks.delete(call.hub.webhooks.owned(call.user(write=True), call.part("id")))
    return {}


def list_collections(call: Call) -> Any:
    """GET /api/collections[?owner=&item=&limit=]"""
    shelves = [_shown(call, shelf) for shelf in call.hub.collections.visible(call.identity)]
    if owner := call.request.query_params.getlist("owner"):
        shelves = [shelf for shelf in shelves if shelf["owner"]["name"] in owner]
    if wanted := call.request.query_params.getlist("item"):
        shelves = [shelf for shelf in shelves if any(f"{item['type']}s/{item['id']}" in wanted for item in shelf["items"])]
    # The client counts the positions of a list itself, and takes no other.
    return [{key: value for key, value in shelf.items() if key != "position"} for shelf in shelves[: call.number("limit", 100, most=100)]]


def create_collection(call: Call) -> Any:
    """POST /api/collections"""
    namespace, title = names.name(call.field("namespace", str)), call.field("title", str).strip()
    call.owner(namespace)
    if not 1 <= len(title) <= 60:
        raise BadRequest("The title of a collection has 1 to 60 characters.")
    private, description = call.field("private", bool, False), call.field("description", str, "")
    return call.hub.collections.create(title=title, namespace=namespace, private=private, description=description)


def show_collection(call: Call) -> Any:
    """GET /api/collections/{slug}"""
    return _shown(call, call.hub.collections.get(_slug(call), call.identity))


def update_collection(call: Call) -> Any:
    """PATCH /api/collections/{slug}"""
    _own(call)
    kinds: dict[str, type] = {"title": str, "description": str, "theme": str, "private": bool, "position": int}
    changes: dict[str, Any] = {key: call.field(key, kind) for key, kind in kinds.items() if call.body.get(key) is not None}
    if changes.get("theme", collections.THEMES[0]) not in collections.THEMES:
        raise BadRequest(f"The themes are {', '.join(collections.THEMES)}.")
    return {"success": True, "data": _shown(call, call.hub.collections.update(_slug(call), changes))}


def delete_collection(call: Call) -> Any:
    """DELETE /api/collections/{slug}"""
    _own(call)
    call.hub.collections.delete(_slug(call))
    return {"success": True}


def add_item(call: Call) -> Any:
    """POST /api/collections/{slug}/items"""
    _own(call)
    item = call.field("item", dict)
    identity, type = item.get("id"), item.get("type")
    if not isinstance(identity, str) or type not in collections.ITEM_TYPES:
        raise BadRequest(f"An item is {{id, type: one of {', '.join(collections.ITEM_TYPES)}}}.")
    if type in KINDS.values():
        identity = call.repo_named(type, identity).id
    return _shown(call, call.hub.collections.add(_slug(call), identity=identity, type=type, note=call.optional("note", str)))


def update_item(call: Call) -> Any:
    """PATCH /api/collections/{slug}/items/{item}"""
    _own(call)
    shelf = call.hub.collections.update_item(_slug(call), call.part("item"), note=call.optional("note", str), position=call.optional("position", int))
    return {"success": True, "data": _shown(call, shelf)}


def delete_item(call: Call) -> Any:
    """DELETE /api/collections/{slug}/items/{item}"""
    _own(call)
    call.hub.collections.remove_item(_slug(call), call.part("item"))
    return {"success": True}


def no_xet(call: Call) -> Any:
    """GET A/xet-read-token/{rev} and A/xet-write-token/{rev}"""
    raise NotFound("This embedded Hub stores files by LFS, not by Xet. Set HF_HUB_DISABLE_XET=1 in the environment of the client, before Python starts.")


def _slug(call: Call) -> str:
    return f"{call.part('ns')}/{call.part('slug')}"


def _own(call: Call) -> None:
    """Check that the caller may change the collection that the address names. Raises NotFound, Unauthorized or Forbidden."""
    shelf = call.hub.collections.get(_slug(call), call.identity)
    call.owner(shelf["owner"]["name"])


def _shown(call: Call, shelf: dict[str, Any]) -> dict[str, Any]:
    """A collection without the repos that are gone, or that the caller may not see."""

    def visible(item: dict[str, Any]) -> bool:
        if item["type"] not in KINDS.values():
            return True
        repo = call.hub.repos.find(item["type"], item["id"])
        return repo is not None and call.can_read(repo)

    return {**shelf, "items": [item for item in shelf["items"] if visible(item)]}


ROUTES: Final = (
    Address("GET", "/api/whoami-v2", whoami),
    Address("GET", "/api/settings/webhooks", list_webhooks),
    Address("POST", "/api/settings/webhooks", create_webhook),
    Address("GET", WEBHOOK, show_webhook),
    Address("POST", WEBHOOK, update_webhook),
    Address("DELETE", WEBHOOK, delete_webhook),
    Address("POST", WEBHOOK + "/{switch}", switch_webhook),
    Address("GET", "/api/collections", list_collections),
    Address("POST", "/api/collections", create_collection),
    Address("GET", COLLECTION, show_collection),
    Address("PATCH", COLLECTION, update_collection),
    Address("DELETE", COLLECTION, delete_collection),
    Address("POST", COLLECTION + "/items", add_item),
    Address("PATCH", COLLECTION + "/items/{item}", update_item),
    Address("DELETE", COLLECTION + "/items/{item}", delete_item),
    Address("GET", REPO + "/{xet:xet}/{rev}", no_xet),
)
