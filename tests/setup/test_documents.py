"""The documents name everything that is there, once, and lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sofinance.cli import TOOLS
from sofinance.jobs.tasks import JOBS
from tests.ops import promql

# Of pages, which are the same everywhere.
pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "sql" / "README.md"})


def section(path: Path, title: str) -> str:
    """Return what stands under a heading."""
    return path.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (`[^|]+?) \|", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text("utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs


def test_the_readme_leads_to_every_page():
    read = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in read] == []


def test_the_index_of_decisions_has_all_of_them():
    records = sorted(path.name for path in (DOCS / "adr").glob("0*.md"))
    assert re.findall(r"\]\((0.+?)\)", (DOCS / "adr" / "README.md").read_text("utf-8")) == records


def test_every_command_is_told_and_none_twice():
    told = section(DOCS / "start.md", "To run it")
    assert [name for name in TOOLS if not re.search(rf"`(sofinance )?{name}\b", told)] == []
    begins = [" ".join(cell.strip("`").split("`")[0].split()[:3]) for cell in first_cells(told)]
    assert len(set(begins)) == len(begins) > len(TOOLS) / 2


def test_every_job_is_told_once():
    told = first_cells(section(DOCS / "operations.md", "Jobs"))
    assert sorted(told) == sorted(f"`{job.name}`" for job in JOBS)


def test_every_alert_is_told_under_its_severity():
    lines = section(DOCS / "operations.md", "Alerts").splitlines()
    rows = [line.split("|") for line in lines if line.startswith("|")]
    for name, alert in promql.alerts().items():
        column = 2 if alert["labels"]["severity"] == "page" else 3
        assert sum(bool(re.search(rf"\b{name}\b", row[column])) for row in rows) == 1, name
