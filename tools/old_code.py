"""Run the release before on the schema of this one: as while it is rolled out, or rolled back.

Which release that is: the newest tag vX.Y.Z that is not this commit's; before the first one, a
commit whose code is taken for a release. It runs its own tests of the API and of jobs, from its own
source, with this release's migrations in place of its own: old code, old queries, new schema. Tests
that compare what was generated with the schema are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from tools.scratch import in_memory

ROOT = Path(__file__).resolve().parents[1]
MIGRATIONS = Path("sql") / "migrations"
TESTS = ["tests/api", "tests/jobs"]
# Tests that list all there is: permissions, messages, what is forgotten, and the guards, which
# `verify` compares with those of its own release. A newer schema has more.
NOT_ABOUT_OLD_CODE = " and ".join(
    f"not {part}"
    for part in (
        "vocabulary", "openapi", "migration", "a_role_may_what_the_table_says",
        "an_administrator_may_everything_that_there_is", "what_has_expired_is_forgotten",
        "every_field_that_looks_personal_or_secret_is_declared", "the_jobs_of_this_release_run",
    )
)  # fmt: skip
GIT = shutil.which("git") or "git"
# Sales, books, identity, jobs and backups: migrations up to 0024.
BEFORE_RELEASES = "776e8fc5b5dd536fb5b75b704e94a2dc0a7f6c90"
RELEASE = re.compile(r"v\d+\.\d+\.\d+")


def git(*words: str) -> str:
    """Return what git says."""
    ran = subprocess.run([GIT, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def before() -> tuple[str, str] | None:
    """Return the commit of the release before, and why it is that; None without any history."""
    try:
        here = git("rev-parse", "HEAD")
        tags = git("tag", "--merged", "HEAD", "--sort=-v:refname").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    for tag in filter(RELEASE.fullmatch, tags):
        if git("rev-parse", f"{tag}^{{commit}}") != here:
            return tag, "the release before"
    try:
        return git("rev-parse", "--verify", f"{BEFORE_RELEASES}^{{commit}}"), "before any release"
    except subprocess.CalledProcessError:  # a clone that ends after it
        return None


def main() -> int:
    """Run the old tests; return pytest's exit code."""
    found = before()
    if found is None:
        print("There is no history here: nothing to run on this schema.")
        return 0
    commit, why = found
    with in_memory(), tempfile.TemporaryDirectory(prefix="sofinance-old-") as folder:
        old = Path(folder)
        old.chmod(0o755)
        archive = subprocess.run(
            [GIT, "archive", commit], cwd=ROOT, capture_output=True, check=True
        )
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(old, filter="data")
        names = sorted(path.name for path in (ROOT / MIGRATIONS).glob("*.sql"))
        new = [name for name in names if not (old / MIGRATIONS / name).exists()]
        shutil.rmtree(old / MIGRATIONS)
        shutil.copytree(ROOT / MIGRATIONS, old / MIGRATIONS)
        print(f"{commit[:12]}, {why}, on this schema: {', '.join(new) or 'the same migrations'}")
        sys.stdout.flush()
        tests = [test for test in TESTS if (old / test).exists()]
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k",
             NOT_ABOUT_OLD_CODE, *(sys.argv[1:] or ["-n", "2"]), *tests],
            cwd=old, env={**os.environ, "PYTHONPATH": str(old)}, check=False,
        )  # fmt: skip
        return ran.returncode


if __name__ == "__main__":
    sys.exit(main())
