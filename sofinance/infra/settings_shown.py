"""Settings as they may be shown: of a secret only that it is set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sofinance.infra.masking import SECRET, mask_url

if TYPE_CHECKING:
    from sofinance.config import Settings


def rows(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting that a process runs with: name, value as text, whether the default."""
    shown = []
    for declared in dataclasses.fields(settings):
        value = getattr(settings, declared.name)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if declared.metadata["secret"] and text:
            text = SECRET
        shown.append(
            {
                "name": declared.name.upper(),
                "value": mask_url(text),
                "is_default": value == declared.default,
            }
        )
    return shown
