"""Restore a backup: into an empty database, whole or not at all, and compared row by row.

A database that is not empty is never written to. Who confirms gets the backup restored beside it
and the names swapped when all is verified: what was there stays, under another name.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from sofinance.backups import confirmations, contents, programs
from sofinance.backups.store import STAMP, BackupError
from sofinance.backups.take import connected, feed, read_back
from sofinance.infra import embedded, migrate
from sofinance.infra.command import EXIT_FAILED, EXIT_USAGE, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sofinance.backups.store import Backup
    from sofinance.backups.take import Keys

# Whoever runs the server installs it, as its superuser; a restore need not.
LEFT_OUT = ("EXTENSION - pg_stat_statements", "COMMENT - EXTENSION pg_stat_statements")
NAME_LENGTH_MAX = 63
IN_USE = """
with object as (
    select 'pg_class'::regclass as classid, oid from pg_class
    where relnamespace = any (%(schemas)s) and relkind <> 'i'
    union all
    select 'pg_proc'::regclass, oid from pg_proc where pronamespace = any (%(schemas)s)
    union all
    select 'pg_type'::regclass, oid from pg_type
    where typnamespace = any (%(schemas)s) and typrelid = 0 and typcategory <> 'A'
)
select count(*) from object
where not exists (
    select from pg_depend
    where pg_depend.classid = object.classid and objid = object.oid and deptype = 'e'
)"""
SCHEMAS = """
select array_agg(oid) from pg_namespace
where nspname not like 'pg\\_%' and nspname <> 'information_schema'"""
LIKE_DATABASE = """
select pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype,
    case datlocprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
    coalesce(to_jsonb(database) ->> 'datlocale', to_jsonb(database) ->> 'daticulocale')
from pg_database as database where datname = %s"""
SETTINGS_OF_DATABASE = """
select coalesce(rolname, ''), unnest(setconfig) from pg_db_role_setting
left join pg_roles on pg_roles.oid = setrole
where setdatabase = (select oid from pg_database where datname = %s)"""
RIGHTS_OF_DATABASE = """
select case grantee when 0 then '' else pg_get_userbyid(grantee) end, privilege_type
from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) where datname = %s"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: how long each step took, and where the database before it is."""

    database: str
    rows: int
    migrated: tuple[str, ...]
    kept_as: str
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    """The database to restore into, as it is now."""

    url: str
    name: str
    exists: bool
    is_empty: bool
    server_major: int
    identity: str  # which database this is, even after it was dropped and made again


def look_at(url: str) -> Target:
    """Look at the database of a URL; the server must answer, the database need not be there."""
    name = programs.database_of(url)
    with _beside(url) as conn:
        server_major = conn.info.server_version // 10_000
        found = _row(conn, "select oid from pg_database where datname = %s", [name])
        system = _row(conn, "select system_identifier from pg_control_system()")
    identity = f"{system[0]}/{found[0] if found else 'new'}/{name}"
    is_empty = True
    if found:
        with connected(url) as conn:
            schemas = _row(conn, SCHEMAS)[0]
            is_empty = _row(conn, IN_USE, {"schemas": schemas})[0] == 0
    return Target(url, name, found is not None, is_empty, server_major, identity)


def check(backup: Backup, target: Target, keys: Keys, pg_bin: str) -> programs.Programs:
    """Refuse what cannot end well, before anything is written; return the programs."""
    newer = [name for name in backup.manifest["migrations"] if name not in migrate.known()]
    if newer:
        raise BackupError(
            f"{backup.name} is of a newer release than this one, which does not know "
            f"{newer[0]}: restore it with release {backup.manifest['release']}."
        )
    if backup.manifest["server_major"] > target.server_major:
        raise BackupError(
            f"{backup.name} is of PostgreSQL {backup.manifest['server_major']}, and the "
            f"server is PostgreSQL {target.server_major}: restore into one as new."
        )
    chosen = programs.fitting(target.server_major, pg_bin, restores=True)
    if chosen.major < backup.manifest["programs_major"]:
        raise BackupError(
            f"{backup.name} was written by pg_dump {backup.manifest['programs_major']}, which "
            f"pg_restore {chosen.major} cannot read: restore into a newer server."
        )
    read_back(backup, keys, chosen)
    return chosen


@dataclass(frozen=True, slots=True)
class Means:
    """What a restore works with; ``verify`` raises BackupError when the books are broken."""

    keys: Keys
    verify: Callable[[str], None]
    pg_bin: str = ""
    told: Callable[[str], None] = lambda _: None


