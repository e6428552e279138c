"""`sofinance backup`: take a backup, list them, read them back, remove old ones."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sofinance import config
from sofinance.backups import files, point_in_time, programs, store, wal
from sofinance.backups.places import Folder, MissingError, Place
from sofinance.backups.records import BASE, FULL, Records
from sofinance.backups.s3 import Access, Bucket
from sofinance.backups.take import Keys, read_back, take
from sofinance.infra import embedded
from sofinance.infra.command import (
    EXIT_FAILED,
    EXIT_GOOD,
    SetupError,
    data_option,
    row_number,
    whole,
)
from sofinance.infra.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from sofinance.backups.store import Backup
    from sofinance.config import Settings
    from sofinance.infra.storage import Storage


# As BACKUP_KEEP_DAYS: a sign too much would remove every backup but one.
KEEP_DAYS_MAX = 3_650


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its actions."""
    parser = subparsers.add_parser(
        "backup",
        help="write a backup of the database; list or verify backups",
        description="Dump one snapshot of the database into BACKUP_DIR, with checksums and the "
        "figures that a restore is compared with, read it back, and remove what is older than "
        "BACKUP_KEEP_DAYS. Beside the service; docs/backup.md.",
    )
    taking_options(parser)
    parser.set_defaults(run=run)
    # An action takes the command's options behind its name, too.
    behind = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    taking_options(behind)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    listed = actions.add_parser("list", parents=[behind], help="list the backups, the oldest first")
    listed.set_defaults(run=run_list)
    verified = actions.add_parser(
        "verify", parents=[behind], help="read backups to their end; exit 1 if one is damaged"
    )
    verified.add_argument("which", nargs="*", help="latest, a name or a file; else all")
    verified.set_defaults(run=run_verify)
    base = actions.add_parser(
        "base",
        parents=[behind],
        help="copy the server's files, to restore to a point in time",
        description="Copy the whole server's files while it runs (pg_basebackup). With the "
        "log that scripts/archive_wal.sh keeps, `sofinance restore --at` goes to any moment since.",
    )
    base.set_defaults(run=run_base)
    archived = actions.add_parser(
        "archive-wal",
        parents=[behind],
        help="keep a segment of PostgreSQL's log: its archive_command",
        description="archive_command = 'sofinance backup archive-wal %%p': keeps the segment in "
        "BACKUP_WAL_DIR, compressed, encrypted if backups are, and reads it back. The same again "
        "is good; another of the same name is refused.",
    )
    archived.add_argument("path", type=Path, help="the segment: %%p")
    archived.set_defaults(run=run_archive)
    fetched = actions.add_parser(
        "restore-wal",
        parents=[behind],
        help="bring a segment back: PostgreSQL's restore_command",
        description="restore_command = 'sofinance backup restore-wal %%f %%p'. Exit 1: there is "
        f"none, the log is at its end; {wal.EXIT_UNKNOWN}: that is not known, and PostgreSQL stops "
        "instead of going on without it.",
    )
    fetched.add_argument("segment", help="its name: %%f")
    fetched.add_argument("path", type=Path, help="where it goes: %%p")
    fetched.set_defaults(run=run_fetch)


def folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where backups are."""
    parser.add_argument(
        "--dir", metavar="DIR", help="the directory of backups, or s3://bucket/prefix (BACKUP_DIR)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def backup_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is backed up, and where to."""
    parser.add_argument(
        "--backup-url", metavar="URL", help="the database, as sofinance_backup (BACKUP_URL)"
    )
    data_option(parser)
    folder_options(parser)


