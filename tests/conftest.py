"""One PostgreSQL per run, one migrated template, one clone per worker, one organisation per test.

Tests commit, because a rollback never fires a deferred rule, and nothing is ever cleaned up: each
test has an organisation of its own, which proves isolation by the way.

The server is the embedded one. ``TEST_POSTGRES=15`` takes Debian's of that major instead, and
``TEST_SERVER=postgresql://superuser:password@host:port`` one that runs already and is for tests
only: the passwords of the four roles are changed. ``TEST_PGBOUNCER=1`` puts a PgBouncer in
transaction mode between the application and it. ``TEST_REPLICA=1`` gives it a streaming standby,
which then answers the application's reports.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
import uuid
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import psycopg
import pytest
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher
from hypothesis import settings as hypothesis_settings
from psycopg import sql

from sofinance.app import create_app
from sofinance.config import Settings
from sofinance.infra import embedded, logs, migrate, passwords
from sofinance.infra.command import SetupError
from sofinance.infra.passwords import hash_password
from sofinance.infra.sql import Row
from tests import order
from tests.pgbouncer_server import PgBouncer
from tests.s3_server import S3Server
from tests.standby import Standby, catch_up
from tests.support import ROLE_PASSWORD, Api, Org, Psql, found, role_url
from tools.scratch import in_memory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    MakeApi = Callable[..., Awaitable[Api]]
    MakeOrg = Callable[..., Awaitable[Org]]

DEBIAN_PROGRAMS = "/usr/lib/postgresql/{major}/bin"
# Only here: a test's data is gone with the run, so a power cut may take it.
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
TEMPLATE_LOCK_KEY = 7_153_620
# For passwords and PINs that are none's secret, and which hundreds of tests sign in with.
CHEAP_HASHER = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
ADMIN_PASSWORD = "correct horse battery staple"  # noqa: S105 - of made-up people


# The gate tries the same examples each time, on a busy machine too; with
# HYPOTHESIS_PROFILE=explore it looks for new ones.
hypothesis_settings.register_profile("gate", derandomize=True, deadline=None)
hypothesis_settings.register_profile("explore", max_examples=2_000, deadline=None)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))


# -- the server --------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Start the server in the first process; workers find its URL in the environment."""
    if hasattr(config, "workerinput") or config.option.collectonly or "TEST_SERVER" in os.environ:
        return
    # A run that is told to end, by a time limit say, stops its server as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What a test looked at stays where pytest keeps it; servers go to memory.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    memory = ExitStack()
    memory.enter_context(in_memory())
    data = Path(tempfile.mkdtemp(prefix="sofinance-tests-"))
    data.chmod(0o711)  # PostgreSQL's own account, when we are root, passes through
    server = embedded.Server(data / "data", programs=programs(), options=UNSAFE_BUT_FAST)
    standby: Standby | None = None

    def stop() -> None:
        del os.environ["TEST_SERVER"]
        if standby is not None:
            del os.environ["TEST_STANDBY"]
            standby.stop()
        server.stop()
        shutil.rmtree(data)
        memory.close()

    try:
        server.start()
        if "TEST_REPLICA" in os.environ:
            url = server.url("postgres", "postgres")
            standby = Standby(url, data / "standby", programs=programs())
            standby.start()
            os.environ["TEST_STANDBY"] = standby.url("postgres", "").rstrip("/")
    except SetupError as error:
        shutil.rmtree(data)
        memory.close()
        pytest.exit(error.message, returncode=error.exit_code)
    os.environ["TEST_SERVER"] = server.url("postgres", "").rstrip("/")
    config.add_cleanup(stop)


def pytest_report_header() -> list[str]:
    """Say which PostgreSQL this run is on."""
    if "TEST_SERVER" not in os.environ:
        return []
    with _superuser() as conn:
        told = f"PostgreSQL {conn.info.parameter_status('server_version')}"
    if "TEST_PGBOUNCER" in os.environ:
        told += ", through PgBouncer"
    if "TEST_STANDBY" in os.environ:
        told += ", reports on a standby"
    return [told]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest, on every worker."""
    worker_count = int(getattr(config, "workerinput", {}).get("workercount", 1))
    items[:] = order.dealt(items, worker_count)


def programs() -> Path | None:
    """Return PostgreSQL's programs, if they are not the embedded ones."""
    major = os.environ.get("TEST_POSTGRES", "")
    if major in {"", "embedded"}:
        return None
    programs = Path(DEBIAN_PROGRAMS.format(major=major))
    if not (programs / "initdb").exists():
        pytest.exit(f"TEST_POSTGRES={major}, but there is no {programs}/initdb.", returncode=3)
    return programs


