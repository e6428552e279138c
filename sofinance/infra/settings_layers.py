"""Where settings may be given, from the strongest to the weakest.

1. the environment's variables, and a secret's file that ``<NAME>_FILE`` names
2. the environment file that SOFINANCE_ENV_FILE names: lines of ``NAME=value``
3. ``<environment>.yaml`` in SOFINANCE_CONFIG_DIR (``config``), such as ``production.yaml``
4. ``default.yaml`` there
5. the default in the code

Every layer is a map of variables to texts, so that one parser reads them all: in YAML ``no``
stays ``no`` and ``1_000`` is refused as it is anywhere else. Files hold nothing that is not
declared: a name with a typing error would otherwise be a setting that silently does not hold.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field
    from typing import Any

# What says where the files are cannot stand in them.
CONFIG_DIR, ENV_FILE = "SOFINANCE_CONFIG_DIR", "SOFINANCE_ENV_FILE"
CONFIG_DIR_DEFAULT = "config"
ENVIRONMENT = "ENVIRONMENT"
FILE_BYTES_MAX = 262_144
ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.ASCII)
QUOTES = ("'", '"')


@dataclass(frozen=True, slots=True)
class Layer:
    """One place where settings are given; `name` is empty for the environment itself."""

    name: str
    texts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layers:
    """All places, the strongest first, and what is wrong with them."""

    found: tuple[Layer, ...]
    problems: tuple[str, ...] = ()


def read_layers(fields: Mapping[str, Field[Any]], environ: Mapping[str, str]) -> Layers:
    """Read the files that go with an environment."""
    names = _Names.of(fields)
    problems: list[str] = []
    found = [Layer("", environ)]
    if path := environ.get(ENV_FILE, "").strip():
        file = Path(path)
        found.append(Layer(path, _checked(names, path, _env_file(file, problems), problems)))
    given = environ.get(CONFIG_DIR, "").strip()
    directory = Path(given or CONFIG_DIR_DEFAULT)
    if given and not directory.is_dir():
        problems.append(f"{CONFIG_DIR}: there is no directory {given}.")
    environments = fields["environment"].metadata["choices"]
    problems += _strays(directory, {"default", *environments})
    default = _yaml_layer(names, directory / "default.yaml", problems)
    chosen = next(
        (text for layer in (*found, default) if (text := layer.texts.get(ENVIRONMENT, "").strip())),
        str(fields["environment"].default),
    ).lower()
    # One that is not known is refused where it is read, and is no path here.
    if chosen in environments:
        own = _yaml_layer(names, directory / f"{chosen}.yaml", problems)
        if ENVIRONMENT in own.texts:
            problems.append(f"{own.name}: {ENVIRONMENT} is what chose this file; drop it here.")
        found.append(own)
    found.append(default)
    return Layers(tuple(layer for layer in found if layer.texts or not layer.name), tuple(problems))


def likely_meant(fields: Mapping[str, Field[Any]], environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables of the environment that are almost the name of a setting, and the name.

    They are not refused: the environment is not ours alone.
    """
    names = _Names.of(fields)
    found = {}
    for variable in environ:
        if variable not in names.all and "_" in variable:
            near = difflib.get_close_matches(variable, names.all, n=1, cutoff=0.88)
            if near and near[0] not in environ:
                found[variable] = near[0]
    return found


@dataclass(frozen=True, slots=True)
class _Names:
    """The variables that are declared, and those of them that are secrets."""

    all: frozenset[str]
    secrets: frozenset[str]

    @classmethod
    def of(cls, fields: Mapping[str, Field[Any]]) -> _Names:
        known, secrets = set(), set()
        for name, declared in fields.items():
            variables = {name.upper(), *declared.metadata["also"]}
            known |= variables
            if declared.metadata["secret"]:
                secrets |= variables
                known |= {f"{variable}_FILE" for variable in variables}
        return cls(frozenset(known), frozenset(secrets))


def _yaml_layer(names: _Names, path: Path, problems: list[str]) -> Layer:
    texts = _checked(names, str(path), _yaml(path, problems), problems)
    for variable in sorted(names.secrets & texts.keys()):
        del texts[variable]
        problems.append(
            f"{path}: {variable} is a secret: give it as a variable, in the environment file, or "
            f"in a file of its own that {variable}_FILE names."
        )
    return Layer(str(path), texts)


def _checked(
    names: _Names, where: str, given: Iterator[tuple[str, str]], problems: list[str]
) -> dict[str, str]:
    """Return what is declared and given once; the rest becomes problems."""
    texts: dict[str, str] = {}
    for key, text in given:
        variable = key.upper()
        if variable not in names.all:
            near = difflib.get_close_matches(variable, names.all, n=1)
            meant = f"; is {near[0]} meant?" if near else "."
            problems.append(f"{where}: {key} is no setting{meant}")
        elif variable in texts:
            problems.append(f"{where}: {key} is given twice.")
        else:
            texts[variable] = text
    return texts


def _yaml(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a YAML file: a flat map, whose values are texts or lists of them."""
    text = _text(path, problems) if path.exists() else None
    if not text:
        return
    try:
        # Scalars stay texts; nothing is constructed, and a map keeps keys that are given twice.
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problems.append(f"{path}{line}: this is not YAML.")
        return
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        problems.append(f"{path}: it must be a map of settings: `log_level: info`.")
        return
    for key, value in root.value:
        items = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(node, yaml.ScalarNode) for node in (key, *items)):
            problems.append(
                f"{path}, line {key.start_mark.line + 1}: a setting's value is a text, a number, "
                "yes or no, or a list."
            )
            continue
        yield key.value, ",".join(_scalar(node) for node in items)


def _scalar(node: yaml.ScalarNode) -> str:
    """Return the text of a scalar; what YAML calls null is nothing."""
    is_plain = node.style is None
    return "" if is_plain and node.value in {"~", "null", "Null", "NULL"} else str(node.value)


def _env_file(path: Path, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of an environment file; a value may be quoted, and nothing is expanded."""
    for number, line in enumerate((_text(path, problems) or "").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        pair = ASSIGNMENT.fullmatch(stripped)
        if pair is None:
            problems.append(f"{path}, line {number}: this is not NAME=value.")
            continue
        name, text = pair.groups()
        if len(text) > 1 and text[0] in QUOTES and text[-1] == text[0]:
            text = text[1:-1]
        yield name, text


def _text(path: Path, problems: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) <= FILE_BYTES_MAX:
            return content.decode()
        why = f"it has more than {FILE_BYTES_MAX} bytes"
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
    problems.append(f"Cannot read {path}: {why}.")
    return None


def _strays(directory: Path, stems: set[str]) -> Iterator[str]:
    """Yield a problem for each YAML file that no environment reads."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        is_yaml = path.suffix in {".yaml", ".yml"}
        if is_yaml and (path.stem not in stems or path.suffix == ".yml"):
            names = ", ".join(f"{stem}.yaml" for stem in sorted(stems))
            yield f"{path} is read in no environment: there are {names}."
