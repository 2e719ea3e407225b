"""The API's documentation as a page that needs no script and nothing from elsewhere: what OpenAPI tells, for people."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

router = APIRouter()

_TEMPLATES = Path(__file__).parent / "templates"


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Every endpoint with what it takes and answers."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    described = request.app.openapi()
    return HTMLResponse(environment.get_template("reference.html.j2").render(described=described, rooms=_rooms(described)))


def _rooms(described: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The operations by their first tag, in the order of the document."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            shown = {
                "method": method.upper(),
                "path": path,
                "summary": operation["summary"],
                "description": operation.get("description", ""),
                "parameters": operation.get("parameters", []),
                "fields": _fields(described, operation),
                "responses": operation["responses"],
                "open": "security" not in operation,
            }
            found.setdefault(operation["tags"][0], []).append(shown)
    return found


def _fields(described: dict[str, Any], operation: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of the JSON body that the operation takes."""
    content = operation.get("requestBody", {}).get("content", {})
    name = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    schema = described["components"]["schemas"].get(name, {})
    wanted = schema.get("required", [])
    return [
        {"name": field, "required": field in wanted, "description": told.get("description", ""), "examples": told.get("examples", [])}
        for field, told in schema.get("properties", {}).items()
    ]
