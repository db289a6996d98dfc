"""The server's description in OpenAPI 3.1, from the table of fields."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .fields import ENDPOINTS

READ = {
    "/health": "Whether the server is there.",
    "/metrics": "Counts, as Prometheus reads them.",
    "/v1/models": "The programs that are served.",
}
ERRORS = {
    "400": "a field is missing, wrong or not supported",
    "401": "the key is missing or wrong",
    "404": "there is no such model",
    "413": "the body is too large",
    "415": "the body is no JSON by its content-type",
    "429": "all slots are busy and too many texts wait",
    "500": "a bug of ours",
    "503": "the server is stopping",
}
TEXT = {"type": "string"}


def described(models: Sequence[str]) -> dict[str, Any]:
    """models: the names of what is served."""
    paths: dict[str, Any] = {path: {"get": _operation(what)} for path, what in READ.items()}
    name = {"name": "model", "in": "path", "required": True, "schema": TEXT}
    paths["/v1/models/{model}"] = {"get": {**_operation("One of the programs."), "parameters": [name]}}
    for endpoint in ENDPOINTS:
        schema = endpoint.body.schema()
        schema["properties"]["model"] = {"type": "string", "enum": list(models)}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        paths[endpoint.path] = {"post": {**_operation(endpoint.what), "requestBody": body}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "waferc serve", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": {"Error": _error()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(what: str) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refused = {status: {"description": why, "content": error} for status, why in ERRORS.items()}
    return {"summary": what, "responses": {"200": {"description": "as OpenAI's"}, **refused}}


def _error() -> dict[str, Any]:
    maybe = {"type": ["string", "null"]}
    members = {"message": TEXT, "type": TEXT, "param": maybe, "code": maybe}
    error = {"type": "object", "properties": members, "required": list(members)}
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _version() -> str:
    try:
        return version("waferc")
    except PackageNotFoundError:
        return "0"
