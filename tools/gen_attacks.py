"""Write docs/attacks.md: what the attack suite tries, as whom, and what refuses or finds it.

The lists are the suite's own: each row is a test, so a row that is not true fails the suite.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.attacks import corruptions, credentials, grid, over_http, rules
from tests.matrix.samples import SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tools.generate import Urls

HEAD = """\
# What attackers try, and what refuses them

Generated from `tests/attacks` by `make generate`; every row is a test that runs on every change,
on PostgreSQL 15 and 18. Attacks commit, because deferred rules speak at COMMIT.

The claim has two halves. **The application's role cannot break the books**: not with a bug in the
service, not with its password in psql. A posting that is not whole and right is refused by a named
rule in PostgreSQL, and the name is the error code of the API. **The owner of the tables can**, as
anywhere: whoever may switch a trigger off may change what it guards. Then `sofinance verify`
recomputes everything from the rows, compares the guards themselves with the release's, names the
first broken record of each kind and exits with 1.

What is not claimed:

* Whoever has the application's password chooses the organisation of a transaction, and may post
  whatever is a valid document there: a discount, a manual entry, an override. Who did it
  (`created_by`, `cashier_id`, the audit log) is then a claim. The API decides who may; row security
  is against mistakes and injected SQL, not against a stolen password.
* Verify cannot see a change that leaves everything as right as before, such as both lines of a
  manual entry raised by the same amount before a snapshot of the balances remembers them, or a
  guard that a superuser changes and puts back. Compare with a backup for that.
"""


def generate(_urls: Urls) -> dict[Path, str]:
    """Return the document."""
    return {Path("docs/attacks.md"): "\n".join(_lines())}


def _lines() -> Iterator[str]:
    attacks = [attack for of_slice in rules.BY_SLICE.values() for attack in of_slice]
    owned = (*corruptions.ROWS, *corruptions.GUARD_NAMES)
    yield HEAD
    yield f"| what is tried | how many |\n|---|---:|\n| tables x verbs x roles | {_cells()} |"
    yield f"| by hand, in SQL | {len(attacks)} |\n| over HTTP | {len(over_http.REQUESTS)} |"
    yield f"| to become more than the role is | {2 * len(grid.POWERS)} |"
    yield f"| by the owner, to be found | {len(owned)} |\n"
    yield from _grid()
    yield "## In SQL, as the application\n"
    yield (
        "Sent through psql's protocol in one transaction, with the organisation's own tenant set."
        " *no effect*: the statements are let through, and do not do what they were meant to.\n"
    )
    for title, of_slice in rules.BY_SLICE.items():
        yield f"### {title}\n"
        yield from _table(
            ("attack", "as", "refused by"),
            ((a.what, a.role.removeprefix("sofinance_"), _name(a.refused_by)) for a in of_slice),
        )
    yield "## Over HTTP\n"
    yield from _table(
        ("attack", "as", "answer"),
        ((r.what, r.role, f"{r.refused[0]} `{r.refused[1]}`") for r in over_http.REQUESTS),
    )
    yield "## With credentials, bodies and addresses\n"
    yield from _table(
        ("attempt", "answer", "test"),
        ((r.what, r.answer, f"`tests/{r.test}`") for r in credentials.CREDENTIALS),
    )
    yield "## Across organisations, branches and roles\n"
    yield (
        f"Each of {len(SAMPLES)} endpoints, with each row that a request names swapped for another"
        " organisation's, another branch's, and one that there is nowhere: the answers are the"
        " same to the byte. As each of the five roles and with an API key: who lacks the"
        " permission gets 403. Each policy, condition, branch rule and permission is then taken"
        " out, one at a time, and the matrix fails. See [ADR 0020](adr/0020-the-matrix.md).\n"
    )
    yield "## To become more than the role is\n"
    yield "As the application and as the read-only role; each is refused for want of privilege.\n"
    yield "; ".join(grid.POWERS) + ".\n"
    yield "## By the owner, found by `sofinance verify`\n"
    yield from _table(
        ("corruption", "as", "found by"),
        (
            (c.what, c.role.removeprefix("sofinance_"), ", ".join(f"`{f}`" for f in c.found_by))
            for c in owned
        ),
    )


def _grid() -> Iterator[str]:
    yield "## Every table, every verb\n"
    yield (
        "The verbs that each role may use on rows of its own organisation; every other verb is"
        " refused for want of privilege. Rows of another organisation are not seen, changed or"
        " deleted, and one cannot be inserted (row security). Without an organisation in the"
        " transaction every table errors. Rows of the tables marked *final* cannot be changed,"
        " deleted or truncated by anybody, the owner and superusers included, while the named"
        " trigger stands.\n"
    )
    yield from _table(
        ("table", "application", "read-only", "owner, superuser"),
        (
            (
                f"`{table}`",
                ", ".join(rights.app),
                "SELECT" if rights.readonly else "nothing",
                f"final: `{table}_is_final`" if rights.is_final else "",
            )
            for table, rights in grid.TENANT_TABLES.items()
        ),
    )
    for table, why in grid.OTHER_TABLES.items():
        yield f"* `{table}` belongs to no organisation: {why}."
    yield ""


def _cells() -> int:
    """Count the grid: own, others' and nobody's rows for the application, all for read-only."""
    return len(grid.TENANT_TABLES) * len(grid.VERBS) * 4


def _name(refused_by: str) -> str:
    return f"`{refused_by}`" if "_" in refused_by else f"*{refused_by}*"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
