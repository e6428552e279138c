"""Which settings need packages that not everybody installs; told with all other problems at start.

Imported by config.py, so it imports nothing that reads the environment.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# By setting: the module that it needs, and the extra that brings it.
NEEDED = {
    "otel_exporter_otlp_endpoint": ("opentelemetry.proto", "telemetry"),
    "sentry_dsn": ("sentry_sdk", "sentry"),
}


def lacking(value: Callable[[str], Any]) -> Iterable[str]:
    """Yield what is missing for what is set."""
    for name, (module, extra) in NEEDED.items():
        if value(name) and not is_installed(module):
            yield f"{name.upper()} needs a package more: pip install 'sofinance[{extra}]'."


def is_installed(module: str) -> bool:
    """Say whether a module can be imported, without doing so."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
