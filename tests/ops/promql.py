"""What rules, dashboards and runbooks ask of Prometheus, and what the service exports."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import yaml
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from sofinance.infra import metrics, outbox_metrics, told

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
DASHBOARDS = ROOT / "ops" / "grafana"

# Prometheus's own: what it says of each target and of each alert.
OF_PROMETHEUS = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity", "job", "instance"},
}
# Of node_exporter and the blackbox exporter, as their own pages say: what rules/machines.yml reads.
OF_OTHERS = {
    "node_cpu_seconds_total": {"cpu", "mode"},
    "node_memory_MemAvailable_bytes": set[str](),
    "node_memory_MemTotal_bytes": set[str](),
    "node_filesystem_avail_bytes": {"device", "fstype", "mountpoint"},
    "node_filesystem_size_bytes": {"device", "fstype", "mountpoint"},
    "probe_ssl_earliest_cert_expiry": set[str](),
}
MACHINES = "machines.yml"
TARGET_LABELS = {"job", "instance"}
ARCHIVER = SimpleNamespace(is_archiving=True, last_archived_at=None, failed_count=0)
WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
FUNCTIONS_OF_COUNTERS = {"rate", "irate", "increase"}

STRING = re.compile(r'"(?:\\.|[^"\\])*"')
RANGE = re.compile(r"\[[^\]]*\]")
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^}]*)\}")
IDENTIFIER = re.compile(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)(?!\s*\()(?![\w:])")
COUNTED = re.compile(r"\b(rate|irate|increase)\(\s*([\w:]+)")


@dataclass(frozen=True)
class Series:
    """One name that a scrape brings: what kind of number it is, and its labels."""

    kind: str
    labels: frozenset[str]


def program(name: str) -> str:
    """Return a program of Prometheus's; without it nobody tries the rules, so the test fails."""
    found = shutil.which(name)
    assert found, f"{name} is not installed; on Debian and Ubuntu: apt-get install prometheus"
    return found


def exported() -> dict[str, Series]:
    """Return every name that the service exports, under gunicorn's many workers too."""
    found: dict[str, Series] = {}
    for metric in vars(metrics).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        name, labels = metric._name, frozenset(metric._labelnames)  # noqa: SLF001 - nothing public tells
        if isinstance(metric, Counter):
            found[f"{name}_total"] = Series("counter", labels)
        elif isinstance(metric, Histogram):
            found[f"{name}_bucket"] = Series("counter", labels | {"le"})
            found[f"{name}_sum"] = found[f"{name}_count"] = Series("counter", labels)
        else:
            assert isinstance(metric, Gauge)
            found[name] = Series("gauge", labels)
    # Jobs are told from the database, at each scrape.
    for family in told.of_jobs((), 1):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        # `job` is Prometheus's own label, so that the metrics' arrives under another name.
        own = frozenset(family._labelnames)  # noqa: SLF001 - ditto
        renamed = frozenset({"exported_job"}) if "job" in own else frozenset()
        found[name] = Series(family.type, own - {"job"} | renamed)
    # So are backups, and PostgreSQL's own log.
    for family in (*told.of_backups((), ()), *told.of_archiver(ARCHIVER)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Series(family.type, frozenset(family._labelnames))  # noqa: SLF001 - ditto
    # So is what waits in the outbox.
    for family in outbox_metrics.families(defaultdict(int), [], now=datetime.now(UTC)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = Series(family.type, frozenset(family._labelnames))  # noqa: SLF001 - ditto
    for family in (*told.of_business(()), *told.of_integrity(())):
        found[family.name] = Series(family.type, frozenset(family._labelnames))  # noqa: SLF001
    return found


def rule_files() -> list[Path]:
    """Return the files of rules."""
    return sorted((PROMETHEUS / "rules").glob("*.yml"))


def rules() -> Iterator[dict[str, Any]]:
    """Yield every rule."""
    for path in rule_files():
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alert by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def of_the_service() -> set[str]:
    """Return the alerts that the service itself can cause; the others are machines'."""
    path = PROMETHEUS / "rules" / MACHINES
    groups = yaml.safe_load(path.read_text("utf-8"))["groups"]
    return alerts().keys() - {rule["alert"] for group in groups for rule in group["rules"]}


def recorded() -> dict[str, set[str]]:
    """Return the names that rules record, with the labels they are grouped by."""
    return {
        rule["record"]: {
            label.strip() for _, labels in GROUPING.findall(rule["expr"])
            for label in labels.split(",")
        }
        for rule in rules() if "record" in rule
    }  # fmt: skip


def dashboards() -> dict[str, Any]:
    """Return every dashboard by its file's name."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in DASHBOARDS.glob("*.json")}


def names_in(expression: str) -> set[str]:
    """Return the names of series that an expression reads."""
    bare = RANGE.sub("", STRING.sub('""', expression))
    bare = GROUPING.sub("", SELECTOR.sub(lambda found: f" {found[1] or ''} ", bare))
    return {name for name in IDENTIFIER.findall(bare) if name.lower() not in WORDS}


def matchers_in(expression: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the label of every matcher."""
    for name, inner in SELECTOR.findall(STRING.sub('""', expression)):
        for matcher in filter(None, (part.strip() for part in inner.split(","))):
            yield name, re.split(r"[=!]", matcher)[0].strip()


def complaints(expression: str) -> list[str]:
    """Return what is wrong with an expression: names, labels, or rates of what does not grow."""
    known = exported()
    labels_of = {name: series.labels for name, series in known.items()}
    labels_of |= OF_PROMETHEUS | OF_OTHERS | recorded()
    names = names_in(expression)
    said = [f"nothing exports {name}" for name in names - labels_of.keys()]
    if not names:
        said.append("it reads nothing")
    for name, label in matchers_in(expression):
        if label not in set(labels_of.get(name, ())) | TARGET_LABELS:
            said.append(f"{name} has no label {label}")
    there = set().union(*(labels_of.get(name, ()) for name in names), TARGET_LABELS)
    asked = {
        part.strip() for _, labels in GROUPING.findall(expression) for part in labels.split(",")
    }
    said += [f"nothing in it has the label {label}" for label in asked - there - {""}]
    for function, name in COUNTED.findall(expression):
        if name in known and known[name].kind != "counter":
            said.append(f"{function}() of {name}, which is a {known[name].kind}")
    return said
