"""The query loader: what is a parameter, what is refused, and what a literal may be."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sofinance.infra import sql
from sofinance.infra.sql import NotFoundError, Query

if TYPE_CHECKING:
    from pathlib import Path


class Recorder:
    """A connection that remembers what it was sent and answers what it was told."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.sent: list[tuple[Any, ...]] = []

    async def fetch(self, *sent: Any) -> Any:
        """Answer, whatever is asked."""
        self.sent.append(sent)
        return self.answer

    fetchrow = fetchval = execute = fetch


def query(text: str, mode: str = "one") -> Query:
    return Query("file.name", mode, text)


@pytest.mark.parametrize(
    ("text", "sql_text", "params"),
    [
        ("select :a, :b, :a;", "select $1, $2, $1", ["a", "b"]),
        ("select :a::bigint[]", "select $1::bigint[]", ["a"]),
        ("select now()::date, x[1:n]", "select now()::date, x[1:n]", []),
        ("select ':a', ':it''s :b', :c", "select ':a', ':it''s :b', $1", ["c"]),
        (r"select e'\':a', E'it\\', :c", r"select e'\':a', E'it\\', $1", ["c"]),
        ('select ":a", :b', 'select ":a", $1', ["b"]),
        ("select 1 -- :a\n, :b", "select 1 -- :a\n, $1", ["b"]),
        ("select 1 /* :a\n:x */, :b", "select 1 /* :a\n:x */, $1", ["b"]),
        ("select $$ :a $$, $x$ :b $y$ $x$, :c", "select $$ :a $$, $x$ :b $y$ $x$, $1", ["c"]),
        ("select f(a := 1, b => :b)", "select f(a := 1, b => $1)", ["b"]),
    ],
)
def test_parameters_are_found_where_sql_has_values(
    text: str, sql_text: str, params: list[str]
) -> None:
    found = query(text)
    assert found.sql == f"/* file.name */ {sql_text}"
    assert found.params == params


async def test_each_mode_returns_its_kind() -> None:
    row = {"id": 1}
    assert await query("select 1", "one")(Recorder(row)) == row
    assert await query("select 1", "maybe")(Recorder(None)) is None
    assert await query("select 1", "many")(Recorder([row])) == [row]
    assert await query("select 1", "value")(Recorder(7)) == 7
    assert await query("update x", "exec")(Recorder("UPDATE 3")) == 3
    assert await query("begin", "exec")(Recorder("BEGIN")) == 0
    with pytest.raises(NotFoundError, match=r"file\.name"):
        await query("select 1", "one")(Recorder(None))


async def test_values_are_passed_in_the_order_of_their_first_use() -> None:
    conn = Recorder({"id": 1})
    await query("select :b, :a, :b")(conn, a=1, b=2)
    assert conn.sent == [("/* file.name */ select $1, $2, $1", 2, 1)]


@pytest.mark.parametrize("args", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 3}])
async def test_arguments_are_exactly_the_parameters(args: dict[str, int]) -> None:
    conn = Recorder()
    with pytest.raises(TypeError, match=r"file\.name takes \['a', 'b'\]"):
        await query("select :a, :b")(conn, **args)
    with pytest.raises(TypeError, match=r"file\.name takes \['a', 'b'\]"):
        query("select :a, :b").literal(**args)
    assert conn.sent == []


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (7, "7"),
        (-7, "(-7)"),
        (0, "0"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        (b"", r"'\x'"),
        (b"it's\\", r"'\x697427735c'"),
    ],
)
def test_a_literal_is_a_value_that_carries_no_sql(value: Any, written: str) -> None:
    assert query("select 1-:a").literal(a=value) == f"/* file.name */ select 1-{written}"


class Sly(int):
    """A number with its own idea of how it is written."""

    def __str__(self) -> str:
        return "0; drop table sale"


class Level(IntEnum):
    """An enumeration is no plain number either."""

    LOW = 1


@pytest.mark.parametrize("value", ["1", 1.0, Sly(1), Level.LOW, [1], bytearray(b"x")])
def test_a_literal_of_any_other_type_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a literal is an int, bool, bytes or None"):
        query("select :a").literal(a=value)


def test_a_literal_keeps_per_cent_signs_and_drops_comments() -> None:
    text = "-- What 100 % is for: ':b'.\nselect '5 %s -- no comment', /* :c */ :a % 2 -- last"
    assert query(text).literal(a=5) == "/* file.name */ select '5 %s -- no comment',  5 % 2"


@given(st.binary(), st.integers())
def test_no_bytes_and_no_number_end_a_literal(data: bytes, number: int) -> None:
    written = query("select :a, :b").literal(a=data, b=number)
    assert written.count("'") == 2
    assert ";" not in written
    assert "--" not in written


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("select 1;\n-- name: a :one\nselect 1", "SQL before the first"),
        ("-- name: a :some\nselect 1", "is not `-- name: verb_noun :mode`"),
        ("-- name: a\nselect 1", "is not `-- name: verb_noun :mode`"),
        ("-- name: A :one\nselect 1", "is not `-- name: verb_noun :mode`"),
        (" -- name: a :one\nselect 1", "SQL before|is not `-- name"),
        ("-- name: a :one\nselect 1\n-- name: a :one\nselect 2", "a is defined twice"),
        ("-- name: a :one\n-- just a comment\n", "a has no SQL"),
    ],
)
def test_a_file_with_a_fault_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "journal.sql"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=rf"journal\.sql: .*({complaint})"):
        sql.load(path)


def test_a_file_is_its_blocks_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "toys.sql").write_text(
        "-- About toys; a name: is not a heading.\n\n-- name: get_toy :one\n-- One.\nselect :id;\n"
        "\n-- name: drop_toy :exec\ndelete from toy;\n",
        "utf-8",
    )
    found = sql.load_all(tmp_path)
    assert set(found) == {"toys"}
    assert found["toys"].get_toy.key == "toys.get_toy"
    assert found["toys"].get_toy.sql == "/* toys.get_toy */ -- One.\nselect $1"
    assert found["toys"].drop_toy.mode == "exec"


def test_missing_query_files_are_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no query files"):
        sql.load_all(tmp_path / "nowhere")
