"""Archives of the audit log: moved whole, proven, readable; nothing is lost on the way."""

from __future__ import annotations

import gzip
import json
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from sofinance.infra.db import Database
from sofinance.infra.storage import open_storage
from sofinance.jobs import JobFailedError, archiving
from sofinance.jobs.archiving import archive_everywhere, archive_part, read_back
from sofinance.jobs.janitor import clean_storage
from tests.tools.test_orgs import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sofinance.config import Settings
    from tests.s3_server import S3Server
    from tests.support import Org, Psql

    Command = Callable[..., Awaitable[tuple[int, str]]]
    MakeOrg = Callable[..., Awaitable[Org]]

pytestmark = pytest.mark.empty_database

# Of two months, in an order that ids do not have; one row lies at the very end of a month.
OLD = (
    "insert into audit_log (org_id, created_at, action, entity_type, entity_id, after, ip) select"
    ' {org}, at::timestamptz, \'old\', \'scene\', n, \'{{"total": "1.00", "name": "ü"}}\','
    " '192.0.2.7' from unnest(array['2020-02-29 23:59:59.999999Z', '2020-01-31 23:30Z',"
    " '2020-02-01 00:00Z', '2020-01-01 00:00Z', '2020-02-10 12:00Z'])"
    " with ordinality as row (at, n)"
)
HOT = "select count(*) from audit_log where action = 'old'"
LISTED = "select archive_no, month::text, row_count from audit_archive order by archive_no"


@pytest.fixture
def kept(settings: Settings) -> Settings:
    """Settings by which the audit log is archived after 90 days."""
    return replace(settings, retention_audit_days=90)


@pytest.fixture
async def database(kept: Settings) -> AsyncIterator[Database]:
    """A pool of the test's own."""
    opened = Database(kept)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def old_org(new_org: MakeOrg, psql: Psql) -> Org:
    """An organisation with five old rows in its audit log."""
    org = await new_org()
    psql(OLD.format(org=org.id), org=org, role="sofinance_owner")
    return org


