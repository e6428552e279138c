"""The one shape of every answer: {success, message, data, error, meta, timestamp}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from sofinance import __version__
from sofinance.infra.times import iso_now

if TYPE_CHECKING:
    from sofinance.config import Settings
    from sofinance.infra.errors import ApiError

ENVELOPE_KEYS = frozenset({"success", "message", "data", "error", "meta", "timestamp"})
SUCCESS = b'{"success":true,"message":%b,"data":%b,"error":null,"meta":%b,"timestamp":"%b"%b}'
FAILURE = b'{"success":false,"message":%b,"data":null,"error":%b,"meta":%b,"timestamp":"%b"}'
# Where in `meta` the enrichment stands, for clients that keep `meta` for their own.
NAMESPACE = "_ctx"
MIRRORED_PAGE_KEYS = ("items", "page", "size", "total")


class Envelope:
    """Writes answers as the settings want them."""

    def __init__(
        self,
        *,
        version: str | None,
        correlates: bool = False,
        mirrors: bool = False,
        mirrors_pages: bool = False,
        namespace: str | None = None,
    ) -> None:
        self._version, self._correlates, self._namespace = version, correlates, namespace
        self._mirrors, self._mirrors_pages = mirrors, mirrors and mirrors_pages

    @classmethod
    def configured(cls, settings: Settings) -> Envelope:
        """Return the envelope that the settings ask for."""
        enriched = settings.enable_response_enrichment
        return cls(
            version=__version__ if enriched and settings.include_app_version_meta else None,
            correlates=enriched and settings.include_correlation_id,
            mirrors=settings.enable_key_mirroring,
            mirrors_pages=settings.mirror_pagination_keys,
            namespace=NAMESPACE if settings.response_enrichment_add_to_meta else None,
        )

    def success(self, message: bytes, data: bytes, request_id: str, mirrored: bytes = b"") -> bytes:
        """Write the envelope around a message and data that are JSON already."""
        parts = message, data, self._meta(request_id), _now(), mirrored
        return SUCCESS % parts

    def failure(self, error: ApiError, request_id: str) -> bytes:
        """Write the envelope of an error."""
        told = {"code": error.code, "message": error.message, "details": error.details}
        parts = orjson.dumps(error.message), dumps(told), self._meta(request_id), _now()
        return FAILURE % parts

    def mirrored(self, data: Any) -> bytes:
        """Repeat the data's keys beside the envelope, for clients from before it."""
        if not self._mirrors or not isinstance(data, dict):
            return b""
        copied = {key: value for key, value in data.items() if key not in ENVELOPE_KEYS}
        if "pagination" in copied:
            page = copied.pop("pagination")
            flat = {"items": copied.pop("items"), "size": page["limit"], **page}
            if self._mirrors_pages:
                copied |= {key: flat[key] for key in MIRRORED_PAGE_KEYS}
        return b"," + orjson.dumps(copied)[1:-1] if copied else b""

    def _meta(self, request_id: str) -> bytes:
        meta: dict[str, str] = {}
        if self._version is not None:
            meta["app_version"] = self._version
        if self._correlates:
            meta["correlation_id"] = request_id
        if not meta:
            return b"{}"
        return orjson.dumps(meta if self._namespace is None else {self._namespace: meta})


def dumps(value: Any) -> bytes:
    """Write JSON of what errors and audit rows may hold: rows, decimals and odd keys too."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    # An asyncpg Record is a mapping in all but name.
    return dict(value.items()) if hasattr(value, "items") else str(value)


def _now() -> bytes:
    return iso_now().encode()
