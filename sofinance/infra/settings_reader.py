"""How settings are declared, read and checked; which there are stands in config.py."""

from __future__ import annotations

from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sofinance.infra.command import EXIT_USAGE, SetupError
from sofinance.infra.settings_layers import Layers, read_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    # Takes the variable's name and its text; returns the text, or raises a ValueError.
    Check = Callable[[str, str], str]
    # Yields what is wrong with settings together; it is given what looks a value up.
    Rules = Callable[[Callable[[str], Any]], Iterable[str]]

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


class SettingsError(SetupError):
    """One or more settings are missing or wrong; the message has a line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        count = len(self.problems)
        what = "1 setting is" if count == 1 else f"{count} settings are"
        super().__init__(f"{what} wrong:{lines}", exit_code=EXIT_USAGE)


def setting(  # noqa: PLR0913 - the one place where all that can be said of a setting is said
    default: str | int | bool,  # noqa: FBT001 - a default may be one
    why: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: int | None = None,
    high: int | None = None,
    secret: bool = False,
    required: bool = False,
    required_in: str = "",
    unless: str = "",
    also: tuple[str, ...] = (),
    example: str = "",
    max_age_days: int = 180,
    check: Check | None = None,
) -> Any:
    """Declare a setting: its default, what it is for, its bounds and its other names.

    A required one may be left out where the setting `unless` is given; one that is `required_in` an
    environment is required nowhere else. A secret older than `max_age_days` is reported. A text of
    a form of its own has a `check`, of settings_checks.py.
    """
    return field(
        default=default,
        repr=not secret,
        metadata={
            "why": why, "unit": unit, "choices": choices, "low": low, "high": high,
            "secret": secret, "required": required, "required_in": required_in, "unless": unless,
            "also": also,
            "example": example, "max_age_days": max_age_days, "check": check,
        },
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the settings that `fields` declare, and holds them to their rules.

    Those of `rules` are for every command, those of `serving` for what serves or runs jobs.
    """

    fields: Mapping[str, Field[Any]]
    rules: Rules
    serving: Rules

    @property
    def required(self) -> tuple[str, ...]:
        """Return the names of the settings that the service cannot do without, here or there."""
        return tuple(
            name
            for name, declared in self.fields.items()
            if declared.metadata["required"] or declared.metadata["required_in"]
        )

    def layers(self, environ: Mapping[str, str]) -> Layers:
        """Return where settings are given: the environment and the files that go with it."""
        return read_layers(self.fields, environ)

    def read(
        self, layers: Layers, required: Iterable[str], *, serves: bool
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the values that are given and good, and every problem."""
        problems = list(layers.problems)
        wrong: set[str] = set()
        values: dict[str, Any] = {}
        for name, declared in self.fields.items():
            try:
                text = text_of(declared, layers)
                if text is not None:
                    values[name] = _parse(declared, text)
            except ValueError as problem:
                source = source_of(declared, layers)
                where = f"{source.layer}: " if source is not None and source.layer else ""
                problems.append(f"{where}{problem}")
                wrong.add(name)
        for rules in (self.rules, self.serving) if serves else (self.rules,):
            problems += rules(lambda name: values.get(name, self.fields[name].default))
        return values, problems + self.missing(values.get, (n for n in required if n not in wrong))

    def missing(self, get: Callable[[str], Any], names: Iterable[str]) -> list[str]:
        """Return a problem for each setting that is not given, nor what makes up for it."""
        problems = []
        for name in names:
            rule = self.fields[name].metadata
            if rule["required_in"] not in {"", get("environment")}:
                continue
            if not get(name) and not (rule["unless"] and get(rule["unless"])):
                problems.append(f"{name.upper()} is missing. {rule['why']}")
        return problems


@dataclass(frozen=True, slots=True)
class Source:
    """Where a setting was given: in a variable, or in the file that a variable names.

    `layer` is the file in which the variable stands, empty for the environment itself.
    """

    variable: str
    path: Path | None = None
    layer: str = ""

    def __str__(self) -> str:
        named = self.variable if self.path is None else f"{self.variable}: {self.path}"
        return f"{self.layer}: {named}" if self.layer else named

    def changed_at_s(self) -> float | None:
        """Return when the file was last written; None for a variable, or if it is gone."""
        try:
            return None if self.path is None else self.path.stat().st_mtime
        except OSError:
            return None


def source_of(declared: Field[Any], layers: Layers) -> Source | None:
    """Return where a setting was given; None when its default holds."""
    found = _find(declared, layers)
    return None if found is None else found[0]


def text_of(declared: Field[Any], layers: Layers) -> str | None:
    """Return the text of a setting; None when its default holds.

    A ValueError says why the file of a secret is not read.
    """
    found = _find(declared, layers)
    if found is None:
        return None
    source, text = found
    if source.path is None:
        return text
    if text:
        variable = source.variable.removesuffix("_FILE")
        raise ValueError(f"{variable} and {source.variable} are both set; keep one of them.")
    try:
        content = source.path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ValueError(f"{source.variable}: cannot read {source.path}: {why}.") from None
    if not content:
        raise ValueError(f"{source.variable}: {source.path} is empty.")
    return content


def _find(declared: Field[Any], layers: Layers) -> tuple[Source, str] | None:
    """Return the strongest layer's variable, or another name of it, and its text."""
    for layer in layers.found:
        for variable in (declared.name.upper(), *declared.metadata["also"]):
            text = layer.texts.get(variable, "").strip()
            path = (
                layer.texts.get(f"{variable}_FILE", "").strip()
                if declared.metadata["secret"]
                else ""
            )
            if path:
                return Source(f"{variable}_FILE", Path(path), layer.name), text
            if text:
                return Source(variable, None, layer.name), text
    return None


def _parse(declared: Field[Any], text: str) -> Any:
    """Return the value of a setting; a ValueError says in a sentence what is wrong with it."""
    variable, rule = declared.name.upper(), declared.metadata
    shown = "the given value" if rule["secret"] else repr(text)
    if declared.type == "bool":
        if text.lower() not in TRUE | FALSE:
            raise ValueError(f"{variable} must be true or false, not {shown}.")
        return text.lower() in TRUE
    if declared.type == "int":
        unit = f" {rule['unit']}" if rule["unit"] else ""
        low, high = rule["low"], rule["high"]
        # isdecimal alone would let other scripts' digits pass; int() alone '1_000' and ' 5'.
        if not (text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high):
            raise ValueError(
                f"{variable} must be a whole number from {low} to {high}{unit}, not {shown}."
            )
        return int(text)
    if rule["choices"]:
        by_fold: dict[str, str] = {choice.lower(): choice for choice in rule["choices"]}
        if text.lower() not in by_fold:
            choices = ", ".join(rule["choices"])
            raise ValueError(f"{variable} must be one of {choices}, not {shown}.")
        return by_fold[text.lower()]
    return rule["check"](variable, text) if rule["check"] else text
