"""What we send, for OpenAPI's `webhooks`: every type of event, its shape, and its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sofinance.events import EVENT_TYPES

if TYPE_CHECKING:
    from apispec import APISpec

HEADERS = {
    "webhook-id": "The same for each attempt, and for each endpoint.",
    "webhook-timestamp": "When this attempt was made: seconds from 1970.",
    "webhook-signature": "One or more signatures with their versions (v1, v1a), with spaces.",
}


def webhooks(spec: APISpec) -> dict[str, Any]:
    """Describe what is sent to an endpoint; the shapes become components of the document."""
    names: dict[type, str] = {}
    described = {}
    for kind in EVENT_TYPES.values():
        shape = type(kind.data)
        if shape not in names:
            names[shape] = f"events.{shape.__name__}"
            spec.components.schema(names[shape], schema=kind.data)
        message = {
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"const": kind.name},
                "timestamp": {"type": "string", "format": "date-time"},
                "data": {"$ref": f"#/components/schemas/{names[shape]}"},
            },
        }
        described[kind.name] = {
            "post": {
                "operationId": f"event.{kind.name}",
                "summary": kind.description,
                "description": f"In order for one {kind.aggregate}, at least once.",
                "tags": ["webhooks"],
                "security": [],
                "parameters": [
                    {
                        "name": name, "in": "header", "required": True, "description": why,
                        "schema": {"type": "string"},
                    }
                    for name, why in HEADERS.items()
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": message}},
                },
                "responses": {
                    "2XX": {"description": "Taken; what the answer says is not read."},
                    "410": {"description": "Send nothing more: the endpoint is disabled."},
                    "default": {"description": "Sent again later."},
                },
            }
        }  # fmt: skip
    return described
