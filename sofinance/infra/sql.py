"""Named queries: each ``-- name:`` block of sql/queries/*.sql becomes an async function.

A statement that travels in a simple-protocol message (several statements, one round trip, no
parameters) is rendered by `Query.literal`, which takes values that cannot carry SQL and no others.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import asyncpg

from sofinance.infra import metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

# A query that takes longer is named in the log.
SLOW_QUERY_S = 1.0
PACKAGE_DIR = Path(__file__).resolve().parent.parent
# A wheel carries sql/ inside the package; a source tree and an editable install have it beside.
SQL_DIR = next(
    (path for path in (PACKAGE_DIR / "sql", PACKAGE_DIR.parent / "sql") if path.is_dir()),
    PACKAGE_DIR / "sql",
)
QUERIES_DIR = SQL_DIR / "queries"

BLOCK = re.compile(r"^-- name: ([a-z][a-z0-9_]*) :(one|maybe|many|value|exec)$", re.MULTILINE)
BLOCK_LIKE = re.compile(r"^[ \t]*--[ \t]*name[ \t]*:.*$", re.MULTILINE)
TOKEN = re.compile(
    r"""  (?<!\w)[eE]'(?:[^'\\]|\\.|'')*'   # string with escapes
        | '(?:[^']|'')*'                     # string
        | "(?:[^"]|"")*"                   # quoted identifier
        | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$  # dollar-quoted body
        | --[^\n]* | /\*.*?\*/             # comments
        | ::                               # cast
        | (?<!\w):(?P<param>[a-z_]\w*)     # :param, but not the bound in [1:n]
    """,
    re.VERBOSE | re.DOTALL,
)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class Connection(Protocol):
    """What a query needs of a connection: asyncpg's, alone or from a pool."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return all rows."""

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Return the first row, or None."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first column of the first row, or None."""

    async def execute(self, query: str, *args: Any) -> str:
        """Return the command tag; without arguments the query may be several statements."""


class NotFoundError(LookupError):
    """A ``:one`` query found no row."""


if TYPE_CHECKING:

    class Row:
        """A row whose columns read as attributes; queries.pyi declares those of each query."""

        def __getitem__(self, column: str | int) -> Any:
            """Return a column by its name or its place."""

        def get(self, column: str, default: Any = None) -> Any:
            """Return a column, or the default when there is none of this name."""

        def items(self) -> Iterator[tuple[str, Any]]:
            """Return names and values."""

        def keys(self) -> Iterator[str]:
            """Return the names."""

        def values(self) -> Iterator[Any]:
            """Return the values."""

        def __len__(self) -> int: ...

else:

    class Row(asyncpg.Record):
        """A row whose columns read as attributes: ``row.total``."""

        __slots__ = ()

        def __getattr__(self, name: str) -> Any:
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None


class Block(NamedTuple):
    """One ``-- name: find_this :maybe`` block of a query file."""

    name: str
    mode: str
    text: str


class Statement:
    """The text of a named query, in the two forms in which it can be sent."""

    __slots__ = ("_template", "key", "mode", "params", "sql", "text")

    def __init__(self, key: str, mode: str, text: str) -> None:
        self.key, self.mode, self.text = key, mode, text
        self.params: list[str] = []
        statement = text.strip().rstrip(";").rstrip()
        # The leading comment names the query in pg_stat_activity and the server log.
        self.sql = f"/* {key} */ " + TOKEN.sub(self._number, statement)
        self._template = f"/* {key} */ " + _template(statement)

    def _number(self, match: re.Match[str]) -> str:
        name = match["param"]
        if name is None:
            return match[0]
        if name not in self.params:
            self.params.append(name)
        return f"${self.params.index(name) + 1}"

    def _values(self, args: dict[str, Any]) -> list[Any]:
        params = self.params
        if len(args) == len(params):
            try:
                return [args[name] for name in params]
            except KeyError:
                pass  # as many arguments, under other names: told below
        raise TypeError(f"{self.key} takes {sorted(params)}, got {sorted(args)}")

    def literal(self, **args: int | bytes | bool | None) -> str:
        r"""Render the statement with its values in it, for a simple-protocol message.

        Only int, bool, bytes and None are taken: none of them can carry a quote. Text travels as
        its UTF-8 bytes, which the query reads with ``convert_from(:memo, 'utf8')``. A bytes literal
        is ``'\x...'``: the pool refuses a server whose standard_conforming_strings is off.
        """
        if len(args) == len(self.params):
            try:
                return self._template % {
                    name: LITERALS[type(value)](value) for name, value in args.items()
                }
            except KeyError:
                pass  # another name, or another type: told below
        self._values(args)
        kinds = {name: type(value).__name__ for name, value in args.items()}
        raise TypeError(f"{self.key}: a literal is an int, bool, bytes or None, not {kinds}")


