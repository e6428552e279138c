"""Compare the guards of a database with those of a release, whatever the parentheses.

A rule that went through pg_dump and back, or through pg_upgrade, has other parentheses:
``(a and b) and (c and d)`` comes back as ``a and b and (c and d)``. Both are the same rule; a
database that was restored must not look as if somebody had changed it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]|[^\s()'"]+""")
ABSENT = "absent"
WEAKER = {"AND": frozenset({"OR"}), "OR": frozenset[str]()}


def canonical(definition: str) -> Any:
    """Return the definition as nested tuples, without parentheses that change nothing."""
    stack: list[list[Any]] = [[]]
    for token in TOKEN.findall(definition):
        if token == "(":  # noqa: S105 - a parenthesis
            stack.append([])
        elif token == ")" and len(stack) > 1:  # noqa: S105
            group = stack.pop()
            stack[-1].append(_flat(group))
        else:
            stack[-1].append(token)
    while len(stack) > 1:  # a definition that is no whole one equals only itself
        group = stack.pop()
        stack[-1] += ["(", *group]
    return _flat(stack[0])


def _flat(items: list[Any]) -> tuple[Any, ...]:
    """Return a group with the chains of AND, or of OR, that are its operands put in its own."""
    while len(items) == 1 and isinstance(items[0], tuple):
        items = [*items[0]]
    for word, weaker in WEAKER.items():
        if word in items and not weaker & {each for each in items if isinstance(each, str)}:
            return tuple(_spliced(items, word))
    return tuple(items)


def _spliced(items: list[Any], word: str) -> list[Any]:
    out: list[Any] = []
    for place, item in enumerate(items):
        before = items[place - 1] if place else word
        after = items[place + 1] if place + 1 < len(items) else word
        is_operand = isinstance(item, tuple) and before == after == word
        words = {each for each in item if isinstance(each, str)} if is_operand else set()
        if is_operand and word in words and not words & WEAKER[word]:
            out += item
        else:
            out.append(item)
    return out


def differences(
    expected: dict[str, dict[str, str]], found: dict[str, dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield each guard that is missing or changed, and each door that was added to our tables.

    A constraint or an index more does no harm; a policy, a right, a trigger or a function more
    may undo what the others do.
    """
    tables = set(expected["row security"])
    for kind, guards in expected.items():
        there = found.get(kind, {})
        for name, definition in guards.items():
            # Parentheses may differ after pg_dump and back, which is no change.
            found_one = there.get(name)
            if found_one != definition and (
                found_one is None or canonical(found_one) != canonical(definition)
            ):
                yield {
                    "guard": kind, "name": name, "is": found_one or "missing",
                    "should_be": definition,
                }  # fmt: skip
    for kind in ("trigger", "policy", "right", "function"):
        for name, definition in found.get(kind, {}).items():
            of_ours = kind == "function" or re.split(r"[. ]", name)[0] in tables
            if of_ours and name not in expected[kind]:
                yield {"guard": kind, "name": name, "is": definition, "should_be": ABSENT}


def may_be_newer(difference: dict[str, Any], columns: Callable[[str], set[str]]) -> bool:
    """Say whether a newer release may have made a difference: what this one knows, it left alone.

    A switched-off foreign key is no addition. Of rights it gives our roles those to new columns.
    """
    name, there, ours = difference["name"], difference["is"], difference["should_be"]
    if difference["guard"] != "right":
        return bool(ours == ABSENT) and "DISABLED" not in there
    if " (columns) sofinance_" not in name:
        return False
    known = {*ours.split(", ")} - {ABSENT}
    more = {right.partition(" ")[0] for right in {*there.split(", ")} - known}
    return known <= {*there.split(", ")} and more.isdisjoint(columns(name.split()[0]))
