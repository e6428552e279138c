"""Write .env.example from the settings' own declarations."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from sofinance.config import FIELDS

if TYPE_CHECKING:
    from tools.generate import Urls

HEADER = """\
# Every setting, with its default; generated from sofinance/config.py by `make generate`.
# A line that is commented out shows the default. A secret may also stand in a file of its own,
# whose path is in the variable with _FILE behind its name. SOFINANCE_ENV_FILE names a file such as
# this one, SOFINANCE_CONFIG_DIR a directory of YAML files: docs/configuration.md.
"""


def generate(_urls: Urls) -> dict[Path, str]:
    """Return the example of an environment; it needs no database."""
    parts = [HEADER]
    for name, declared in FIELDS.items():
        rule = declared.metadata
        notes = [rule["why"]]
        if rule["choices"]:
            notes.append(f"One of {', '.join(rule['choices'])}.")
        if rule["low"] is not None:
            unit = f" {rule['unit']}" if rule["unit"] else ""
            notes.append(f"From {rule['low']} to {rule['high']}{unit}.")
        if rule["also"]:
            notes.append(f"{', '.join(rule['also'])} is read too.")
        if rule["required"]:
            notes.append("Required.")
        if rule["required_in"]:
            notes.append(f"Required in {rule['required_in']}.")
        default = declared.default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        comment = textwrap.fill(
            " ".join(notes), 98, initial_indent="# ", subsequent_indent="# ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        mark = "" if rule["required"] else "# "
        parts.append(f"{comment}\n{mark}{name.upper()}={rule['example'] or shown}\n")
    return {Path(".env.example"): "\n".join(parts)}
