"""The documents describe every endpoint, and what they point at is there."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from sofinance.app import find_endpoints
from sofinance.events import EVENT_NAMES
from sofinance.infra import openapi, swagger
from sofinance.infra.deprecation import Deprecation

if TYPE_CHECKING:
    from tests.support import Psql

ENDPOINTS = find_endpoints()


@functools.cache
def written(version: str) -> dict[str, Any]:
    return (openapi.openapi if version == "3.1" else swagger.swagger)(ENDPOINTS)


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
        asked = [] if endpoint.public and endpoint.credential is None else [
            {endpoint.credential or "bearer": []}
        ]  # fmt: skip
        assert operation.get("security", []) == asked
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


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(written("3.1")).iter_errors()) == []


def test_documents_can_be_written_again() -> None:
    assert swagger.swagger(ENDPOINTS) == written("2.0")
    assert openapi.openapi(ENDPOINTS) == written("3.1")


def test_a_write_is_described_with_its_headers_and_its_refusals() -> None:
    operation = operations("3.1")["POST", "/api/v1/sales"]
    refs = references(operation["parameters"])
    assert "#/components/parameters/Idempotency-Key" in refs
    assert "#/components/parameters/X-Branch-Id" in refs
    assert set(operation["responses"]) == {
        "201", "400", "401", "403", "404", "408", "409", "413", "415", "417", "422", "429", "431",
        "500", "503",
    }  # fmt: skip
    assert {"Location", "Idempotency-Key-Expires", "Idempotent-Replayed", "RateLimit"} < set(
        operation["responses"]["201"]["headers"]
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


def test_reading_and_changing_say_how_states_are_matched() -> None:
    read = operations("3.1")["GET", "/api/v1/products/{id}"]
    assert "#/components/parameters/If-None-Match" in references(read["parameters"])
    assert {"ETag", "Link"} <= set(read["responses"]["304"]["headers"])
    changed = operations("3.1")["PUT", "/api/v1/products/{id}"]
    assert "#/components/parameters/If-Match" in references(changed["parameters"])
    assert "412" in changed["responses"]
    assert changed["responses"]["200"]["headers"]["ETag"]["$ref"].endswith("/ETag.always")


def test_what_is_limited_says_so_and_probes_are_not() -> None:
    assert "429" in operations("3.1")["GET", "/api/v1/info"]["responses"]
    assert "429" not in operations("3.1")["GET", "/livez"]["responses"]
    answer = written("3.1")["components"]["responses"]["429"]
    assert answer["headers"]["Retry-After"]["$ref"].endswith("/Retry-After.always")


def test_a_retirement_is_on_every_answer_of_it() -> None:
    retired = replace(
        next(found for found in ENDPOINTS if found.path == "/api/v1/info"),
        deprecated=Deprecation(
            since=datetime(2026, 1, 1, tzinfo=UTC), sunset=datetime(2027, 1, 1, tzinfo=UTC)
        ),
    )
    document = openapi.openapi([retired])
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    described = document["paths"]["/api/v1/info"]["get"]
    assert described["deprecated"] is True
    for answer in described["responses"].values():
        assert {"Deprecation", "Sunset"} <= set(answer["headers"])


def test_whole_numbers_may_come_as_numbers_and_go_out_as_strings() -> None:
    schemas = written("3.1")["components"]["schemas"]
    asked = schemas["sales.NewSaleLine"]["properties"]["quantity"]
    assert set(asked["type"]) == {"string", "integer"}
    assert asked["minimum"] == 1
    assert schemas["sales.SaleLine"]["properties"]["quantity"]["type"] == "string"


def test_the_legacy_shape_leaves_room_for_what_it_repeats() -> None:
    name = "catalog.Product.Answer"
    closed = written("3.1")["components"]["schemas"][name]
    mirrored = openapi.openapi(ENDPOINTS, mirrors=True)["components"]["schemas"][name]
    assert closed["additionalProperties"] is False
    assert "additionalProperties" not in mirrored


def test_what_is_sent_is_described() -> None:
    sent = written("3.1")["webhooks"]
    assert sent.keys() == set(EVENT_NAMES)
    body = sent["sale.posted"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["type"] == {"const": "sale.posted"}
    name = body["properties"]["data"]["$ref"].rpartition("/")[2]
    assert "total" in written("3.1")["components"]["schemas"][name]["required"]


def test_every_type_that_the_database_writes_is_described(psql: Psql) -> None:
    sources = psql(
        "select pg_get_triggerdef(oid) from pg_trigger where tgname ~ '_is_told$'"
        " union all select prosrc from pg_proc where proname ~ '^write_'",
        role="superuser",
    )
    found = set(re.findall(r"'([a-z_]+[.][a-z]+)'", " ".join(row[0] for row in sources)))
    assert found == set(EVENT_NAMES) - {"webhook.test"}
