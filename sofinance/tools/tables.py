"""Rows on a terminal, or as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sofinance.infra.times import iso

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence


def tell(args: argparse.Namespace, rows: Iterable[Any], columns: Sequence[str]) -> None:
    """Print rows as a table or as JSON."""
    if args.json:
        print(json.dumps([{**row} for row in rows], default=iso, indent=2))
        return
    table = [[column.replace("_", " ") for column in columns]]
    table += [[word(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip())


def word(value: Any) -> str:
    """Write a cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return iso(value) if hasattr(value, "astimezone") else str(value)
