"""Runbooks: one per alert, with five sections, and nothing in them that does not exist."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from sofinance import cli
from sofinance.app import find_endpoints
from sofinance.config import FIELDS
from tests.ops import promql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import Psql

DOCS = promql.ROOT / "docs"
RUNBOOKS = sorted(set((DOCS / "runbooks").glob("*.md")) - {DOCS / "runbooks" / "README.md"})
TEMPLATES = sorted((DOCS / "templates").glob("*.md"))
PAGES = [*RUNBOOKS, *TEMPLATES, DOCS / "runbooks" / "README.md"]
SECTIONS = ["Description", "Causes", "Investigation", "Resolution", "Escalation"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(sofinance [a-z][^`]*)`")
ENDPOINT = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]*)`")
SETTING = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`")
LINK = re.compile(r"\]\(([^)#]+)\)")
# Of other programs.
FOREIGN_SETTINGS = {"WEB_CONCURRENCY"}
OPERATIONAL = ("/livez", "/readyz", "/health")


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Yield every block of a language with its page."""
    for page in PAGES:
        for found, text in BLOCK.findall(page.read_text("utf-8")):
            assert found in {"sh", "sql", "promql"}, page
            if found == language:
                yield page, text


def commands() -> list[str]:
    """Return every command line of ours in all pages, without placeholders."""
    found = {line for _, text in blocks("sh") for line in text.splitlines()}
    for page in PAGES:
        found |= set(INLINE.findall(page.read_text("utf-8")))
    return sorted(line.replace(" N", " 1").replace(" NAME", " verify-books") for line in found)


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    named = {alert["annotations"]["runbook_url"] for alert in promql.alerts().values()}
    assert named == {str(page.relative_to(promql.ROOT)) for page in RUNBOOKS}


@pytest.mark.parametrize("name", sorted(promql.alerts()))
def test_a_runbook_is_named_as_its_alert_and_has_five_sections(name: str):
    url = promql.alerts()[name]["annotations"]["runbook_url"]
    assert url == f"docs/runbooks/{re.sub('(?<!^)(?=[A-Z])', '-', name).lower()}.md"
    text = (promql.ROOT / url).read_text("utf-8")
    head, *sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert head == f"# {name}\n\n"
    assert sections[::2] == SECTIONS
    assert all(section.strip() for section in sections[1::2])


def test_the_index_has_every_runbook_under_its_severity():
    text = (DOCS / "runbooks" / "README.md").read_text("utf-8")
    _, pages, tickets, _ = re.split(r"^## .+\n", text, flags=re.MULTILINE)
    for name, alert in promql.alerts().items():
        part = pages if alert["labels"]["severity"] == "page" else tickets
        assert f"| [{name}](" in part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("line", commands())
def test_a_command_exists(line: str):
    words = shlex.split(line)
    if words[0] == "curl":
        assert words[-1].startswith("http://127.0.0.1:8000/")
        assert words[-1].removeprefix("http://127.0.0.1:8000") in OPERATIONAL
    else:
        assert words[0] == "sofinance"
        assert callable(cli.parser().parse_args(words[1:]).run)


def test_endpoints_and_settings_exist():
    there = {(one.method, re.sub(r"\{\w+\}", "{id}", one.path)) for one in find_endpoints()}
    assert {("GET", path) for path in OPERATIONAL} <= there
    for page in PAGES:
        text = page.read_text("utf-8")
        assert set(ENDPOINT.findall(text)) <= there, page
        named = {name for name in SETTING.findall(text) if name not in FOREIGN_SETTINGS}
        assert named <= {name.upper() for name in FIELDS}, page


@pytest.mark.parametrize(
    "expression", [part.strip() for _, text in blocks("promql") for part in text.split("\n\n")]
)
def test_a_question_to_prometheus_reads_what_is_exported(expression: str):
    assert promql.complaints(expression) == []


@pytest.mark.parametrize("statement", sorted({text for _, text in blocks("sql")}))
def test_a_query_runs_as_the_role_that_reads_everything(psql: Psql, statement: str):
    assert isinstance(psql(statement, role="sofinance_backup"), list)
