"""Entity tags: a client reads nothing twice and overwrites nothing that it has not seen.

A tag is `"<version>-<digest>"`: the row's version, which If-Match compares, and a digest of the
data, which If-None-Match compares and which changes with everything that a client can see of it.
What has no version, such as a posted sale or a report, has a tag of its digest alone.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from sofinance.infra import errors
from sofinance.infra.errors import ApiError

if TYPE_CHECKING:
    from aiohttp import web

IfMatch = Literal["optional", "required"]

DIGEST_BYTES = 8
ANY = "*"
# RFC 9110, 8.8.3: any visible character but the quote.
TAG = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"')
TAGS = re.compile(r'[ \t,]*((W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(,[ \t,]*|$))+')
VERSIONED = re.compile(r"([1-9][0-9]{0,18})-[0-9a-f]+")


def tag_of(result: Any, json: bytes) -> str:
    """Return the tag of what a handler returned and how it is written."""
    digest = blake2b(json, digest_size=DIGEST_BYTES).hexdigest()
    version = version_of(result)
    return f'"{digest}"' if version is None else f'"{version}-{digest}"'


def version_of(result: Any) -> int | None:
    """Return the version of the row that a handler returned; None when it has none."""
    get = getattr(result, "get", None)
    version = None if get is None else get("version")
    return version if type(version) is int else None


def is_known(request: web.Request, tag: str) -> bool:
    """Say whether the client has this already (If-None-Match): 304."""
    header = ",".join(request.headers.getall("If-None-Match", ()))
    if not header:
        return False
    # Weak comparison: a proxy that compresses makes our tags weak.
    return header.strip() == ANY or any(
        found["opaque"] == tag[1:-1] for found in TAG.finditer(header)
    )


class Precondition:
    """Reads and checks If-Match at one endpoint."""

    def __init__(self, declared: IfMatch | None, method: str) -> None:
        self._declared = declared
        # What a DELETE returns is how it was; all else returns how it is now, one version later.
        self._step = 0 if method == "DELETE" else 1

    def read(self, request: web.Request) -> frozenset[int] | None:
        """Return the versions that the client may have seen; None when it does not say.

        Raises if_match_required (428), if_match_not_supported (400) and invalid_request (422).
        """
        header = ",".join(request.headers.getall("If-Match", ()))
        if not header:
            if self._declared == "required":
                raise ApiError(
                    "if_match_required",
                    "Say which state you have seen: If-Match with the ETag of your last read.",
                    status=428,
                )
            return None
        if self._declared is None:
            raise ApiError(
                "if_match_not_supported", "Nothing here has a version to match.", status=400
            )
        if header.strip() == ANY:
            return None
        if not TAGS.fullmatch(header):
            raise errors.invalid_request({"If-Match": ["Neither * nor a list of entity tags."]})
        # Strong comparison: a weak tag never matches, and a tag that is not ours neither.
        strong = (found["opaque"] for found in TAG.finditer(header) if not found["weak"])
        return frozenset(
            int(matched[1]) for opaque in strong if (matched := VERSIONED.fullmatch(opaque))
        )

    def check(self, seen: frozenset[int] | None, result: Any) -> None:
        """Refuse (412) what was done to a state that the client has not seen; it is undone.

        There is no race: the row is ours since the statement that changed it, and the version
        that it returned says which state it changed.
        """
        if seen is None:
            return
        version = version_of(result)
        if version is None:
            raise RuntimeError("an endpoint with if_match returns a row with its version")
        if version - self._step not in seen:
            raise ApiError(
                "version_mismatch",
                "It was changed since you read it. Read it again, then decide.",
                status=412,
            )
