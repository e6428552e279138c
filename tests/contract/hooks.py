"""What schemathesis needs to know beyond the document; it loads this module by its name.

Requests that end the session which they are sent in are sent by somebody else, keys that name one
request are sent once, and a check of ours looks at the codes of refusals.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure

KEY = "Idempotency-Key"
KEY_LENGTH_MAX = 255
# What no schema of JSON can say, field by field: why each may be refused as invalid_request.
BEYOND_SCHEMA = {
    "If-Match": "a list of entity tags, whose grammar schemathesis does not always follow",
    "bucket_days": "ascending numbers",
    "customer_id": "or else the email",
    "customer_name": "not beside customer_id",
    "file": "not empty",
    "key": "names of 1 to 100 characters",
    "branch_ids": "some, or else all_branches",
    "new_password": "not one of the known ones, nor the address",
    "password": "the same",
    "_schema": "a change of nothing",
    "end": "after start, by so many days",
    "time_zone": "a name of the IANA database",
}
IS_USER = re.compile(r"/users/\{(user_)?id\}")
NOBODY = 999_999
# What signs out whoever asks it: asked by somebody else, in a session of its own.
ENDS_SESSION = frozenset(
    {
        "DELETE /api/v1/auth/sessions/{id}",
        "POST /api/v1/auth/logout",
        "POST /api/v1/auth/logout-all",
    }
)
# A sum or a product of well-formed numbers that no column holds.
OVERFLOW = "A value is out of range or not of its type."

_numbers = itertools.count(1)
_answers: Counter[int] = Counter()
_spare: list[str] = []  # a token that is good until it ended a session


class ShapeRefusedError(Failure):
    """What the document allows was refused as malformed."""


def whole(value: Any) -> Any:
    """Write 628.0 as 628: the same to JSON Schema, but a float to us, and refused as one."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return value


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Send no floats where whole numbers are meant."""
    return whole(body)


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """Give every request a key of its own, and spare the session that all others need."""
    headers = case.headers
    for name, value in (headers or {}).items():
        if not isinstance(value, str):
            headers[name] = str(value)  # an id that it found in an answer
    kept = {str(number) for number in json.loads(os.environ["SOFINANCE_KEPT"])}
    places = case.path_parameters or {}
    for name in ("id", "user_id"):
        is_user = IS_USER.search(case.operation.path) and str(places.get(name)) in kept
        if case.method.upper() != "GET" and is_user:
            places[name] = NOBODY
    is_ours = (headers or {}).get("Authorization") == f"Bearer {os.environ['SOFINANCE_TOKEN']}"
    if case.operation.label in ENDS_SESSION and is_ours:
        headers["Authorization"] = f"Bearer {_spare_token()}"
    key = None if headers is None else headers.get(KEY)
    if isinstance(key, str) and key.isascii() and 0 < len(key) <= KEY_LENGTH_MAX:
        number = f"{next(_numbers):08x}"
        headers[KEY] = key[: KEY_LENGTH_MAX - len(number)] + number


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    """Count the answers, for the test to see that something was really done."""
    _answers[response.status_code] += 1
    if case.operation.label in ENDS_SESSION and response.status_code in (200, 204, 401):
        _spare.clear()


@atexit.register
def _tell() -> None:
    """Leave the counts for the test, which runs this in a process of its own."""
    if "SOFINANCE_ANSWERS" in os.environ:
        Path(os.environ["SOFINANCE_ANSWERS"]).write_text(json.dumps(_answers), "utf-8")


@schemathesis.check
def shape_is_accepted(_context: Any, response: Any, case: Any) -> None:
    """Hold that what the document allows is never refused for its shape."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_valid or response.status_code != 422:
        return
    answered = response.json()
    error = answered.get("error", answered)
    if error["code"] != "invalid_request" or error["message"] == OVERFLOW:
        return
    names = {name.rpartition(".")[2] for name in error["details"].get("fields", {"": ""})}
    if not names <= BEYOND_SCHEMA.keys():
        raise ShapeRefusedError(
            operation=case.operation.label, title="Shape refused", message=response.text
        )


def _spare_token() -> str:
    """Return the access token of somebody who may be signed out."""
    if not _spare:
        spare = json.loads(os.environ["SOFINANCE_SPARE"])
        _spare.append(sign_in(spare.pop("url"), spare))
    return _spare[0]


def whoami(url: str, token: str) -> int:
    """Return the id of who has a token."""
    request = urllib.request.Request(  # noqa: S310 - of our own service
        f"{url}/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        return int(json.load(answer)["data"]["id"])


def sign_in(url: str, credentials: dict[str, str]) -> str:
    """Return an access token."""
    request = urllib.request.Request(  # noqa: S310 - of our own service
        f"{url}/api/v1/auth/login",
        data=json.dumps(credentials).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
        return str(json.load(answer)["data"]["access_token"])
