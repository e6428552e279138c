"""Compose, Kubernetes and systemd: valid by their schemas, and all settings in them declared."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from sofinance import __version__, config
from sofinance.cli import parser

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
OURS = {name: one for name, one in COMPOSE["services"].items() if "build" in one}
FOLDER = ROOT / "ops" / "kubernetes"
DECLARED = {name.upper() for name in config.FIELDS} | {
    f"{name.upper()}_FILE" for name, one in config.FIELDS.items() if one.metadata["secret"]
}
# Read by the container's own image, or by Compose itself.
OTHERS = {"GIT_COMMIT", "SOFINANCE_VERSION", "PGBOUNCER_IMAGE"}
KUBERNETES = "1.31"
MARGIN_S = 5


def documents() -> list[dict[str, Any]]:
    """Return every object of the manifests."""
    return [
        document
        for path in sorted(FOLDER.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]


def pods() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each object that makes pods, and what its pods are."""
    for document in documents():
        spec = document.get("spec", {})
        if document["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if document["kind"] in {"Deployment", "Job", "CronJob"}:
            yield document, spec["template"]["spec"]


# -- Compose -----------------------------------------------------------------------------------


def test_compose_keeps_to_its_schema() -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema",
         "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def test_dependabots_settings_keep_to_their_schema() -> None:
    ran = subprocess.run(
        [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema",
         "vendor.dependabot", ROOT / ".github" / "dependabot.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", OURS)
def test_every_variable_in_compose_is_a_setting(name: str) -> None:
    assert set(OURS[name].get("environment", {})) <= DECLARED


def test_every_variable_that_compose_takes_from_outside_is_known() -> None:
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "compose.yaml").read_text("utf-8")))
    assert taken <= DECLARED | OTHERS


@pytest.mark.parametrize("name", OURS)
def test_what_compose_sets_is_good(name: str, tmp_path: Path) -> None:
    """The settings load, with the secrets that our script makes; those are mounted, all of them."""
    shutil.copy(ROOT / "ops/compose/secrets.sh", tmp_path)
    for _ in range(2):  # a second time changes nothing
        subprocess.run(["sh", tmp_path / "secrets.sh"], check=True, stdout=subprocess.DEVNULL)
    made = tmp_path / "secrets"
    declared = {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    assert {path.name for path in made.iterdir()} == declared == set(COMPOSE["secrets"])
    service = OURS[name]
    environ = {"SOFINANCE_CONFIG_DIR": str(ROOT / "config")}
    for variable, text in service["environment"].items():
        plain = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)
        environ[variable] = plain.replace("/run/secrets", str(made))
        if plain.startswith("/run/secrets/"):
            assert Path(plain).name in service["secrets"]
    for environment in ("staging", "production"):
        given, serves = {**environ, "ENVIRONMENT": environment}, name in {"api", "worker"}
        needed = ("database_url", "jwt_secret") if serves else ()
        assert config.read(given, required=needed, serves=serves)[1] == []


def test_migrations_come_before_what_serves() -> None:
    for name in ("api", "worker"):
        needed = OURS[name]["depends_on"]["migrate"]
        assert needed["condition"] == "service_completed_successfully"
    assert OURS["migrate"]["restart"] == "no"


def test_whoever_does_one_thing_and_leaves_is_waited_for() -> None:
    """Else `docker compose up --wait` takes their leaving for a failure."""
    done = "service_completed_successfully"
    waited_for = {
        name
        for service in COMPOSE["services"].values()
        for name, needed in service.get("depends_on", {}).items() if needed["condition"] == done
    }  # fmt: skip
    leaving = {
        name for name, service in COMPOSE["services"].items()
        if service.get("restart", "no") == "no" and "profiles" not in service
    }  # fmt: skip
    assert waited_for == leaving == {"bucket", "migrate", "places"}


def test_the_worker_of_compose_takes_care_of_the_database_and_its_backups() -> None:
    worker = OURS["worker"]
    assert worker["build"]["target"] == OURS["backup"]["build"]["target"] == "backup"
    assert worker["environment"]["OWNER_URL_FILE"] == "/run/secrets/owner_url"
    assert OURS["backup"]["environment"].items() - {("ENVIRONMENT", "${ENVIRONMENT:-staging}")} <= (
        worker["environment"].items()
    )
    assert set(OURS["backup"]["volumes"]) == set(worker["volumes"])
    assert worker["tmpfs"] == ["/dev/shm"], "what is restored is on disk"  # noqa: S108 - its own
    writers = {volume.split(":")[0] for volume in COMPOSE["services"]["places"]["volumes"]}
    assert writers == {volume.split(":")[0] for volume in worker["volumes"]}
    assert f":{worker['environment']['WORKER_PORT']}/livez" in worker["healthcheck"]["test"][-1]
    superuser = {name for name, one in OURS.items() if "superuser_url" in one["secrets"]}
    assert superuser == {"migrate"}


@pytest.mark.parametrize("name", OURS)
def test_what_compose_runs_is_a_command_of_ours(name: str) -> None:
    if "command" in OURS[name]:
        parser().parse_args(OURS[name]["command"])
    assert OURS[name]["read_only"] is True
    assert OURS[name]["cap_drop"] == ["ALL"]


