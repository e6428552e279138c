"""The documents describe every endpoint, and what they point at is there."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from sofinance.app import find_endpoints
from sofinance.infra import openapi

ENDPOINTS = find_endpoints()


@functools.cache
def written(version: str) -> dict[str, Any]:
    return (openapi.openapi if version == "3.1" else openapi.swagger)(ENDPOINTS)


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


def operations(version: str) -> dict[tuple[str, str], Any]:
    paths = written(version)["paths"]
    return {
        (method.upper(), path): operation
        for path, found in paths.items()
        for method, operation in found.items()
    }


@pytest.mark.parametrize("version", ["2.0", "3.1"])
def test_every_endpoint_is_described(version: str) -> None:
    described = operations(version)
    assert set(described) == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    for endpoint in ENDPOINTS:
        operation = described[endpoint.method, endpoint.path]
        assert operation["summary"], f"{endpoint.name} has no docstring"
        assert operation["tags"] == [endpoint.tag]
        assert str(endpoint.status) in operation["responses"]
        assert bool(operation.get("security")) is (endpoint.permission is not None)
        assert operation.get("x-permission") == endpoint.permission


@pytest.mark.parametrize("version", ["2.0", "3.1"])
def test_names_are_unique_and_references_lead_somewhere(version: str) -> None:
    document = written(version)
    names = [operation["operationId"] for operation in operations(version).values()]
    assert len(names) == len(set(names))
    for reference in references(document):
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


def test_documents_can_be_written_again() -> None:
    assert openapi.swagger(ENDPOINTS) == written("2.0")
    assert openapi.openapi(ENDPOINTS) == written("3.1")


def test_a_write_is_described_with_its_headers_and_its_refusals() -> None:
    operation = operations("3.1")["POST", "/api/v1/sales"]
    refs = references(operation["parameters"])
    assert "#/components/parameters/Idempotency-Key" in refs
    assert "#/components/parameters/X-Branch-Id" in refs
    assert {"400", "401", "403", "404", "409", "413", "415", "422", "500", "503"} < set(
        operation["responses"]
    )
    failure = written("3.1")["components"]["responses"]["409"]["content"]
    assert set(failure) == {"application/json", "application/problem+json"}


def test_an_answer_is_described_as_the_envelope() -> None:
    document = written("3.1")
    content = operations("3.1")["GET", "/api/v1/sales"]["responses"]["200"]["content"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    assert set(schema["required"]) == {
        "success", "message", "data", "error", "meta", "timestamp",
    }  # fmt: skip


def test_money_and_moments_are_strings() -> None:
    schemas = written("3.1")["components"]["schemas"]
    total = schemas["sales.PostedSale"]["properties"]["total"]
    assert (total["type"], total["format"]) == ("string", "decimal")
    sold_at = schemas["sales.PostedSale"]["properties"]["sold_at"]
    assert (sold_at["type"], sold_at["format"]) == ("string", "date-time")
