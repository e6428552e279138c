"""Reads the Dockerfile and carries its steps out, without Docker, below a directory of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP_TIMEOUT_S = 300
# What stages write to. It is found again below the stage's own directory.
PLACES = re.compile(r"(?<![\w.])/(?:opt/sofinance|build|etc/sofinance)\b")


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """Return what the steps of one kind say."""
        return [text for step, text in self.steps if step == word]


def stages() -> list[Stage]:
    """Return the stages in order; a base without AS has an empty name."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip()))
        elif word:
            found[-1].steps.append((word, rest.strip()))
    return found


def context(folder: Path) -> None:
    """Copy what .dockerignore lets through, as Docker would send it."""
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*", "everything is left out but what is named"
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    dropped = [rule.removeprefix("**/") for rule in rules[1:] if not rule.startswith("!")]

    def ignored(directory: str, names: list[str]) -> set[str]:
        below = Path(directory).relative_to(ROOT)
        return {
            name
            for name in names
            if any(fnmatch(name, rule) or fnmatch(str(below / name), rule) for rule in dropped)
        }

    for name in kept:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)


class Builder:
    """Carries steps out: each stage has a directory that stands for its /."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context = folder, folder / "context"
        self.context.mkdir()
        context(self.context)
        self.variables: dict[str, str] = {}

    def root(self, name: str) -> Path:
        """Return the directory that stands for a stage's /."""
        return self.folder / name

    def build(self, stage: Stage) -> Path:
        """Carry out a stage's steps; return its root."""
        root = self.root(stage.name)
        if (earlier := self.root(stage.base)).is_dir():
            # A virtual environment knows where it is, so a later stage goes on in the same place.
            root = earlier
        root.mkdir(exist_ok=True)
        # Where the stage before was is where this one begins.
        before = [text for one in stages() if one.name == stage.base for text in one.all("WORKDIR")]
        workdir = root / before[-1].lstrip("/") if before else root
        for word, text in stage.steps:
            match word:
                case "WORKDIR":
                    workdir = root / text.lstrip("/")
                    workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(text, root, workdir)
                case "RUN":
                    self._run(text, root, workdir)
        return root

    def _copy(self, text: str, root: Path, workdir: Path) -> None:
        *sources, target = text.split()
        origin = self.context
        if sources[0].startswith("--from="):
            origin = self.root(sources.pop(0).removeprefix("--from="))
        to = root / target.lstrip("/") if target.startswith("/") else workdir / target
        for source in sources:
            there = origin / source.lstrip("/")
            if there.is_dir():
                if to != there:
                    shutil.copytree(there, to, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(there, to / there.name if target.endswith("/") else to)

    def _run(self, text: str, root: Path, workdir: Path) -> None:
        command = PLACES.sub(lambda found: f"{root}{found.group()}", text)
        # The base image's Python is the one that runs this.
        command = re.sub(r"(?<![\w/])python (?=-m)", f"{sys.executable} ", command)
        kept = {
            name: os.environ[name]
            for name in os.environ
            if name in {"PATH", "HOME", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
            or name.startswith("PIP_")
        }
        ran = subprocess.run(
            ["/bin/sh", "-eu", "-c", command], cwd=workdir, env=kept, capture_output=True,
            text=True, timeout=STEP_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{text}\n{ran.stdout[-2000:]}{ran.stderr[-4000:]}"


def words(text: str) -> list[str]:
    """Return the words of a command in exec form."""
    found: list[str] = json.loads(text)
    return found
