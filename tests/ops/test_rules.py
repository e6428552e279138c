"""The rules of Prometheus: sound, over what is exported, each tried both ways."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.ops import promql

# Of files that are shipped, and of no Python and no PostgreSQL.
pytestmark = pytest.mark.once

SEVERITIES = {"page", "ticket"}
RULE_TESTS = sorted((promql.PROMETHEUS / "tests").glob("*.yml"))


def promtool(*args: str) -> str:
    """Run promtool; returns what it says."""
    ran = subprocess.run(
        [promql.program("promtool"), *args],
        cwd=promql.PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_promtool_accepts_the_configuration_and_the_rules():
    said = promtool("check", "config", "prometheus.yml")
    assert f"{len(promql.rule_files())} rule files found" in said
    assert "is valid prometheus config" in said


def test_promtool_runs_the_rule_tests():
    said = promtool("test", "rules", *map(str, RULE_TESTS))
    assert said.count("SUCCESS") == len(RULE_TESTS) == len(promql.rule_files())


@pytest.mark.parametrize("name", sorted(promql.alerts()))
def test_an_alert_fires_in_one_rule_test_and_not_in_another(name: str):
    fires = rests = 0
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            for asked in case.get("alert_rule_test", ()):
                fires += asked["alertname"] == name and bool(asked.get("exp_alerts"))
            for asked in case.get("promql_expr_test", ()):
                found = re.search(r'ALERTS\{alertname=(~?)"([^"]+)"', asked["expr"])
                assert found is not None, asked
                samples = [one["labels"] for one in asked["exp_samples"]]
                fires += any(f'alertname="{name}", alertstate="firing"' in one for one in samples)
                asks_for_it = re.fullmatch(found[2], name) if found[1] else found[2] == name
                rests += bool(asks_for_it) and not any(name in one for one in samples)
    assert fires >= 1
    assert rests >= 1


@pytest.mark.parametrize("name", sorted(promql.alerts()))
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(name: str):
    alert = promql.alerts()[name]
    assert alert.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert all(text.strip() for text in alert["annotations"].values())


def test_names_of_alerts_and_records_are_given_once():
    names = [rule.get("alert") or rule["record"] for rule in promql.rules()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "rule", list(promql.rules()), ids=lambda rule: rule.get("alert") or rule["record"]
)
def test_a_rule_reads_what_is_exported_by_labels_that_it_has(rule):
    assert promql.complaints(rule["expr"]) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("sum(rate(http_request_total[5m]))", "nothing exports http_request_total"),
        ('http_requests_total{code="500"}', "http_requests_total has no label code"),
        ("sum by (path) (http_requests_total)", "nothing in it has the label path"),
        ("increase(job_consecutive_failures[5m]) > 0",
         "increase() of job_consecutive_failures, which is a gauge"),
        ('max(job_paused{exported_job="a", region="b"})', "job_paused has no label region"),
        ("process_cpu_seconds_total", "nothing exports process_cpu_seconds_total"),
        ("vector(1)", "it reads nothing"),
    ],
)  # fmt: skip
def test_a_wrong_expression_is_told(expression: str, complaint: str):
    assert promql.complaints(expression) == [complaint]


def test_names_of_an_expression():
    expression = (
        'histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{x=~"b{2}|c"}[5m]))) > 0.5'
        " and on (job) max without (instance) (d:e:rate5m offset 1h) unless 2 * time() - f == 1e3"
    )
    assert promql.names_in(expression) == {"a_bucket", "d:e:rate5m", "f"}
