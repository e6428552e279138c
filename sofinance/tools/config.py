"""`sofinance config`: check the settings without starting anything, and show where each is from."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from sofinance import config
from sofinance.infra.captcha import Captcha
from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD, EXIT_USAGE, SetupError
from sofinance.infra.keys import KeyRing
from sofinance.infra.secret_ages import DAY_S, Age, ages
from sofinance.infra.settings_layers import likely_meant

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping

MASKED = "[secret]"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "config",
        help="check the settings, or show them and where they come from",
        description="Reads the environment as the service does. docs/administration.md tells more.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="tell everything that is wrong, and secrets that are too old",
        description="Exit code 0: good; 1: a secret is older than its limit; 2: something is "
        "wrong, and the service would not start.",
    )  # fmt: skip
    check.set_defaults(run=run_check)
    show = actions.add_parser("show", help="show every setting; secrets are masked")
    show.add_argument("--origin", action="store_true", help="say where each comes from")
    show.set_defaults(run=run_show)
    for action in (check, show):
        action.add_argument("--json", action="store_true", help="print JSON, for scripts")


def run_check(args: argparse.Namespace) -> int:
    """Tell every problem at once, by the names of the variables."""
    layers = config.layers(os.environ)
    values, problems = config.read(layers)
    ring = None
    if not problems:
        settings = config.Settings(**values)
        for make in (KeyRing.configured, Captcha.configured):
            try:
                made = make(settings)
            except SetupError as error:
                problems.append(error.message)
            else:
                ring = made if isinstance(made, KeyRing) else ring
    known = ages(layers, ring, now=datetime.now(UTC))
    old = [told(age) for age in known if age.is_too_old]
    unknown = [age.secret.upper() for age in known if age.age_s is None]
    meant = likely_meant(config.FIELDS, os.environ)
    if args.json:
        found = {"problems": problems, "too_old": old, "age_unknown": unknown, "meant": meant}
        print(orjson.dumps(found).decode())
    else:
        print("\n".join(lines(problems, old, unknown, meant)))
    if problems:
        return EXIT_USAGE
    return EXIT_FAILED if old else EXIT_GOOD


def lines(
    problems: list[str], old: list[str], unknown: list[str], meant: Mapping[str, str]
) -> Iterable[str]:
    """Yield what a person reads."""
    yield from (f"wrong: {problem}" for problem in problems)
    yield from (f"perhaps: {given} sets nothing; is {name} meant?" for given, name in meant.items())
    yield from (f"old: {text}" for text in old)
    if unknown:
        yield f"unknown age: {', '.join(unknown)}; SECRETS_ROTATED_ON says it."
    if not problems and not old:
        yield "The settings are good."


def told(age: Age) -> str:
    """Say how old a secret is."""
    days, limit_days = int((age.age_s or 0) // DAY_S), int(age.limit_s // DAY_S)
    return f"{age.secret.upper()} is {days} days old; after {limit_days} it ought to be another."


def run_show(args: argparse.Namespace) -> int:
    """Print each setting, its value and, if asked, where it comes from."""
    layers = config.layers(os.environ)
    values, problems = config.read(layers, required=())
    rows = [row(name, values, layers) for name in config.FIELDS]
    if args.json:
        print(orjson.dumps({"settings": rows, "problems": problems}).decode())
    else:
        width = max(len(each["name"]) for each in rows)
        for each in rows:
            value = each["value"]
            text = str(value).lower() if isinstance(value, bool) else str(value)
            line = f"{each['name']:{width}}  {text}"
            print((f"{line}  ({each['origin']})" if args.origin else line).rstrip())
        for problem in problems:
            print(f"wrong: {problem}")
    return EXIT_USAGE if problems else EXIT_GOOD


def row(name: str, values: Mapping[str, Any], layers: config.Layers) -> dict[str, Any]:
    """Return a setting as it is shown."""
    declared = config.FIELDS[name]
    source = config.source_of(declared, layers)
    value = values.get(name, declared.default)
    if source is not None and name not in values:
        value = "[wrong]"
    elif declared.metadata["secret"] and value:
        value = MASKED
    origin = "default" if source is None else str(source)
    return {"name": name.upper(), "value": value, "origin": origin}
