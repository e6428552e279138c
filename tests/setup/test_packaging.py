"""What is shipped, and that what is generated is current."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sofinance.infra import embedded
from tools import generate

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_is_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "sofinance").rglob("__init__.py")
    }
    assert listed == there | {"sofinance.sql"}


def test_every_file_beside_the_code_is_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    shipped = project["tool"]["setuptools"]["package-data"]
    scripts = list((ROOT / "sofinance").rglob("*.lua"))
    assert scripts
    for script in scripts:
        package = ".".join(script.parent.relative_to(ROOT).parts)
        assert any(script.match(pattern) for pattern in shipped[package])


@pytest.mark.empty_database
def test_generated_files_are_current(superuser_dsn, owner_dsn, dsn):
    """Whatever the version of PostgreSQL that the suite runs on."""
    urls = generate.Urls(superuser_dsn, owner_dsn, dsn, embedded.installed_programs())
    stale = generate.stale(generate.generated(urls))
    assert not stale, "\n".join(stale)
