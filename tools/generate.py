"""Write every generated file, or with --check compare: one migrated database serves them all."""

from __future__ import annotations

import difflib
import re
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from sofinance.infra import embedded, migrate
from tools import (
    dump_schema,
    gen_attacks,
    gen_dictionary,
    gen_env_example,
    gen_errors,
    gen_guards,
    gen_plans,
    gen_query_types,
)
from tools.scratch import in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
# Nothing that is generated outlives the run, so nothing needs to reach the disk.
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
DATABASE = "sofinance_generated"
DIFF_LINE_COUNT_MAX = 40
# tests/test_plans.py holds them, with some room.
BUFFERS = re.compile(r"(?m)^(-- (?:generic plan|planned for these values)), [0-9]+ buffers$")


@dataclass(frozen=True)
class Urls:
    """A fresh, migrated, empty database, as three of its roles, and PostgreSQL's programs."""

    superuser: str
    owner: str
    app: str
    programs: Path


@contextmanager
def migrated_database() -> Iterator[Urls]:
    """Yield an embedded database with the schema of this tree; it goes when we are done."""
    # Told to end, by a time limit say, it stops its server as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="sofinance-generate-"))
    directory.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    server = embedded.Server(directory / "data", options=UNSAFE_BUT_FAST)
    try:
        server.start()
        # A database with nothing but the migrations: the server's own has an extension more.
        with psycopg.connect(server.url(embedded.SUPERUSER), autocommit=True) as conn:
            conn.execute(f"create database {DATABASE}")
        migrate.apply(server.url(embedded.SUPERUSER, DATABASE))
        yield Urls(
            superuser=server.url(embedded.SUPERUSER, DATABASE),
            owner=server.url("sofinance_owner", DATABASE),
            app=server.url("sofinance_app", DATABASE),
            programs=embedded.installed_programs(),
        )
    finally:
        server.stop()
        shutil.rmtree(directory)


def query_types(urls: Urls) -> dict[Path, str]:
    """Return the types of the named queries, as PostgreSQL tells them."""
    with psycopg.connect(urls.superuser) as conn:
        stub = gen_query_types.stub(gen_query_types.Catalog(conn))
    return {gen_query_types.STUB.relative_to(ROOT): stub}


# Each returns {path below the root: whole text}.
GENERATORS: dict[str, Callable[[Urls], dict[Path, str]]] = {
    "env": gen_env_example.generate,
    "schema": dump_schema.generate,
    "guards": gen_guards.generate,
    "attacks": gen_attacks.generate,
    "queries": query_types,
    "errors": gen_errors.generate,
    "dictionary": gen_dictionary.generate,
    "plans": gen_plans.generate,  # last: it fills the database
}


def generated(urls: Urls, only: tuple[str, ...] = ()) -> dict[Path, str]:
    """Return every generated file as it should be now, or those of the named generators."""
    files: dict[Path, str] = {}
    for name in only or GENERATORS:
        files |= GENERATORS[name](urls)
    return files


def steady(text: str) -> str:
    """Leave out the buffers of plans: how many pages VACUUM could mark varies with the load."""
    return BUFFERS.sub(r"\1", text)


def stale(files: dict[Path, str]) -> list[str]:
    """Return a diff for each file that is not as it should be."""
    diffs = []
    for path, text in files.items():
        there = (ROOT / path).read_text("utf-8") if (ROOT / path).exists() else ""
        if steady(there) != steady(text):
            lines = difflib.unified_diff(
                there.splitlines(), text.splitlines(), f"{path}", "as generated", lineterm=""
            )
            diffs.append("\n".join([*lines][:DIFF_LINE_COUNT_MAX]))
    return diffs


def main(arguments: list[str]) -> int:
    """Write or check all files, or those of the generators that are named."""
    check = "--check" in arguments
    only = tuple(name for name in arguments if name != "--check")
    if unknown := set(only) - set(GENERATORS):
        print(f"There is no {', '.join(unknown)}; there is {', '.join(GENERATORS)}.")
        return 2
    with in_memory(), migrated_database() as urls:
        files = generated(urls, only)
    diffs = stale(files)
    if check:
        for diff in diffs:
            print(diff)
        if diffs:
            print(f"{len(diffs)} generated file(s) are stale: run `make generate`.")
        return 1 if diffs else 0
    for path, text in files.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, "utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
