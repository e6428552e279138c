"""`sofinance smoke`: what works is well, what does not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sofinance import __version__
from sofinance.app import MACHINE
from sofinance.cli import parser

if TYPE_CHECKING:
    import pytest

    from tests.support import Api, Org


async def smoke(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    args = parser(["smoke"]).parse_args(["smoke", *words])
    code: int = await args.run(args)
    # The service in this process logs to the same place.
    lines = [line for line in capsys.readouterr().out.splitlines() if line[0] != "{"]
    return code, [line.rpartition(" (")[0] or line for line in lines]


async def test_a_service_that_works_is_well(
    api: Api, org: Org, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMOKE_EMAIL", org.admin.email)
    monkeypatch.setenv("SMOKE_PASSWORD", org.admin.password)
    code, lines = await smoke(capsys, f"{api.base_url}/", "--version-is", __version__)
    assert lines == [
        "ok      The process lives",
        "ok      It is ready: database, migrations, what else it needs",
        "ok      It is the release that was deployed",
        "ok      It documents itself",
        "ok      It refuses who is not signed in",
        "ok      What is not there is said in its envelope",
        "ok      A user signs in",
        "ok      The books balance",
        "ok      The session is ended",
        "all is well",
    ]
    assert code == 0


async def test_what_is_wrong_is_named(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMOKE_EMAIL", "nobody@shop.example")
    code, lines = await smoke(capsys, api.base_url, "--version-is", "9.9.9")
    failed = [line for line in lines if line.startswith("failed")]
    assert failed[0] == (
        f"failed  It is the release that was deployed: {__version__} answers, not 9.9.9"
    )
    assert failed[1].startswith("failed  A user signs in: ")
    assert code == 1
    assert lines[-1] == f"{len(failed)} checks failed"


async def test_one_that_leaves_is_not_ready(
    api_with: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    api: Api = await api_with()
    api.app[MACHINE].draining = True
    code, lines = await smoke(capsys, api.base_url)
    (failed,) = [line for line in lines if line.startswith("failed")]
    assert failed.startswith("failed  It is ready: database, migrations, what else it needs: ")
    assert "shutdown" in failed
    assert code == 1


async def test_nobody_there_is_told_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = await smoke(capsys, "http://127.0.0.1:1")
    assert code == 1
    assert lines[-1] == "6 checks failed"
