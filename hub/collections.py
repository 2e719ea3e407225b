"""Collections: named lists of repos, in one small file."""

import json
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any, Final

from hub.disk import Root, now
from hub.errors import BadRequest, Conflict, NotFound
from hub.tokens import Identity
from hub.webhooks import owner_id

ITEM_TYPES: Final = ("model", "dataset", "space", "paper", "collection")
MAX_NOTE: Final = 500  # characters
THEMES: Final = ("orange", "blue", "green", "purple", "pink", "indigo")

Shelf = dict[str, Any]


class Collections:
    """The collections of a root, in `collections.json`, each as the Hub's own JSON shows it."""

    def __init__(self, root: Root) -> None:
        self._root, self._path = root, root.path / "collections.json"
        self._lock = threading.Lock()
        self._known: dict[str, Shelf] = json.loads(self._path.read_bytes()) if self._path.exists() else {}

    def visible(self, reader: Identity | None) -> list[Shelf]:
        """The collections that a reader may see, newest first."""
        seen = [shelf for shelf in self._known.values() if not shelf["private"] or (reader and reader.owns(shelf["owner"]["name"]))]
        return sorted(seen, key=lambda shelf: str(shelf["lastUpdated"]), reverse=True)

    def get(self, slug: str, reader: Identity | None) -> Shelf:
        """The collection of that slug; only the id at its end counts, as titles change. Raises NotFound."""
        namespace, _, title = slug.partition("/")
        shelf = self._known.get(title.rpartition("-")[2])
        if shelf is None or shelf["owner"]["name"] != namespace or (shelf["private"] and not (reader and reader.owns(namespace))):
            raise NotFound("Collection not found")
        return shelf

    def create(self, *, title: str, namespace: str, private: bool, description: str) -> Shelf:
        """Make a collection. Raises Conflict, with the slug, when the namespace has one of that title."""
        with self._lock:
            for shelf in self._known.values():
                if shelf["owner"]["name"] == namespace and shelf["title"] == title:
                    raise Conflict("You already have a collection of this title", body={"slug": shelf["slug"]})
            identity = secrets.token_hex(12)
            shelf = {
                "slug": _slug(namespace, title, identity),
                "title": title,
                "description": description,
                "owner": {"_id": owner_id(namespace), "name": namespace, "type": "user"},
                "items": [],
                "lastUpdated": now(),
                "position": len(self._known),
                "private": private,
                "theme": THEMES[0],
                "upvotes": 0,
                "gating": False,
            }
            self._save({**self._known, identity: shelf})
            return shelf

    def update(self, slug: str, changes: dict[str, Any]) -> Shelf:
        """Change title, description, position, privacy or theme."""

        def change(shelf: Shelf) -> Shelf:
            title = str(changes.get("title", shelf["title"]))
            return {**shelf, **changes, "slug": _slug(shelf["owner"]["name"], title, _id(slug))}

        return self._change(slug, change)

    def delete(self, slug: str) -> None:
        """Remove a collection; its repos stay."""
        with self._lock:
            self._save({identity: shelf for identity, shelf in self._known.items() if identity != _id(slug)})

    def add(self, slug: str, *, identity: str, type: str, note: str | None) -> Shelf:
        """Put a repo at the end. Raises Conflict when it is in the collection already."""

        def change(shelf: Shelf) -> Shelf:
            if any((item["id"], item["type"]) == (identity, type) for item in shelf["items"]):
                raise Conflict("This item is already in the collection")
            item = {"_id": secrets.token_hex(12), "id": identity, "type": type, "position": len(shelf["items"]), "note": _note(note)}
            return {**shelf, "items": [*shelf["items"], item]}

        return self._change(slug, change)

    def update_item(self, slug: str, item_id: str, *, note: str | None, position: int | None) -> Shelf:
        """Change an item's note, or move it. Raises NotFound."""

        def change(shelf: Shelf) -> Shelf:
            item = _item(shelf, item_id)
            others = [each for each in shelf["items"] if each["_id"] != item_id]
            others.insert(item["position"] if position is None else max(position, 0), item | ({"note": _note(note)} if note is not None else {}))
            return {**shelf, "items": [each | {"position": index} for index, each in enumerate(others)]}

        return self._change(slug, change)

    def remove_item(self, slug: str, item_id: str) -> Shelf:
        """Take an item out. Raises NotFound."""

        def change(shelf: Shelf) -> Shelf:
            _item(shelf, item_id)
            return {**shelf, "items": [each | {"position": index} for index, each in enumerate(one for one in shelf["items"] if one["_id"] != item_id)]}

        return self._change(slug, change)

    def _change(self, slug: str, change: Callable[[Shelf], Shelf]) -> Shelf:
        with self._lock:
            shelf = self._known.get(_id(slug))
            if shelf is None:
                raise NotFound("Collection not found")
            shelf = {**change(shelf), "lastUpdated": now()}
            self._save({**self._known, _id(slug): shelf})
            return shelf

    def _save(self, known: dict[str, Shelf]) -> None:
        self._root.write(self._path, json.dumps(known, indent=1).encode())
        self._known = known


def _id(slug: str) -> str:
    return slug.rpartition("-")[2]


def _slug(namespace: str, title: str, identity: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{namespace}/{words[:60]}-{identity}" if words else f"{namespace}/collection-{identity}"


def _item(shelf: Shelf, item_id: str) -> dict[str, Any]:
    for item in shelf["items"]:
        if item["_id"] == item_id:
            return dict(item)
    raise NotFound("Collection item not found")


def _note(text: str | None) -> dict[str, str] | None:
    if text is not None and len(text) > MAX_NOTE:
        raise BadRequest(f"A note has at most {MAX_NOTE} characters.")
    return {"text": text, "html": ""} if text else None
