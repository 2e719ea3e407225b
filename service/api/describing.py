"""The API as OpenAPI tells it: every status that an endpoint can answer with, and with what body."""

from typing import Any

from fastapi import FastAPI

from service.api.errors import Problem


def install(app: FastAPI) -> None:
    """Let the application's OpenAPI document hold the problem document, to which the endpoints refer."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = schema
        return made()

    app.openapi = openapi  # type: ignore[method-assign]
