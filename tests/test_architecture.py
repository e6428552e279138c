"""Who may know whom: slices do not know each other, the machine knows no slice, rules know nobody.

Read from the source, so that a new module is held to it as soon as it is there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sofinance"
LINES_MAX = 400
# Modules that are longer, and why they are not cut in two.
LONG = {
    "api/sales.py": "posting, reading and reporting sales share their schemas",
    "config.py": "every setting once, in one place",
    "infra/embedded.py": "one subject: a cluster's life, from initdb to a takeover after SIGKILL",
    "tools/export.py": "two formats of one ledger, side by side",
}
# A slice answers from the database; what calls others over the network is the worker's.
NETWORK = {"aiohttp", "asyncio", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib"}
MAY_SPEAK_HTTP = {"ops.py": "the metrics are text, not JSON in an envelope"}
PURE = {"__future__", "collections", "dataclasses", "decimal", "enum", "fractions", "functools",
        "hashlib", "itertools", "math", "re", "typing", "uuid"}  # fmt: skip
KNOWS_THE_APPLICATION = {
    "infra/serve.py": "puts it on a socket",
    "infra/gunicorn_worker.py": "the same, in several processes",
}
QUERIES_OF_NO_SLICE = {
    "bulk": "imports of many entries at once",
    "business": "figures that /metrics tells",
    "export": "sofinance export",
    "integrity": "sofinance verify",
    "maintenance": "sofinance maintenance",
    "orgs": "sofinance org, and every slice",
    "outbox": "the worker's way from an event to an endpoint",
    "request": "what surrounds every request",
}

SLICES_WITHOUT_QUERIES = {
    "ops": "asks the machine, not the books",
    "sign_up": "makes organisations as `sofinance org` does",
}


def modules(folder: str) -> dict[str, list[str]]:
    """Return what each module below a folder imports, with full names."""
    found = {}
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        imported = []
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported += [f"{node.module}.{alias.name}" for alias in node.names]
        found[str(path.relative_to(PACKAGE))] = imported
    return found


def test_every_client_of_ours_carries_traces_on():
    """What calls others is a span of the trace; commands that somebody types have none."""
    untraced = []
    for path in sorted(PACKAGE.rglob("*.py")):
        where = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ClientSession"):
                named = {keyword.arg for keyword in node.keywords}
                if "trace_configs" not in named and not where.startswith("tools/"):
                    untraced.append(where)
    assert untraced == ["infra/trace_export.py"]  # it would trace itself


def test_slices_do_not_import_each_other():
    for module, imported in modules("api").items():
        assert not [name for name in imported if name.startswith("sofinance.api")], module


def test_slices_know_the_machine_the_rules_and_the_queries():
    known = re.compile(
        r"sofinance\.(infra\.|backups\.serving\.|events\.|rules\b|queries$|schemas\.|__version__$"
        r"|tools\.demo)"
    )
    for module, imported in modules("api").items():
        ours = [name for name in imported if name.startswith("sofinance")]
        assert [name for name in ours if not known.match(name)] == [], module


def test_the_machine_knows_no_slice():
    for module, imported in modules("infra").items():
        wrong = [name for name in imported if re.match(r"sofinance\.(api|tools|app|cli)", name)]
        assert wrong == [] or module in KNOWS_THE_APPLICATION, module


def test_rules_are_pure():
    for module, imported in modules("rules").items():
        others = {name.split(".")[0] for name in imported if "sofinance.rules" not in name}
        assert others <= PURE, module


def test_slices_do_not_call_the_network():
    for module, imported in modules("api").items():
        names = {name.split(".")[0] for name in imported}
        allowed = {"aiohttp", "asyncio"} if Path(module).name in MAY_SPEAK_HTTP else set()
        assert names & NETWORK <= allowed, module


def test_one_module_touches_aiohttp_apispec():
    touching = [
        module for module, imported in modules(".").items()
        if any(name.startswith("aiohttp_apispec") for name in imported)
    ]  # fmt: skip
    assert touching == ["infra/swagger.py"]


def test_only_the_embedded_server_is_started_with_programs():
    running = [
        module for module, imported in modules(".").items() if "subprocess" in imported
    ]  # fmt: skip
    assert set(running) <= {
        "infra/embedded.py", "tools/dev.py", "tools/import_completejourney.py",
        "backups/programs.py",  # PostgreSQL's own, pg_dump above all
    }  # fmt: skip


def test_a_slice_is_a_module_and_a_query_file():
    slices = {path.stem for path in (PACKAGE / "api").glob("*.py")} - {
        "__init__",
        *SLICES_WITHOUT_QUERIES,
    }
    files = {path.stem for path in (ROOT / "sql" / "queries").glob("*.sql")}
    assert slices | set(QUERIES_OF_NO_SLICE) == files


def test_handlers_neither_catch_nor_log():
    for path in (PACKAGE / "api").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        caught = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Try)]
        assert caught == [] or path.name in MAY_SPEAK_HTTP, path.name
        assert "logging" not in " ".join(modules("api")[f"api/{path.name}"]), path.name


def test_long_modules_have_a_reason():
    long = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if len(path.read_text("utf-8").splitlines()) > LINES_MAX
    }
    assert long == set(LONG)