def test_images_of_others_are_named_with_a_version() -> None:
    for name, service in COMPOSE["services"].items():
        assert re.search(r":[\w.-]+\}?$", service["image"]), name
        assert not service["image"].endswith(":latest"), name
    image = COMPOSE["services"]["pgbouncer"]["image"]
    version = re.search(r"v(\d+)\.(\d+)\.(\d+)", image)
    assert version is not None
    assert tuple(map(int, version.groups())) >= (1, 25, 2)
    pooled = configparser.ConfigParser(inline_comment_prefixes=(";",))
    pooled.read(ROOT / "ops/compose/pgbouncer.ini")
    assert pooled["pgbouncer"]["pool_mode"] == "transaction"
    assert int(pooled["pgbouncer"]["max_prepared_statements"]) > 0


def test_what_compose_mounts_is_there() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume


# -- Kubernetes --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(documents())))
def test_each_object_keeps_to_its_schema(number: int) -> None:
    kubernetes_validate.validate(documents()[number], KUBERNETES, strict=True)


def test_every_object_that_is_needed_is_there() -> None:
    kinds = [document["kind"] for document in documents()]
    assert sorted(kinds) == [
        "ConfigMap", "CronJob", "CronJob", "Deployment", "Deployment", "HorizontalPodAutoscaler",
        "Job", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "Service",
    ]  # fmt: skip


def test_every_variable_in_kubernetes_is_a_setting() -> None:
    (settings,) = [one["data"] for one in documents() if one["kind"] == "ConfigMap"]
    assert set(settings) <= DECLARED
    for document, pod in pods():
        for container in pod["containers"]:
            names = {one["name"] for one in container.get("env", [])}
            assert names <= DECLARED, document["metadata"]["name"]
            parser().parse_args(container.get("args", ["serve", "--workers", "0"]))


def test_what_the_cluster_sets_is_good(tmp_path: Path) -> None:
    (settings,) = [one["data"] for one in documents() if one["kind"] == "ConfigMap"]
    forms = {
        "database_url": "postgresql://sofinance_app:Zq8vKpb3@db/books",
        "redis_url": "redis://cache:6379/0", "data_encryption_key": "5a" * 32,
    }  # fmt: skip
    environ = {"SOFINANCE_CONFIG_DIR": str(ROOT / "config")}
    for variable, text in settings.items():
        environ[variable] = text
        if variable.endswith("_FILE"):
            name = variable.removesuffix("_FILE").lower()
            assert text == f"/run/secrets/sofinance/{name}"
            (tmp_path / name).write_text(forms.get(name, "s" * 40))
            environ[variable] = str(tmp_path / name)
    assert config.read(environ)[1] == []


def test_the_workers_of_the_cluster_may_do_what_only_the_owner_may() -> None:
    owner = {"name": "owner", "secret": {"secretName": "sofinance-owner"}}
    may = {one["metadata"]["name"] for one, pod in pods() if owner in pod["volumes"]}
    assert may == {"sofinance-migrate", "sofinance-worker"}


def test_a_backup_is_taken_every_night_and_comes_back_every_week() -> None:
    jobs = {
        tuple(pod["containers"][0]["args"]): document["spec"]["schedule"]
        for document, pod in pods() if document["kind"] == "CronJob"
    }  # fmt: skip
    assert jobs == {("backup",): "0 2 * * *", ("drill", "--backup", "latest"): "0 5 * * 0"}


def test_pods_may_nothing_that_they_need_not() -> None:
    for document, pod in pods():
        name = document["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert container["image"].endswith(f":{__version__}"), "one release, everywhere"
            mounted = {one["name"] for one in container["volumeMounts"]}
            assert mounted == {one["name"] for one in pod["volumes"]}, name


def test_the_probes_and_the_grace_fit_how_the_service_leaves() -> None:
    (settings,) = [one["data"] for one in documents() if one["kind"] == "ConfigMap"]
    ((_, pod),) = [found for found in pods() if found[0]["metadata"]["name"] == "sofinance-api"]
    (container,) = pod["containers"]
    ready, live = container["readinessProbe"], container["livenessProbe"]
    assert ready["httpGet"]["path"] == "/health/ready"
    assert live["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/health/live"
    drain_s = int(settings["DRAIN_DELAY_S"])
    assert drain_s > ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    needed_s = drain_s + int(settings["SHUTDOWN_TIMEOUT_S"]) + MARGIN_S
    assert pod["terminationGracePeriodSeconds"] >= needed_s
    production = yaml.safe_load((ROOT / "config/production.yaml").read_text("utf-8"))
    grace_s = int(COMPOSE["services"]["api"]["stop_grace_period"].removesuffix("s"))
    shutdown_s = config.FIELDS["shutdown_timeout_s"].default
    assert grace_s >= production["drain_delay_s"] + shutdown_s + MARGIN_S


def test_selectors_find_their_pods() -> None:
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in documents() if document["kind"] == "Deployment"
    }  # fmt: skip
    for document in documents():
        if document["kind"] in {"Service", "PodDisruptionBudget"}:
            selector = document["spec"]["selector"]
            assert selector.get("matchLabels", selector) == labels["sofinance-api"]


# -- systemd -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "ops/systemd").glob("*.service")), ids=str)
def test_units_run_commands_of_ours_with_time_to_leave(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    program, *words = unit["Service"]["ExecStart"].split()
    assert program == "/opt/sofinance/bin/sofinance"
    parser().parse_args(words)
    assert unit["Service"]["User"] == "sofinance"
    assert unit["Service"]["NoNewPrivileges"] == "true"
    if path.stem == "sofinance":
        production = yaml.safe_load((ROOT / "config/production.yaml").read_text("utf-8"))
        needed_s = production["drain_delay_s"] + config.FIELDS["shutdown_timeout_s"].default
        assert int(unit["Service"]["TimeoutStopSec"]) >= needed_s + MARGIN_S
        assert unit["Service"]["KillMode"] == "mixed"
