"""Compare what PostgreSQL writes of a rule, whatever the parentheses.

A rule that went through pg_dump and back, or through pg_upgrade, has other parentheses:
``(a and b) and (c and d)`` comes back as ``a and b and (c and d)``. Both are the same rule; a
database that was restored must not look as if somebody had changed it.
"""

from __future__ import annotations

import re
from typing import Any

TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|[()]|[^\s()'"]+""")
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