def restore(
    backup: Backup, url: str, folder: Path, means: Means, *, confirm: str = "", create: bool = False
) -> Restored:
    """Restore into the database of the URL and prove that it is what was backed up.

    Needs a superuser's URL, or a role that may create databases and become the four.
    """
    target = look_at(url)
    chosen = check(backup, target, means.keys, means.pg_bin)
    filling = Filling(backup, means, chosen)
    if not target.exists and not create:
        raise SetupError(
            f"There is no database {target.name}; --create makes it.", exit_code=EXIT_USAGE
        )
    if not target.is_empty:
        if not confirm:
            raise SetupError(
                f"The database {target.name} is not empty, and nothing was done. Name an empty "
                "one, or see what --dry-run says.",
                exit_code=EXIT_FAILED,
            )
        confirmations.redeem(folder, confirm, backup, target.identity)
    _ensure_roles(url, means.told)
    stamp = f"{datetime.now(UTC):{STAMP}}".lower()
    if target.exists and target.is_empty:
        migrated = filling.fill(url)
        kept_as = ""
    else:
        beside = _name(target.name, f"restoring_{stamp}")
        _create(url, beside, target.name if target.exists else "")
        beside_url = programs.with_database(url, beside)
        try:
            migrated = filling.fill(beside_url)
        except BaseException:
            _drop(url, beside)
            raise
        kept_as = _name(target.name, f"before_{stamp}") if target.exists else ""
        means.told("swapping the names")
        _swap(url, target.name, beside, kept_as)
    return Restored(target.name, backup.manifest["rows"], migrated, kept_as, filling.seconds)


@dataclass(frozen=True, slots=True)
class Filling:
    """The steps that make an empty database the one that was backed up, and how long each took."""

    backup: Backup
    means: Means
    chosen: programs.Programs
    seconds: dict[str, float] = field(default_factory=dict)

    def fill(self, url: str) -> tuple[str, ...]:
        """Restore, compare, migrate, verify; return the migrations that were applied."""
        with self._step("restore"):
            _pg_restore(self.backup, url, self.chosen, self.means.keys)
        with self._step("compare"):
            compare(self.backup, url, self.means.keys, self.means.told)
        with self._step("migrate"):
            migrated = migrate.apply(url)
        with self._step("analyze"), connected(url) as conn:
            conn.execute("analyze")
        with self._step("verify"):
            self.means.verify(url)
        return migrated

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.means.told(name)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 3)


def compare(
    backup: Backup, url: str, keys: Keys, told: Callable[[str], None] = lambda _: None
) -> None:
    """Compare every table and the ledger with the backup's figures; raises BackupError."""
    with connected(url) as conn:
        # It sees all rows, whoever we are; and it must be able to, for the next backup.
        conn.execute("set role sofinance_backup")
        contents.begin_snapshot(conn)
        applied = contents.migrations(conn)
        found = [*contents.differences(backup.contents(keys.all), contents.contents(conn, told))]
    if applied != backup.manifest["migrations"]:
        found.insert(0, "the migrations that are applied differ")
    if found:
        raise BackupError(f"What was restored is not what was backed up: {'; '.join(found)}.")


def _pg_restore(backup: Backup, url: str, chosen: programs.Programs, keys: Keys) -> None:
    listed = read_back(backup, keys, chosen)
    with tempfile.NamedTemporaryFile("w", suffix=".list", encoding="utf-8") as wanted:
        wanted.writelines(
            f"{line}\n"
            for line in listed.splitlines()
            if not any(part in line for part in LEFT_OUT)
        )
        wanted.flush()
        command = [
            # One transaction: a restore that fails leaves the database as empty as it was.
            chosen["pg_restore"], "--single-transaction", "--exit-on-error", "--no-password",
            f"--use-list={wanted.name}",
            f"--dbname={psycopg.conninfo.make_conninfo(dbname=programs.database_of(url))}",
        ]  # fmt: skip
        env = programs.environment(url)
        with programs.running(
            "pg_restore", command, env, stdin=programs.PIPE, stdout=programs.NOWHERE
        ) as process:
            feed(process, backup.chunks(keys.all))


# -- roles and databases -------------------------------------------------------------------------