class Query(Statement):
    """One named query: call it with a connection and exactly its parameters."""

    __slots__ = ()

    async def __call__(self, conn: Connection, /, **args: Any) -> Any:
        """Run it: a row, a row or None, a list, a value, or the number of rows touched."""
        values = self._values(args)
        started_s = perf_counter()
        try:
            result, row_count = await self._run(conn, values)
        except BaseException:
            self._measure(perf_counter() - started_s, None)
            raise
        self._measure(perf_counter() - started_s, row_count)
        if result is None and self.mode == "one":
            raise NotFoundError(self.key)
        return result

    def _measure(self, duration_s: float, row_count: int | None) -> None:
        metrics.observe_query(self.key, duration_s, row_count)
        if tracing.RECORDER.is_on:
            tracing.note_query(self.key, duration_s, row_count)
        if duration_s > SLOW_QUERY_S:
            told = {"query": self.key, "duration_ms": round(duration_s * 1000), "rows": row_count}
            log.warning("slow query", extra={"metadata": told})

    async def _run(self, conn: Connection, values: list[Any]) -> tuple[Any, int]:
        """Send it; returns what it is to return, and how many rows that is."""
        mode = self.mode
        if mode == "many":
            rows = await conn.fetch(self.sql, *values)
            return rows, len(rows)
        if mode == "value":
            return await conn.fetchval(self.sql, *values), 1
        if mode == "exec":
            # A utility statement's tag ("BEGIN") carries no count.
            tag = (await conn.execute(self.sql, *values)).rpartition(" ")[2]
            count = int(tag) if tag.isdigit() else 0
            return count, count
        row = await conn.fetchrow(self.sql, *values)
        return row, 0 if row is None else 1


# By the exact type, since a subclass could bring its own idea of str(). A negative number stands in
# parentheses, or `1-:x` would become the comment `1--5`.
LITERALS: dict[type, Callable[[Any], str]] = {
    int: lambda value: str(value) if value >= 0 else f"({value})",
    bool: lambda value: "true" if value else "false",
    bytes: lambda value: f"'\\x{value.hex()}'",
    type(None): lambda _: "null",
}


def _template(statement: str) -> str:
    """Turn ``:name`` into ``%(name)s``, drop comments, and keep every other per cent sign."""
    parts: list[str] = []
    end = 0
    for match in TOKEN.finditer(statement):
        name = match["param"]
        if name is not None or COMMENT.fullmatch(match[0]):
            parts.append(statement[end : match.start()].replace("%", "%%"))
            parts.append("" if name is None else f"%({name})s")
            end = match.end()
    return ("".join(parts) + statement[end:].replace("%", "%%")).strip()


def split(text: str, name: str = "the query file") -> Iterator[Block]:
    """Cut the text of a query file into its named blocks.

    Raises ValueError, naming the file, for SQL outside a block, a heading that is not understood,
    an empty block and a name defined twice (which is never an override).
    """
    for like in BLOCK_LIKE.finditer(text):
        if not BLOCK.fullmatch(like[0]):
            raise ValueError(
                f"{name}: {like[0].strip()!r} is not `-- name: verb_noun :mode`"
                " with a mode of one, maybe, many, value or exec"
            )
    header, *parts = BLOCK.split(text)
    if COMMENT.sub("", header).strip():
        raise ValueError(f"{name}: there is SQL before the first `-- name:` line")
    seen: set[str] = set()
    for query, mode, block in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if query in seen:
            raise ValueError(f"{name}: {query} is defined twice")
        if not COMMENT.sub("", block).strip():
            raise ValueError(f"{name}: {query} has no SQL")
        seen.add(query)
        yield Block(query, mode, block)


def load(path: Path) -> dict[str, Query]:
    """Read one query file into its queries by name."""
    text = path.read_text("utf-8")
    return {
        block.name: Query(f"{path.stem}.{block.name}", block.mode, block.text)
        for block in split(text, path.name)
    }


def load_all(directory: Path = QUERIES_DIR) -> dict[str, SimpleNamespace]:
    """Read every query file: one namespace per file, ``q.journal.post_entry(conn, ...)``."""
    if not directory.is_dir():
        raise ValueError(f"there are no query files: {directory} does not exist")
    return {path.stem: SimpleNamespace(**load(path)) for path in sorted(directory.glob("*.sql"))}
