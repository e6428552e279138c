"""`make explain q=sales.list_sales`: the plan of one named query, on data made for it."""

from __future__ import annotations

import sys

from sofinance.infra.sql import QUERIES_DIR, load
from tools import gen_plans
from tools.generate import migrated_database


def main(arguments: list[str]) -> int:
    """Print the plan, as sql/plans holds it."""
    file, _, name = (arguments[0] if arguments else "").partition(".")
    path = QUERIES_DIR / f"{file}.sql"
    query = load(path).get(name) if path.exists() else None
    if query is None:
        print("Name a query: make explain q=sales.list_sales", file=sys.stderr)
        return 2
    with migrated_database() as urls, gen_plans.planner(urls.superuser) as session:
        print(gen_plans.written(session, query))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
