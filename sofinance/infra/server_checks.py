"""On which database, and as whom, the service would not be safe: looked at with each connection."""

from __future__ import annotations

from typing import Any

from sofinance.infra.command import SetupError

SERVER_VERSION_MIN = 15


def check_server(conn: Any, *, may_be_superuser: bool = False) -> None:
    """Refuse a server, or a role, with which this service would not be safe; raises SetupError."""
    settings = conn.get_settings()
    if getattr(settings, "is_superuser", "off") == "on" and not may_be_superuser:
        raise SetupError(
            "The role of the database's URL is a superuser, for whom no row security holds: "
            "DATABASE_URL names sofinance_app, OWNER_URL whoever migrates."
        )
    if settings.standard_conforming_strings != "on":
        raise SetupError(
            "standard_conforming_strings is off for this database or role; it must be on."
        )
    major = conn.get_server_version().major
    if major < SERVER_VERSION_MIN:
        raise SetupError(
            f"The database is PostgreSQL {major}; SOFinance needs {SERVER_VERSION_MIN} or newer."
        )
