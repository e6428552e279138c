"""Confirmations: good once, for five minutes, for one backup and one database."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING

from sofinance.infra.command import EXIT_FAILED, SetupError
from sofinance.infra.embedded import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sofinance.backups.store import Backup

GOOD_FOR_S = 300
FOLDER = ".confirmations"


def issue(folder: Path, backup: Backup, target: str) -> str:
    """Return a token that confirms to restore this backup in place of this database."""
    # Hexadecimal: an argument of the command line that never begins with a hyphen.
    token = secrets.token_hex(16)
    noted = folder / FOLDER
    try:
        noted.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in noted.glob("*.json"):  # those that nobody used
            if time.time() - path.stat().st_mtime > GOOD_FOR_S:
                path.unlink(missing_ok=True)
        said = {
            "sha256": backup.manifest["sha256"],
            "target": target,
            "until": time.time() + GOOD_FOR_S,
        }
        write_private(_path(folder, token), json.dumps(said))
    except OSError as error:
        raise SetupError(f"Cannot write {noted}: {error.strerror}.") from None
    return token


def redeem(folder: Path, token: str, backup: Backup, target: str) -> None:
    """Use a token up; SetupError when it is not good for this backup and this database."""
    path = _path(folder, token)
    try:
        said = json.loads(path.read_text("utf-8"))
        path.unlink()  # only one can: whoever comes second finds none
    except FileNotFoundError:
        raise SetupError(
            "This confirmation is not known, was used, or is too old: --dry-run gives a new one.",
            exit_code=EXIT_FAILED,
        ) from None
    if said["until"] < time.time():
        raise SetupError(
            "This confirmation is too old: --dry-run gives a new one.", exit_code=EXIT_FAILED
        )
    if (said["sha256"], said["target"]) != (backup.manifest["sha256"], target):
        raise SetupError(
            "This confirmation is for another backup or another database.", exit_code=EXIT_FAILED
        )


def _path(folder: Path, token: str) -> Path:
    return folder / FOLDER / f"{hashlib.sha256(token.encode()).hexdigest()}.json"