def taking_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of whoever takes a backup."""
    backup_options(parser)
    parser.add_argument(
        "--keep-days", type=whole(1, KEEP_DAYS_MAX), metavar="N", help="instead of BACKUP_KEEP_DAYS"
    )
    parser.add_argument(
        "--record",
        type=row_number,
        metavar="N",
        help="the number under which a worker wrote it down",
    )


def run(args: argparse.Namespace) -> int:
    """Take a backup, then remove the old ones."""
    settings = settings_for_backup(args)
    place = place_of(settings)
    records = Records(settings.backup_url)
    with records.taking(FULL, place, args.record) as taken:
        backup = take(
            settings.backup_url, place, keys=keys_of(settings), pg_bin=settings.pg_bin,
            storage=storage_of(settings), told=teller(),
        )  # fmt: skip
        taken.append(backup)
    now = datetime.now(UTC)
    gone = store.prune(place, backup.manifest["database"], keeping_of(args, settings), now=now)
    records.removed(place, gone)
    files.prune(place, keys_of(settings), now=now)
    lost = backup.manifest["files_lost"]
    if lost:
        print(
            f"sofinance: The backup is written, and the store of files has lost {len(lost):,} that "
            f"rows name, such as {lost[0]}.",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps({**described(backup), "removed": gone}))
        return EXIT_FAILED if lost else EXIT_GOOD
    print(f"wrote {backup.location}")
    print(summary(backup))
    for name in gone:
        print(f"removed {name}")
    return EXIT_FAILED if lost else EXIT_GOOD


def run_list(args: argparse.Namespace) -> int:
    """List the finished backups, and name what is unfinished."""
    place = place_of(settings_of_folder(args))
    backups = [*store.listing(place), *point_in_time.bases(place)]
    unfinished = store.unfinished(place)
    if args.json:
        found = {"backups": [described(each) for each in backups], "unfinished": unfinished}
        print(json.dumps(found))
        return EXIT_GOOD
    for backup in backups:
        print(f"{backup.name}  {summary(backup)}")
    for name in unfinished:
        print(f"{name}  unfinished")
    if not backups:
        print(f"There is no finished backup in {place.location()}.", file=sys.stderr)
    return EXIT_GOOD


def run_verify(args: argparse.Namespace) -> int:
    """Read backups to their end; without names, all there are, and there must be one."""
    settings = settings_of_folder(args)
    place = place_of(settings)
    base_place = place / point_in_time.BASES
    if args.which:
        found = [store.find(place, word) for word in args.which]
    else:
        names = sorted({*(b.name for b in store.listing(place)), *store.unfinished(place)})
        found = [(place, name) for name in names]
        found += [(base_place, name) for name in point_in_time.base_names(place)]
    if not found:
        raise SetupError(
            f"There is no finished backup in {place.location()}.", exit_code=EXIT_FAILED
        )
    told, results = teller(), []
    for where, name in found:
        told(f"reading {name}")
        try:
            _read(store.open_backup(where, name), settings)
            results.append({"name": name, "ok": True, "error": None})
        except store.BackupError as error:
            results.append({"name": name, "ok": False, "error": error.message})
    told("")
    if args.json:
        print(json.dumps({"ok": all(each["ok"] for each in results), "backups": results}))
    else:
        for each in results:
            print(f"ok       {each['name']}" if each["ok"] else f"damaged  {each['error']}")
    return EXIT_GOOD if all(each["ok"] for each in results) else EXIT_FAILED


def _read(backup: Backup, settings: Settings) -> None:
    """Read a backup to its end; raises BackupError."""
    if point_in_time.BASE.fullmatch(backup.name):
        point_in_time.read_base(backup, keys_of(settings))
        return
    chosen = programs.fitting(backup.manifest["programs_major"], settings.pg_bin)
    read_back(backup, keys_of(settings), chosen)


def run_base(args: argparse.Namespace) -> int:
    """Take a base backup, then remove old ones and the log that no other needs."""
    settings = settings_for_backup(args)
    place = place_of(settings)
    records = Records(settings.backup_url)
    with records.taking(BASE, place / point_in_time.BASES, args.record) as taken:
        backup = point_in_time.take_base(
            settings.backup_url, place, keys=keys_of(settings), pg_bin=settings.pg_bin,
            told=teller(),
        )  # fmt: skip
        taken.append(backup)
    gone = point_in_time.prune(
        place, segments_of(settings), keeping_of(args, settings), now=datetime.now(UTC)
    )
    records.removed(place / point_in_time.BASES, gone)
    if args.json:
        print(json.dumps({**described(backup), "removed": gone}))
    else:
        print(f"wrote {backup.location}  {backup.manifest['bytes'] / 1e6:,.1f} MB")
        print(f"removed {len(gone)} files that nothing needs" if gone else "nothing was too old")
    return EXIT_GOOD


def run_archive(args: argparse.Namespace) -> int:
    """Keep a segment of PostgreSQL's log."""
    settings = settings_of_folder(args)
    location = wal.archive(segments_of(settings), args.path, keys_of(settings))
    if args.json:
        print(json.dumps({"location": location}))
    return EXIT_GOOD