def _ensure_roles(url: str, told: Callable[[str], None]) -> None:
    """Make the four roles as the first migration does, where the server lacks one.

    Roles belong to the server, and are in no dump. The migration is applied in a database that
    goes again, since it also changes rights in the one that it runs in.
    """
    with _beside(url) as conn:
        found = conn.execute(
            "select rolname from pg_roles where rolname = any (%s)"
            " and (rolname <> 'sofinance_backup' or rolbypassrls)",
            [list(embedded.ROLES)],
        ).fetchall()
        if len(found) == len(embedded.ROLES):
            return
        told("making the roles")
        scratch = _name("sofinance", f"roles_{datetime.now(UTC):{STAMP}}".lower())
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(scratch)))
        try:
            migrate.make_roles(programs.with_database(url, scratch))
        finally:
            _drop(url, scratch)


def _create(url: str, name: str, like: str) -> None:
    """Create a database, with another's owner, locale, settings and rights, if one is named."""
    with _beside(url) as conn:
        make = sql.SQL("create database {} template template0").format(sql.Identifier(name))
        if not like:
            conn.execute(make + sql.SQL(" owner sofinance_owner"))
            return
        owner, encoding, collate, ctype, provider, locale = _row(conn, LIKE_DATABASE, [like])
        make += sql.SQL(
            " owner {} encoding {} lc_collate {} lc_ctype {} locale_provider {}"
        ).format(
            sql.Identifier(owner), *map(sql.Literal, (encoding, collate, ctype)), sql.SQL(provider)
        )
        if provider != "libc":
            make += sql.SQL(" {}_locale {}").format(sql.SQL(provider), sql.Literal(locale))
        conn.execute(make)
        _same_settings(conn, name, like)


def _same_settings(conn: psycopg.Connection[Any], name: str, like: str) -> None:
    database = sql.Identifier(name)
    for role, setting in conn.execute(SETTINGS_OF_DATABASE, [like]).fetchall():
        key, _, value = setting.partition("=")
        whose = (
            sql.SQL("role {} in database {}").format(sql.Identifier(role), database)
            if role
            else sql.SQL("database {}").format(database)
        )
        conn.execute(
            sql.SQL("alter {} set {} = {}").format(whose, sql.Identifier(key), sql.Literal(value))
        )
    conn.execute(sql.SQL("revoke all on database {} from public").format(database))
    for role, right in conn.execute(RIGHTS_OF_DATABASE, [like]).fetchall():
        grantee = sql.Identifier(role) if role else sql.SQL("public")
        conn.execute(
            sql.SQL("grant {} on database {} to {}").format(sql.SQL(right), database, grantee)
        )


def switch(url: str, beside: str) -> str:
    """Give a database the name of the URL's, its settings and rights, too; return what keeps it."""
    live = programs.database_of(url)
    with _beside(url) as conn:
        names = {beside, live}
        found = conn.execute("select datname from pg_database where datname = any (%s)",
                             [list(names)]).fetchall()  # fmt: skip
        if {name for (name,) in found} != names:
            raise SetupError(f"There is no {beside}, or no {live}, on this server.")
        _same_settings(conn, beside, live)
    kept_as = _name(live, f"before_{datetime.now(UTC):{STAMP}}".lower())
    _swap(url, live, beside, kept_as)
    return kept_as


def _swap(url: str, name: str, beside: str, kept_as: str) -> None:
    """Give the restored database its name; the one that had it keeps another."""
    with _beside(url) as conn:
        if kept_as:
            _rename(conn, name, kept_as)
        try:
            _rename(conn, beside, name)
        except BaseException:
            if kept_as:
                _rename(conn, kept_as, name)
            raise


def _rename(conn: psycopg.Connection[Any], old: str, new: str) -> None:
    """Rename a database; whoever is connected to it is sent away, and tries again."""
    was, now = sql.Identifier(old), sql.Identifier(new)
    conn.execute(sql.SQL("alter database {} with allow_connections false").format(was))
    try:
        until = time.monotonic() + 10
        while True:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [old]
            )
            try:
                conn.execute(sql.SQL("alter database {} rename to {}").format(was, now))
            except psycopg.errors.ObjectInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                was = now
                return
    finally:
        conn.execute(sql.SQL("alter database {} with allow_connections true").format(was))


def _drop(url: str, name: str) -> None:
    with _beside(url) as conn:
        conn.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
        )


@contextlib.contextmanager
def _beside(url: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection to a database of the same server that always is there."""
    with connected(programs.with_database(url, "postgres")) as conn:
        yield conn


def _name(database: str, ending: str) -> str:
    return f"{database[: NAME_LENGTH_MAX - len(ending) - 1]}_{ending}"


def _row(conn: psycopg.Connection[Any], query: str, values: Any = None) -> Any:
    return conn.execute(query.encode(), values).fetchone()
