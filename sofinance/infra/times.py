"""Moments as text: ISO 8601 in UTC with milliseconds and Z; in headers, HTTP's own form."""

from datetime import UTC, datetime
from email.utils import formatdate

import orjson


def iso(moment: datetime) -> str:
    """Write an aware moment; on the way of every answer, so by orjson, three times as fast."""
    utc = moment.astimezone(UTC)
    text = orjson.dumps(utc)
    # Quoted, with six digits of a second's fraction or none, and an offset of zero.
    return (text[1:24] if utc.microsecond else text[1:20] + b".000").decode() + "Z"


def iso_now() -> str:
    """Write this moment."""
    return iso(datetime.now(UTC))


def from_seconds(seconds: float) -> datetime:
    """Return a moment from its seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def http_date(moment: float | datetime) -> str:
    """Write a moment as HTTP headers have it; a number counts seconds from 1970 in UTC."""
    seconds = moment if isinstance(moment, int | float) else moment.timestamp()
    return formatdate(seconds, usegmt=True)
