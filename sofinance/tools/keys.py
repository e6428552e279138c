"""`sofinance keys`: make a new key to sign access tokens with, list those there are; reseal."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from sofinance import config
from sofinance.infra.command import EXIT_CANNOT_RUN, EXIT_GOOD, EXIT_USAGE, SetupError
from sofinance.infra.key_files import ALGORITHMS, listing, make_key
from sofinance.infra.keys import KeyRing
from sofinance.infra.times import iso
from sofinance.tools import reseal

if TYPE_CHECKING:
    import argparse

    from sofinance.config import Settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    keys = subparsers.add_parser(
        "keys",
        help="rotate or list the keys that sign access tokens; seal secrets anew",
        description="Keys are files in JWT_KEYS_DIR. Running services find a new one by "
        "themselves; docs/keys.md tells the steps.",
    )
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    rotate = actions.add_parser("rotate", help="make a key that will sign, and say what happens")
    rotate.add_argument(
        "--kind", choices=sorted(ALGORITHMS), default="eddsa",
        help="eddsa (Ed25519) and es256 can be verified by others, hs256 is a secret",
    )  # fmt: skip
    rotate.add_argument(
        "--remove-retired", action="store_true", help="remove keys that verify nothing any more"
    )
    rotate.set_defaults(run=run_rotate)
    show = actions.add_parser("list", help="list the keys and what they do now")
    show.set_defaults(run=run_list)
    reseal.add_parser(actions)
    for parser in (rotate, show):
        parser.add_argument("--dir", metavar="DIR", help="the directory of keys (JWT_KEYS_DIR)")
        parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def run_rotate(args: argparse.Namespace) -> int:
    """Make a key; the one that signs now goes on until the new one is known everywhere."""
    settings = _settings(args)
    folder = Path(settings.jwt_keys_dir)
    now = datetime.now(UTC)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_first = not listing(folder)
        path = make_key(folder, args.kind, now=now)
    except FileExistsError:
        raise SetupError("A key was made in this very second. Try again.") from None
    except OSError as error:
        raise SetupError(
            f"No key could be written into {folder}: {error.strerror}.", exit_code=EXIT_CANNOT_RUN
        ) from None
    removed = _remove_retired(settings, folder) if args.remove_retired else []
    signs_in_s = 0 if is_first else settings.jwt_key_activation_s
    retires_in_s = signs_in_s + settings.jwt_key_overlap_minutes * 60
    if args.json:
        made = {
            "made": str(path), "removed": removed,
            "signs_in_s": signs_in_s, "retires_others_in_s": retires_in_s,
        }  # fmt: skip
        print(orjson.dumps(made).decode())
        return EXIT_GOOD
    print(f"made {path}")
    for name in removed:
        print(f"removed {name}")
    print(f"It signs {signs_in_s} s from now, in every service that reads {folder}.")
    if not is_first:
        print(f"The keys before it verify for {retires_in_s // 60} minutes more; then remove them:")
        print("  sofinance keys rotate --remove-retired, the next time, or by hand.")
    print("Where services have copies of the directory, copy this file now, before it signs.")
    return EXIT_GOOD


def run_list(args: argparse.Namespace) -> int:
    """Print each key: its kid, algorithm, age, state and file."""
    ring = KeyRing.configured(_settings(args))
    now_s, signing = datetime.now(UTC).timestamp(), ring.signing
    rows = [
        {
            "kid": term.key.kid,
            "algorithm": term.key.algorithm,
            "made_at": (
                None if term.key.made_at_s is None
                else iso(datetime.fromtimestamp(term.key.made_at_s, UTC))
            ),
            "state": term.state(now_s, signing),
            "source": term.key.source,
        }
        for term in ring.terms
    ]  # fmt: skip
    if args.json:
        print(orjson.dumps(rows).decode())
    else:
        for row in rows:
            print("\t".join(str(value or "-") for value in row.values()))
    return EXIT_GOOD


def _settings(args: argparse.Namespace) -> Settings:
    given = dict(os.environ)
    if args.dir is not None:
        given["JWT_KEYS_DIR"] = args.dir
    settings = config.load_given(given)
    if not settings.jwt_keys_dir:
        raise SetupError("Say where the keys are: --dir or JWT_KEYS_DIR.", exit_code=EXIT_USAGE)
    return settings


def _remove_retired(settings: Settings, folder: Path) -> list[str]:
    ring = KeyRing.configured(settings)
    now_s, signing = datetime.now(UTC).timestamp(), ring.signing
    retired = [term.key.source for term in ring.terms if term.state(now_s, signing) == "retired"]
    for name in retired:
        (folder / name).unlink(missing_ok=True)
    return retired
