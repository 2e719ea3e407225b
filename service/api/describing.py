"""The API as OpenAPI tells it: every status that an endpoint can answer with and with what body, ETags, and an example of everything that is sent."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from service.api.errors import Problem
from service.api.tagging import Tagged

_ETAG = {
    "description": "What If-None-Match and If-Match name this answer by.",
    "schema": {"type": "string", "example": '"4f0c9f1e2d3b4a5c8e7f-6a5b4c3d2e1f4f0c9f1e"'},
}
_KNOWN = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "ETags of answers that you have; of one of these the answer is 304, without a body.",
    "schema": {"type": "string"},
}
_IDS = {"id": 12, "stage": "convert", "name": "default"}  # of parameters in paths
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "RunRequest": {"repo": "Qwen/Qwen3-0.6B", "revision": "main", "recipe": "default"},
    "Watched": {"owners": ["Qwen"], "names": ["Qwen3-*"], "recipe": "default"},
}
"""Examples of what is sent, where they are not made of those of its fields."""


def install(app: FastAPI) -> None:
    """Let the application's OpenAPI document hold what FastAPI does not know of."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = schema
            _tell_tags(app, document)
            _show_examples(document)
        return made()

    app.openapi = openapi  # type: ignore[method-assign]


def _tell_tags(app: FastAPI, document: dict[str, Any]) -> None:
    """ETag, If-None-Match and 304 of every GET that has them."""
    for route in iter_route_contexts(app.routes):
        operation = document["paths"].get(route.path or "", {}).get("get")
        if not isinstance(route.original_route, Tagged) or operation is None or "application/json" not in operation["responses"]["200"].get("content", {}):
            continue
        operation.setdefault("parameters", []).append(_KNOWN)
        operation["responses"]["200"].setdefault("headers", {})["ETag"] = _ETAG
        operation["responses"][str(int(HTTPStatus.NOT_MODIFIED))] = {"description": "It is as If-None-Match says"}


def _show_examples(document: dict[str, Any]) -> None:
    """An example of each body that is sent, made of those of its fields, and of each parameter in a path."""
    schemas = document["components"]["schemas"]
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "path" and parameter["name"] in _IDS:
                parameter["example"] = _IDS[parameter["name"]]
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        named = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if named in schemas:
            fields = schemas[named].get("properties", {}).items()
            content["example"] = _BODIES.get(named.removesuffix("-Input")) or {name: field["examples"][0] for name, field in fields if field.get("examples")}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()