@contextmanager
def _superuser(database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    url = role_url(os.environ["TEST_SERVER"], "superuser", database)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as conn:
        yield conn


# -- databases ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def template() -> str:
    """A migrated database that nobody is connected to; edited SQL means another one."""
    files = sorted(migrate.MIGRATIONS.glob("*.sql"))
    digest = hashlib.sha256(
        b"\0".join(part for f in files for part in (f.name.encode(), f.read_bytes()))
    )
    name = f"sofinance_template_{digest.hexdigest()[:12]}"
    with _superuser() as admin:
        admin.execute("select pg_advisory_lock(%s)", [TEMPLATE_LOCK_KEY])  # the others wait
        found = admin.execute("select 1 from pg_database where datname = %s", [name]).fetchone()
        if found is None:
            half = f"{name}_half"
            admin.execute(f"drop database if exists {half} with (force)")
            admin.execute(f"create database {half}")
            migrate.apply(role_url(os.environ["TEST_SERVER"], "superuser", half))
            for role in embedded.ROLES:
                admin.execute(
                    sql.SQL("alter role {} login password {}").format(
                        sql.Identifier(role), sql.Literal(ROLE_PASSWORD)
                    )
                )
            admin.execute(f"alter database {half} rename to {name}")
    return name


@contextmanager
def _clone(template: str, name: str) -> Iterator[str]:
    """Yield the superuser's URL of a copy of the template, which goes when we are done."""
    with _superuser() as admin:
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(f"create database {name} template {template} strategy file_copy")
    if "TEST_STANDBY" in os.environ:
        catch_up(os.environ["TEST_SERVER"], os.environ["TEST_STANDBY"])
    yield role_url(os.environ["TEST_SERVER"], "superuser", name)
    with _superuser() as admin:
        admin.execute(f"drop database if exists {name} with (force)")


@pytest.fixture(scope="session")
def _worker_dsn(template: str, worker_id: str) -> Iterator[str]:
    with _clone(template, f"sofinance_test_{worker_id}_{os.getpid()}") as url:
        yield url


@pytest.fixture
def superuser_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test's database as the superuser: the worker's, or a private one if it is marked so."""
    if request.node.get_closest_marker("empty_database") is None:
        yield request.getfixturevalue("_worker_dsn")
        return
    template = request.getfixturevalue("template")
    with _clone(template, f"sofinance_test_{uuid.uuid4().hex[:12]}") as url:
        yield url


@pytest.fixture
def dsn(superuser_dsn: str) -> str:
    """The test's database as the application."""
    return role_url(superuser_dsn, "sofinance_app")


@pytest.fixture
def owner_dsn(superuser_dsn: str) -> str:
    """The test's database as the owner of the schema."""
    return role_url(superuser_dsn, "sofinance_owner")


@pytest.fixture(scope="session")
def _worker_psql(_worker_dsn: str) -> Iterator[Psql]:
    psql = Psql(_worker_dsn)
    yield psql
    psql.close()


@pytest.fixture
def psql(request: pytest.FixtureRequest, superuser_dsn: str) -> Iterator[Psql]:
    """SQL past the application, as any role: ``psql(statement, role=..., org=...)``."""
    if request.node.get_closest_marker("empty_database") is None:
        yield request.getfixturevalue("_worker_psql")
        return
    private = Psql(superuser_dsn)
    yield private
    private.close()


# -- passwords ---------------------------------------------------------------------------------


def _hash_with(hasher: PasswordHasher) -> PasswordHasher:
    """Have passwords hashed so; returns how they were hashed until then."""
    before = passwords._hasher  # noqa: SLF001 - nobody but tests may weaken it
    passwords._hasher = hasher  # noqa: SLF001
    passwords._dummy_hash.cache_clear()  # noqa: SLF001
    return before


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> Iterator[PasswordHasher]:
    """What hashes passwords in earnest, which takes 50 ms of a core each time; here it does not."""
    in_earnest = _hash_with(CHEAP_HASHER)
    yield in_earnest
    _hash_with(in_earnest)


@pytest.fixture
def costly_passwords(_cheap_passwords: PasswordHasher) -> Iterator[None]:
    """Passwords are hashed in earnest, where that is the subject."""
    _hash_with(_cheap_passwords)
    yield
    _hash_with(CHEAP_HASHER)


# -- the application ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pgbouncer() -> Iterator[PgBouncer | None]:
    """What is between the application and PostgreSQL, if anything is to be."""
    if "TEST_PGBOUNCER" not in os.environ:
        yield None
        return
    bouncer = PgBouncer(os.environ["TEST_SERVER"])
    yield bouncer
    bouncer.close()


def _way(dsn: str, pgbouncer: PgBouncer | None) -> dict[str, Any]:
    """Return the settings that lead an application to a database, the way this run is about."""
    ways: dict[str, Any] = {"database_url": dsn}
    if urlsplit(dsn).port != urlsplit(os.environ["TEST_SERVER"]).port:
        return ways  # a server of the test's own
    if pgbouncer is not None:
        ways["database_url"] = pgbouncer.through(dsn)
        ways["database_prepared_statements"] = False
    if "TEST_STANDBY" in os.environ:
        name = urlsplit(dsn).path.lstrip("/")
        ways["database_replica_url"] = role_url(os.environ["TEST_STANDBY"], "sofinance_app", name)
    return ways


@pytest.fixture
def settings(dsn: str, tmp_path: Path, pgbouncer: PgBouncer | None) -> Settings:
    """The settings of the test's application."""
    folders = {"mail_folder": str(tmp_path / "mail"), "storage_dir": str(tmp_path / "files")}
    return Settings.for_tests(**_way(dsn, pgbouncer), **folders)


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[Api]:
    """Yield the application, served on a port of its own."""
    logs.configure(level=settings.log_level, environment=settings.environment)
    async with (
        TestServer(create_app(settings)) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Api(session, str(server.make_url("")).rstrip("/"), server.app)


@pytest.fixture(scope="session")
async def _worker_api(
    _worker_dsn: str, tmp_path_factory: pytest.TempPathFactory, pgbouncer: PgBouncer | None
) -> AsyncIterator[Api]:
    ways = _way(role_url(_worker_dsn, "sofinance_app"), pgbouncer)
    folder, files = (str(tmp_path_factory.mktemp(name)) for name in ("mail", "files"))
    settings = Settings.for_tests(**ways, mail_folder=folder, storage_dir=files)
    async with _serving(settings) as api:
        yield api


@pytest.fixture
async def _private_api(settings: Settings) -> AsyncIterator[Api]:
    async with _serving(settings) as api:
        yield api


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Api:
    """The application over HTTP; work commits, so deferred rules speak."""
    marked = request.node.get_closest_marker("empty_database") is not None
    made: Api = request.getfixturevalue("_private_api" if marked else "_worker_api")
    return made


@pytest.fixture
async def api_with(settings: Settings) -> AsyncIterator[MakeApi]:
    """More applications, each with settings of its own, by keyword."""
    async with AsyncExitStack() as stack:

        async def make(**changes: Any) -> Api:
            return await stack.enter_async_context(_serving(replace(settings, **changes)))

        yield make


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server that speaks S3; a test that stops it starts it again."""
    server = S3Server()
    yield server
    server.stop()


# -- organisations -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
async def _admin_password_hash() -> str:
    return await hash_password(ADMIN_PASSWORD)  # once: it is slow on purpose


@pytest.fixture
async def new_org(
    settings: Settings, dsn: str, _admin_password_hash: str
) -> AsyncIterator[MakeOrg]:
    """More organisations, each to one's liking, by keyword."""
    conn: Any = await asyncpg.connect(dsn, record_class=Row)

    async def make(**changes: Any) -> Org:
        return await found(conn, settings, _admin_password_hash, ADMIN_PASSWORD, **changes)

    yield make
    await conn.close()


@pytest.fixture
async def org(new_org: MakeOrg) -> Org:
    """A new organisation: a test's own corner, so that nothing is ever cleaned up."""
    return await new_org()


@pytest.fixture
async def other_org(new_org: MakeOrg) -> Org:
    """Another one, whose rows must never be seen or linked."""
    return await new_org(name="Other")