@pytest.fixture
def command(
    kept: Settings, dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line beside these settings: words in, exit code and output out."""
    monkeypatch.setenv("STORAGE_DIR", kept.storage_dir)

    async def typed(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        return await run(dsn, *words), capsys.readouterr().out

    return typed


def objects(settings: Settings, org: Org) -> list[Path]:
    """Return the files of an organisation's archives."""
    return sorted(Path(settings.storage_dir).glob(f"org/{org.id}/audit/*"))


async def test_months_go_into_the_store_and_the_rows_with_them(
    database: Database, kept: Settings, old_org: Org, psql: Psql
) -> None:
    before = psql(
        "select id, created_at, after from audit_log where action = 'old' order by id", org=old_org
    )
    recent = psql("select count(*) from audit_log where action <> 'old'", org=old_org)[0][0]
    assert await archive_everywhere(database) == "made 2 archives of 5 rows"
    assert await archive_everywhere(database) == "made 0 archives of 0 rows"
    assert psql(HOT, org=old_org) == [(0,)]
    assert psql(LISTED, org=old_org) == [(1, "2020-01-01", 2), (2, "2020-02-01", 3)]
    assert psql("select count(*) from storage_tombstone", org=old_org) == [(0,)]
    # What stays says that they went.
    assert psql(
        "select entity_id, after ->> 'row_count' from audit_log where action = 'audit.archive'"
        " order by id", org=old_org,
    ) == [(1, "2"), (2, "3")]  # fmt: skip
    assert psql("select count(*) from audit_log", org=old_org) == [(recent + 2,)]
    lines = [
        json.loads(line)
        for path in objects(kept, old_org)
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert sorted(
        (line["id"], datetime.fromisoformat(line["created_at"]), line["after"]) for line in lines
    ) == [(id_, at, json.loads(after) if isinstance(after, str) else after)
          for id_, at, after in before]  # fmt: skip
    assert {line["ip"] for line in lines} == {"192.0.2.7"}


async def test_nothing_is_archived_unless_it_is_said_after_how_long(
    settings: Settings, old_org: Org, psql: Psql
) -> None:
    database = Database(settings)
    await database.open()
    assert "RETENTION_AUDIT_DAYS is 0" in await archive_everywhere(database)
    await database.close()
    assert psql(HOT, org=old_org) == [(5,)]


async def test_a_month_is_archived_once_all_of_it_is_old(
    database: Database, old_org: Org, psql: Psql
) -> None:
    async with aclosing(open_storage(database.settings)) as storage:

        async def part(now: datetime) -> int:
            return await archive_part(database, storage, old_org.id, 3_650, now)

        # The first of February and 3,650 days more.
        assert await part(datetime(2030, 1, 28, 23, 59, tzinfo=UTC)) == 0
        assert await part(datetime(2030, 1, 29, tzinfo=UTC)) == 2
        assert await part(datetime(2030, 1, 29, tzinfo=UTC)) == 0
    assert psql(HOT, org=old_org) == [(3,)]


async def test_a_long_month_is_archived_in_parts(
    database: Database, old_org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "PART_ROW_COUNT", 2)
    assert await archive_everywhere(database) == "made 3 archives of 5 rows"
    assert [count for _, _, count in psql(LISTED, org=old_org)] == [2, 2, 1]


async def test_what_is_read_back_otherwise_takes_no_row_away(
    database: Database, old_org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes bytes and loses one: the rows stay, and the janitor takes the object."""

    async def lossy(content: bytes) -> AsyncIterator[bytes]:
        yield content[:-1]

    monkeypatch.setattr(archiving, "_once", lossy)
    with pytest.raises(JobFailedError, match=r"made 0 archives.*was changed"):
        await archive_everywhere(database)
    assert psql(HOT, org=old_org) == [(5,)]
    assert len(objects(database.settings, old_org)) == 1
    psql("update storage_tombstone set due_at = now()", org=old_org)
    await clean_storage(database)
    assert objects(database.settings, old_org) == []


async def test_a_store_that_is_away_takes_no_row_away(
    kept: Settings,
    s3: S3Server,
    old_org: Org,
    psql: Psql,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database(replace(kept, **s3.settings()))
    await database.open()
    s3.stop()
    try:
        with pytest.raises(JobFailedError, match="the store failed"):
            await archive_everywhere(database)
    finally:
        s3.start()
    assert psql(HOT, org=old_org) == [(5,)]
    assert await archive_everywhere(database) == "made 2 archives of 5 rows"
    for name, value in s3.settings().items():
        monkeypatch.setenv(name.upper(), str(value))
    told = "2 archives of 5 rows: none broken\n"
    assert await command("audit-archive", "verify") == (0, told)
    await database.close()


async def test_rows_that_are_others_by_then_are_not_archived(
    database: Database, old_org: Org, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_and_change(storage: Any, says: Any) -> bytes:
        psql(
            "set local session_replication_role = replica;"
            " update audit_log set entity_id = 7 where entity_id = 2 and action = 'old'",
            org=old_org, role="superuser",
        )  # fmt: skip
        return await read_back(storage, says)

    monkeypatch.setattr(archiving, "read_back", read_and_change)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await archive_everywhere(database)
    assert refused.value.constraint_name == "audit_archive_matches"
    assert psql(HOT, org=old_org) == [(5,)]


# -- the command -----------------------------------------------------------------------------------


async def test_archives_are_listed_shown_and_verified(
    database: Database, kept: Settings, old_org: Org, command: Command
) -> None:
    await archive_everywhere(database)
    code, out = await command("audit-archive", "list", "--json")
    listed = json.loads(out)
    assert (code, [(row["month"], row["rows"]) for row in listed]) == (
        0, [("2020-01", 2), ("2020-02", 3)],
    )  # fmt: skip
    code, out = await command("audit-archive", "show", "2", "--org", str(old_org.id))
    assert code == 0
    assert [json.loads(line)["entity_id"] for line in out.splitlines()] == [1, 3, 5]
    assert (await command("audit-archive", "verify", "--json"))[1] == (
        '{"ok":true,"archives":2,"rows":5,"broken":[]}\n'
    )
    assert (await command("audit-archive", "show", "7", "--org", str(old_org.id)))[0] == 2
    assert (await command("audit-archive", "show"))[0] == 2
    first, second = objects(kept, old_org)
    first.chmod(0o600)
    first.write_bytes(gzip.compress(b"{}\n"))
    second.unlink()
    code, out = await command("audit-archive", "verify", "--json")
    told = json.loads(out)
    assert (code, told["ok"], len(told["broken"])) == (1, False, 2)
    assert {each["problem"].split(" ", 1)[1] for each in told["broken"]} == {
        "is missing", "was changed: its SHA-256 is another one",
    }  # fmt: skip
    assert (await command("audit-archive", "verify"))[1].endswith(
        "2 archives of 5 rows: 2 broken\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("delete from audit_archive where archive_no = 2", id="the latest taken away"),
        pytest.param("delete from audit_archive where archive_no = 1", id="the first taken away"),
        pytest.param(
            "update audit_archive set lines_sha256 = sha256('x') where archive_no = 1",
            id="other lines",
        ),
        pytest.param(
            "insert into audit_log (org_id, id, created_at, action, entity_type) overriding system"
            " value select org_id, first_id, month, 'old', 'scene' from audit_archive limit 1",
            id="a row put back",
        ),
        pytest.param(
            "delete from audit_log where action = 'audit.archive' and entity_id = 2",
            id="what the log says of it taken away",
        ),
    ],
)
async def test_verify_finds_what_its_owner_does_to_an_archive(
    database: Database, old_org: Org, psql: Psql, command: Command, change: str
) -> None:
    await archive_everywhere(database)
    assert (await command("verify", "--json"))[0] == 0
    hush = "set local session_replication_role = replica;"
    psql(f"{hush}{change}", org=old_org, role="superuser")
    code, out = await command("verify", "--json")
    checks = json.loads(out)["checks"]
    assert code == 1
    assert {check["check"] for check in checks if check["broken"]} == {"audit_archives_are_a_chain"}
