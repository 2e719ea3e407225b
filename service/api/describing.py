"""The API as OpenAPI tells it: every status that an endpoint can answer with and with what body, ETags, and an example of everything that is sent
and of every answer in JSON.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from config.wire import PROBLEM
from service.api.errors import Problem, problems
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
_SHA256 = "9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031"
_IDS = {"id": 12, "stage": "convert", "name": "default", "sha256": _SHA256}  # of parameters in paths
_BODIES: Mapping[str, Mapping[str, Any]] = {
    "RunRequest": {"repo": "Qwen/Qwen3-0.6B", "revision": "main", "recipe": "default"},
    "Watched": {"owners": ["Qwen"], "names": ["Qwen3-*"], "recipe": "default"},
}
"""Examples of what is sent, where they are not made of those of its fields."""
_VALUES: Mapping[str, Any] = {
    "id": 12,
    "run": 12,
    "attempt": 1,
    "bytes": 484_220_320,
    "sha256": _SHA256,
    "sha": "c1899de289a04d12100db370d81485cdf75e47ca",
    "revision": "main",
    "repo": "Qwen/Qwen3-0.6B",
    "repos": "Qwen/Qwen3-0.6B",
    "owner": "Qwen",
    "owners": "Qwen",
    "names": "Qwen3-*",
    "exclude": "*-GGUF",
    "tags": "text-generation",
    "licenses": "apache-2.0",
    "namespace": "ours",
    "namespaces": "ours",
    "recipe": "default",
    "trigger": "poll",
    "stage": "quantize Q4_K_M",
    "variant": "Q4_K_M",
    "tag": "Q4_K_M",
    "gate": "divergence",
    "measure": "kld.mean",
    "unit": "nats",
    "by": "Ada",
    "comment": "Asked for by its users.",
    "reason": "The licence changed.",
    "token": "ci",
    "subject": "run/12",
    "action": "queued",
    "url": "https://huggingface.co/ours/Qwen3-0.6B-GGUF",
    "version": "1.0",
}
"""Of fields in answers, where they are not told with the field."""
_MOMENT = "2026-11-28T12:00:00Z"
_DEEP = 12  # levels of an answer, below which lists are empty


def install(app: FastAPI) -> None:
    """Let the application's OpenAPI document hold what FastAPI does not know of."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = schema
            _tell_tags(app, document)
            _tell_absence(document)
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


def _tell_absence(document: dict[str, Any]) -> None:
    """503 of everything that asks the database, which may be away: of all that wants a token, since that is looked up there."""
    absent = {str(status): said for status, said in problems(HTTPStatus.SERVICE_UNAVAILABLE).items()}
    for operation in _operations(document):
        if str(int(HTTPStatus.UNAUTHORIZED)) in operation["responses"]:
            operation["responses"] = dict(sorted({**absent, **operation["responses"]}.items()))


def _show_examples(document: dict[str, Any]) -> None:
    """An example of each body that is sent and of each answer in JSON, made of those of its fields, and of each parameter in a path."""
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
        for status, answer in operation["responses"].items():
            if "content" in answer:
                answer["content"] = {kind: _shown(kind, said, schemas, int(status)) for kind, said in answer["content"].items()}


def _shown(kind: str, said: dict[str, Any], schemas: Mapping[str, Any], status: int) -> dict[str, Any]:
    """What an answer of that kind holds, with an example where that is JSON."""
    if kind == PROBLEM:
        return {**said, "example": _example(schemas["Problem"], schemas) | {"status": status, "title": HTTPStatus(status).phrase}}
    return {**said, "example": _example(said["schema"], schemas)} if kind == "application/json" and said.get("schema") else said


def _example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """A value as the schema of a field of that name has it."""
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas, name, depth + 1)
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    if choices := [choice for choice in schema.get("anyOf", schema.get("oneOf", ())) if choice.get("type") != "null"]:
        return _example(choices[0], schemas, name, depth + 1)
    known = _VALUES.get(name)
    match schema.get("type"):
        case "object":
            return {key: _example(field, schemas, key, depth + 1) for key, field in schema.get("properties", {}).items()}
        case "array":
            return [_example(schema["items"], schemas, name, depth + 1)] if "items" in schema and depth < _DEEP else []
        case "string":
            return _MOMENT if schema.get("format") == "date-time" else known if isinstance(known, str) else "…"
        case "integer" | "number" as kind:
            return known if isinstance(known, int) else 1 if kind == "integer" else 0.5
        case "boolean":
            return False
    return None


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()
