"""`sofinance restore`: bring a backup back into an empty database, and prove that it is whole."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from sofinance import config
from sofinance.backups import bring_back, confirmations, files, point_in_time, programs, store
from sofinance.infra import embedded
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, EXIT_USAGE, SetupError
from sofinance.infra.sql import Row
from sofinance.infra.storage import LocalStorage, open_storage
from sofinance.tools import verify
from sofinance.tools.backup import (
    folder_options,
    keys_of,
    place_of,
    segments_of,
    settings_of_folder,
    summary,
    teller,
)

if TYPE_CHECKING:
    from sofinance.config import Settings

# How many broken checks are told in a failure.
TOLD_COUNT_MAX = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "restore",
        help="restore a backup into an empty database, compare it and verify the books",
        description="Restore a backup in one transaction, compare each table and the ledger with "
        "what was backed up, migrate to this release and verify the books. A database that is not "
        "empty is refused; with a confirmation the backup takes its name, and it is kept under "
        "another. docs/backup.md.",
    )
    parser.add_argument(
        "backup", metavar="BACKUP", nargs="?", default="latest",
        help="latest, a name, a stamp or a file (latest)",
    )  # fmt: skip
    parser.add_argument(
        "--to", metavar="URL",
        help="the database to restore into, as a superuser or one who may create databases and "
        "become the four roles (RESTORE_URL)",
    )  # fmt: skip
    parser.add_argument("--create", action="store_true", help="make the database if there is none")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="check all and say what would be done; gives the confirmation, if one is needed",
    )  # fmt: skip
    parser.add_argument(
        "--confirm", default="", metavar="TOKEN",
        help="restore in place of a database that is not empty; from --dry-run, good once",
    )  # fmt: skip
    parser.add_argument(
        "--files-to", metavar="DIR",
        help="put the store's files into this directory, too; `store`: into the one of the "
        "settings, where they are missing",
    )  # fmt: skip
    parser.add_argument(
        "--switch-to", metavar="DATABASE",
        help="put a database that was restored beside in place of the one of --to, when its books "
        "verify; what was there is kept. --confirm takes the name of the one that is replaced",
    )  # fmt: skip
    parser.add_argument(
        "--at", type=_moment, metavar="TIME",
        help="go back to this moment, as 2025-11-21T14:30:00Z, or to `latest`; needs --into",
    )  # fmt: skip
    parser.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="with --at: a new data directory, which `sofinance dev --data DIR` can serve",
    )
    folder_options(parser)
    parser.set_defaults(run=run)


def _moment(text: str) -> datetime | str:
    if text == "latest":
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        why = f"{text!r} is no moment such as 2025-11-21T14:30:00Z, nor `latest`"
        raise argparse.ArgumentTypeError(why) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def run(args: argparse.Namespace) -> int:
    """Restore, or say what would be done."""
    settings = settings_of_folder(args)
    if args.at is not None or args.into is not None:
        return _to_a_point_in_time(args, settings)
    url = target_url(args, settings)
    if args.switch_to:
        return _switch(args, url)
    backup = store.open_backup(*store.find(place_of(settings), args.backup))
    if args.dry_run:
        return _dry_run(args, settings, backup, url)
    told = teller()
    means = bring_back.Means(keys_of(settings), verify_books, settings.pg_bin, told)
    restored = bring_back.restore(
        backup, url, confirmations_of(settings), means, confirm=args.confirm, create=args.create
    )
    brought = _files(args, backup, settings) if args.files_to else None
    told("")
    if args.json:
        said = {
            "ok": True, "file": backup.location, "files": brought, "database": restored.database,
            "tables": sorted(backup.contents(keys_of(settings).all)["tables"]),
            "rows": restored.rows, "migrated": restored.migrated,
            "kept_as": restored.kept_as or None, "seconds": restored.seconds,
        }  # fmt: skip
        print(json.dumps(said))
        return EXIT_GOOD
    print(f"restored {backup.name} into {restored.database}: {restored.rows:,} rows, all equal")
    for name in restored.migrated:
        print(f"applied {name}")
    if restored.kept_as:
        print(f"what was there before is kept as the database {restored.kept_as}")
    if brought:
        print(f"restored {brought['restored']:,} files; {brought['there']:,} were there")
    elif backup.manifest.get("files"):
        print(f"the backup has {backup.manifest['files']:,} files; --files-to brings them back")
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in restored.seconds.items())
    print(f"the books verify ({steps})")
    return EXIT_GOOD


def _files(args: argparse.Namespace, backup: store.Backup, settings: Settings) -> dict[str, int]:
    """Bring the files of a backup back; those that are there stay."""
    if not backup.manifest.get("files_are_copied"):
        raise SetupError(f"{backup.name} lists its files, and has no copies (BACKUP_FILES=list).")
    to = args.files_to
    storage = open_storage(settings) if to == "store" else LocalStorage(Path(to))
    return files.bring_back(backup, storage, keys_of(settings))


def _switch(args: argparse.Namespace, url: str) -> int:
    """Put a restored database in place of the live one, and keep that."""
    live = programs.database_of(url)
    if args.confirm != live:
        raise SetupError(
            f"{live} would be replaced by {args.switch_to}, and kept under another name. Nothing "
            f"was done; --confirm {live} does it.",
            exit_code=EXIT_FAILED,
        )
    verify_books(programs.with_database(url, args.switch_to))
    kept_as = bring_back.switch(url, args.switch_to)
    if args.json:
        print(json.dumps({"ok": True, "database": live, "kept_as": kept_as}))
    else:
        print(f"{args.switch_to} is {live} now; what was there is kept as {kept_as}")
    return EXIT_GOOD


def _to_a_point_in_time(args: argparse.Namespace, settings: Settings) -> int:
    """Replay a base backup and the log since in a new data directory, and verify the books."""
    if args.at is None or args.into is None:
        raise SetupError("--at and --into go together.", exit_code=EXIT_USAGE)
    at = args.at if isinstance(args.at, datetime) else None
    began, told = time.monotonic(), teller()
    base = point_in_time.base_for(place_of(settings), at)
    server = point_in_time.Recovery(
        args.into.absolute(), base, segments_of(settings), keys_of(settings), at, settings.pg_bin
    )
    told("replaying")
    try:
        server.start()
        url = server.url(embedded.SUPERUSER, server.database)
        replayed_to = server.replayed_to()
        told("verifying the books")
        verify_books(url)
    finally:
        server.stop()
    told("")
    said = {
        "ok": True, "base": base.name, "data": str(server.data), "database": server.database,
        "replayed_to": replayed_to, "rto_s": round(time.monotonic() - began, 3),
    }  # fmt: skip
    if args.json:
        print(json.dumps(said))
        return EXIT_GOOD
    print(f"replayed {base.name} and its log to {replayed_to}; the books verify")
    print(f"{said['rto_s']:.1f} s; the server is stopped, its data is in {server.data}")
    return EXIT_GOOD


def confirmations_of(settings: Settings) -> Path:
    """Return the directory of confirmations: that of backups, or this account's own."""
    if not settings.backup_dir.startswith("s3://"):
        return Path(settings.backup_dir).absolute()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sofinance"


