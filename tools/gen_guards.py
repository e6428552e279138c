"""Write sql/guards.json: what guards the books in a database fresh from the migrations.

`sofinance verify` compares a database with it, so a constraint that was dropped, a trigger that
was disabled and a function whose body was changed are found by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from sofinance.infra.sql import QUERIES_DIR, load

if TYPE_CHECKING:
    from tools.generate import Urls


def generate(urls: Urls) -> dict[Path, str]:
    """Return the guards of the migrated database by kind and name."""
    statement = load(QUERIES_DIR / "integrity.sql")["list_guards"].sql
    with psycopg.connect(urls.superuser) as conn:
        rows = conn.execute(statement.encode()).fetchall()
    guards: dict[str, dict[str, str]] = {}
    for kind, name, definition in sorted(rows):
        guards.setdefault(kind, {})[name] = definition
    return {Path("sql/guards.json"): json.dumps(guards, indent=1) + "\n"}
