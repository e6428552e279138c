"""W3C Trace Context: one trace id from the client's own trace through our log lines to its answer.

`traceparent` is `00-<trace id>-<parent id>-<flags>`. A request that brings a good one belongs to
its trace; any other begins a new one. Level 2's random flag is set on the ids that we make.
Without it X-Trace-ID (32 hexadecimal digits, or a UUID) and X-Span-ID (16) say the same.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import CIMultiDictProxy

VERSION = "00"
SAMPLED, RANDOM = 0x01, 0x02
# What a later version may add stands behind another dash.
TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    r"-(?P<parent>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
MEMBER = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
TRACE_HEADER, SPAN_HEADER = "X-Trace-ID", "X-Span-ID"
MEMBER_COUNT_MAX = 32
STATE_LENGTH_MAX = 512


class TraceContext(NamedTuple):
    """Which trace a request belongs to, and what of it is ours."""

    trace_id: str
    span_id: str
    flags: int
    state: str | None
    parent_id: str | None = None

    @property
    def traceparent(self) -> str:
        """The header that names our part of the trace."""
        return f"{VERSION}-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def read(headers: CIMultiDictProxy[str]) -> TraceContext:
    """Return the trace that the headers name, else a new one; the span is always new."""
    given = headers.getall("traceparent", ())
    found = TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
    if found is None or (found["version"] == VERSION and found["more"]):
        return _read_own(headers)
    flags = int(found["flags"], 16) & (SAMPLED | RANDOM)
    state = read_state(headers.getall("tracestate", ()))
    return TraceContext(found["trace"], os.urandom(8).hex(), flags, state, found["parent"])


def new() -> TraceContext:
    """Begin a trace."""
    made = os.urandom(24).hex()
    return TraceContext(made[:32], made[32:], RANDOM, None)


def _read_own(headers: CIMultiDictProxy[str]) -> TraceContext:
    given = headers.get(TRACE_HEADER)
    if given is None:
        return new()
    trace_id = given.strip().lower().replace("-", "")
    if not TRACE_ID.fullmatch(trace_id):
        return new()
    parent_id = headers.get(SPAN_HEADER, "").strip().lower()
    parent = parent_id if SPAN_ID.fullmatch(parent_id) else None
    return TraceContext(trace_id, os.urandom(8).hex(), 0, None, parent)


def read_state(given: Sequence[str]) -> str | None:
    """Return the vendors' list, to be handed on as it came; None when there is no good one."""
    members = [member.strip(" \t") for header in given for member in header.split(",")]
    members = [member for member in members if member]
    state = ",".join(members)
    keys = {member.partition("=")[0] for member in members}
    is_good = (
        0 < len(members) <= MEMBER_COUNT_MAX
        and len(state) <= STATE_LENGTH_MAX
        and len(keys) == len(members)
        and all(MEMBER.fullmatch(member) for member in members)
    )
    return state if is_good else None
