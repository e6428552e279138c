"""Show how PostgreSQL runs a named query: `make explain q=sales.list_sales`.

On the data of the plan files, with the values of tools/plan_samples.py or with others:
`python -m tools.explain sales.list_sales customer_id=1296 start_date=2025-06-01`.
"""

from __future__ import annotations

import sys

from sofinance.infra.sql import QUERIES_DIR, Query, load
from tools import gen_plans
from tools.generate import migrated_database
from tools.plan_samples import SAMPLES

USAGE = "make explain q=sales.list_sales (python -m tools.explain sales.list_sales limit=10)"


def main(arguments: list[str]) -> int:
    """Print the plan of a query, or of every query of a file."""
    wanted, *given = arguments or [""]
    file, _, name = wanted.partition(".")
    path = QUERIES_DIR / f"{file}.sql"
    queries = load(path) if file and path.exists() else {}
    if name:
        queries = {key: query for key, query in queries.items() if key == name}
    if not queries or any("=" not in value for value in given):
        print(f"There is no query {wanted}. Usage: {USAGE}", file=sys.stderr)
        return 2
    for query in queries.values():
        own = dict(value.split("=", 1) for value in given)
        SAMPLES[query.key] = {**SAMPLES.get(query.key, {}), **own}
    with migrated_database() as urls, gen_plans.planner(urls.superuser) as session:
        for query in queries.values():
            print(shown(session, query))
    return 0


def shown(session: gen_plans.Planner, query: Query) -> str:
    """Return a query's text and its plan, as the plan files have it."""
    return f"{query.text.strip()}\n\n{gen_plans.written(session, query)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
