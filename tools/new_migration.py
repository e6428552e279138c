"""Begin a migration: the next number, what it depends on, and its rollback twin."""

from __future__ import annotations

import re
import sys
from pathlib import Path

MIGRATIONS = Path(__file__).resolve().parent.parent / "sql" / "migrations"
NAME = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)+$")
FORWARD = """\
-- What this does. Why it is done.
-- depends: {before}
set local lock_timeout = '4s';
set local role sofinance_owner;

"""
BACK = """\
-- What is taken back.
set local lock_timeout = '4s';
set local role sofinance_owner;

"""


def main(arguments: list[str]) -> int:
    """Write the two files and name them."""
    name = arguments[0] if arguments else ""
    if not NAME.match(name):
        print("Name it <domain>_<what>: make migration name=sales_add_channel", file=sys.stderr)
        return 2
    before = max(p.stem for p in MIGRATIONS.glob("[0-9]*.sql") if ".rollback" not in p.name)
    made = f"{int(before[:4]) + 1:04}_{name}"
    for suffix, text in ((".sql", FORWARD), (".rollback.sql", BACK)):
        path = MIGRATIONS / f"{made}{suffix}"
        path.write_text(text.format(before=before), "utf-8")
        print(f"wrote {path.relative_to(MIGRATIONS.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
