"""`sofinance keys`: files of one's own, the states they are in, and what to do next."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sofinance.cli import main
from sofinance.infra.key_files import make_key

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    capsys.readouterr()
    assert main(["keys", "list", "--dir", str(folder), "--json"]) == 0
    rows: list[Any] = json.loads(capsys.readouterr().out)
    return rows


def test_a_rotation_from_the_first_key_to_the_removal_of_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "keys"
    folder.mkdir()
    now = datetime.now(UTC)
    make_key(folder, "es256", now=now - timedelta(days=2))
    make_key(folder, "eddsa", now=now - timedelta(days=1))
    assert [row["state"] for row in listed(folder, capsys)] == ["retired", "signing"]
    words = ["keys", "rotate", "--dir", str(folder), "--remove-retired", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["removed"]) == 1
    assert told["signs_in_s"] == 120
    assert [row["state"] for row in listed(folder, capsys)] == ["signing", "waiting"]


def test_a_first_key_makes_its_directory_and_signs_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "new" / "keys"
    assert main(["keys", "rotate", "--dir", str(folder), "--kind", "hs256"]) == 0
    out = capsys.readouterr().out
    assert "It signs 0 s from now" in out
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert path.read_text().strip() not in out
    (row,) = listed(folder, capsys)
    assert (row["state"], row["algorithm"], row["source"]) == ("signing", "HS256", path.name)
    assert main(["keys", "list", "--dir", str(folder)]) == 0
    assert capsys.readouterr().out.count("\t") == 4


def test_it_asks_where_the_keys_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("JWT_KEYS_DIR", raising=False)
    assert main(["keys", "list"]) == 2
    assert "--dir or JWT_KEYS_DIR" in capsys.readouterr().err