def run_fetch(args: argparse.Namespace) -> int:
    """Bring a segment back; exit 1 only when it is known that there is none."""
    try:
        settings = settings_of_folder(args)
        wal.fetch(segments_of(settings), args.segment, args.path, keys_of(settings))
    except MissingError as error:
        raise SetupError(error.message, exit_code=EXIT_FAILED) from None
    except SetupError as error:
        raise SetupError(error.message, exit_code=wal.EXIT_UNKNOWN) from None
    return EXIT_GOOD


# -- shared with restore and drill -----------------------------------------------------------------


def settings_of_folder(args: argparse.Namespace) -> Settings:
    """Return the settings, with the directory that was named."""
    given = dict(os.environ)
    if args.dir is not None:
        given["BACKUP_DIR"] = args.dir
    if getattr(args, "backup_url", None) is not None:
        given.pop("BACKUP_URL_FILE", None)
        given["BACKUP_URL"] = args.backup_url
    return config.load_given(given)


def settings_for_backup(args: argparse.Namespace) -> Settings:
    """Return the settings, with BACKUP_URL: the one that is given, else the embedded database's."""
    settings = settings_of_folder(args)
    if args.data is not None or not (settings.backup_url or settings.database_url):
        url = embedded.attach(args.data).url("sofinance_backup")
        settings = replace(settings, backup_url=url)
    config.require(settings, ("backup_url",))
    return settings


def place_of(settings: Settings) -> Place:
    """Return where backups are."""
    return _place(settings, settings.backup_dir)


def segments_of(settings: Settings) -> Place:
    """Return where the log is that archive_command keeps."""
    if settings.backup_wal_dir:
        return _place(settings, settings.backup_wal_dir)
    return place_of(settings) / "wal"


def _place(settings: Settings, where: str) -> Place:
    if not where.startswith("s3://"):
        return Folder(Path(where).absolute())
    access = Access(
        endpoint=settings.backup_s3_endpoint,
        region=settings.backup_s3_region,
        access_key_id=settings.backup_s3_access_key_id,
        secret_access_key=settings.backup_s3_secret_access_key,
    )
    return Bucket.at(where, access)


def storage_of(settings: Settings) -> Storage | None:
    """Return the store whose files are copied, if they are."""
    return open_storage(settings) if settings.backup_files == "copy" else None


def keeping_of(args: argparse.Namespace, settings: Settings) -> store.Keeping:
    """Return how long backups are kept."""
    days = settings.backup_keep_days if args.keep_days is None else args.keep_days
    return store.Keeping(days, settings.backup_keep_weeks)


def keys_of(settings: Settings) -> Keys:
    """Return the keys that encrypt and decrypt backups."""
    texts = (settings.backup_encryption_key, settings.backup_encryption_key_previous)
    return Keys(tuple(config.encryption_key(text) for text in texts if text))


def teller() -> Callable[[str], None]:
    """Return what tells, on one line, how far it is: to a person who watches, to nobody else."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda what: print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def described(backup: Backup) -> dict[str, Any]:
    """Return what `--json` says of a backup."""
    left_out = {"contents", "format"}
    said = {name: value for name, value in backup.manifest.items() if name not in left_out}
    return {"file": backup.location, **said}


def summary(backup: Backup) -> str:
    """Return a line on a backup, for people."""
    manifest = backup.manifest
    if "rows" not in manifest:
        what = f"the server's files  PostgreSQL {manifest['server_version']}"
    else:
        what = (
            f"{manifest['rows']:,} rows  {manifest['migrations'][-1]}  "
            f"PostgreSQL {manifest['server_version']}"
        )
    return (
        f"{manifest['taken_at']}  {manifest['bytes'] / 1e6:,.1f} MB  {what}"
        f"{'  encrypted' if backup.is_sealed else ''}"
    )