def target_url(args: argparse.Namespace, settings: Settings) -> str:
    """Return the URL to restore into: --to, else RESTORE_URL."""
    if args.to is None:
        config.require(settings, ("restore_url",))
        return settings.restore_url
    try:
        return config.database_url("--to", args.to)
    except ValueError as error:
        raise SetupError(str(error), exit_code=EXIT_USAGE) from None


def _dry_run(args: argparse.Namespace, settings: Settings, backup: store.Backup, url: str) -> int:
    target = bring_back.look_at(url)
    if not target.exists and not args.create:
        raise SetupError(
            f"There is no database {target.name}; --create makes it.", exit_code=EXIT_USAGE
        )
    bring_back.check(backup, target, keys_of(settings), settings.pg_bin)
    token = (
        ""
        if target.is_empty
        else confirmations.issue(confirmations_of(settings), backup, target.identity)
    )
    if args.json:
        said = {
            "file": backup.location, "database": target.name, "exists": target.exists,
            "is_empty": target.is_empty, "confirm": token or None,
            "confirm_good_for_s": confirmations.GOOD_FOR_S if token else None,
        }  # fmt: skip
        print(json.dumps(said))
        return EXIT_GOOD
    print(f"{backup.name}  {summary(backup)}")
    if not token:
        print(f"It would be restored into {target.name}, which is empty. Nothing was done.")
        return EXIT_GOOD
    print(f"{target.name} is not empty. The backup would be restored beside it and take its name;")
    print("what is there now would stay, under another name. Nothing was done. To do it:")
    to = " --to ..." if args.to else ""  # it has a password
    print(f"  sofinance restore {backup.name}{to} --confirm {token}")
    print(f"This is good once, for {confirmations.GOOD_FOR_S // 60} minutes.")
    return EXIT_GOOD


def verify_books(url: str) -> None:
    """Verify the books of a database; raises BackupError when anything is broken."""
    broken = [finding for finding in findings_of(url) if finding.broken]
    if broken:
        shown = "; ".join(
            f"{each.check} ({each.broken:,} broken, first {json.dumps(each.first)})"
            for each in broken[:TOLD_COUNT_MAX]
        )
        raise store.BackupError(f"It was restored as it was, and its books are broken: {shown}.")


def findings_of(url: str) -> list[verify.Finding]:
    """Return what `sofinance verify` says of a database."""

    async def ask() -> list[verify.Finding]:
        conn: Any = await asyncpg.connect(url, record_class=Row)
        try:
            return await verify.verify(conn)
        finally:
            await conn.close()

    # In a thread of its own, so that whoever calls may have a loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()
