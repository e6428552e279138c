"""`sofinance smoke`: ask a service that runs whether it does what it should; it writes nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from sofinance.infra.command import EXIT_FAILED, EXIT_GOOD

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    Check = Callable[[], Awaitable[str | None]]

TIMEOUT_S = 10
EMAIL, PASSWORD = "SMOKE_EMAIL", "SMOKE_PASSWORD"
PROTECTED = ("X-Content-Type-Options", "Content-Security-Policy")
SOUGHT_VERSION_MAX = 64
ANSWERS = (OSError, TimeoutError, aiohttp.ClientError, ValueError, KeyError, TypeError)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "smoke",
        help="ask a running service whether it works; after a deployment",
        description="Asks health, documents, what a stranger is refused, and, with a sign-in in "
        f"{EMAIL} and {PASSWORD}, whether the books balance. Writes nothing but a session, which "
        "it ends. Exit code 1 if anything is not as it should be.",
    )
    parser.add_argument("url", help="where it is: https://office.example.com")
    parser.add_argument("--version-is", metavar="VERSION", help="the release that must answer")
    parser.set_defaults(run=run)


async def run(args: argparse.Namespace) -> int:
    """Check one thing after the other; tell each."""
    failed_count = 0
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        smoke = Smoke(session, args.url.rstrip("/"), args.version_is)
        for name, check in smoke.checks():
            began_s = time.monotonic()
            try:
                problem = await check()
            except ANSWERS as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            took_ms = round((time.monotonic() - began_s) * 1000)
            told = f"failed  {name}: {problem}" if problem else f"ok      {name}"
            print(f"{told} ({took_ms} ms)")
            failed_count += problem is not None
    print(f"{failed_count} checks failed" if failed_count else "all is well")
    return EXIT_FAILED if failed_count else EXIT_GOOD


@dataclass
class Smoke:
    """The checks: each returns what is wrong, or nothing."""

    session: aiohttp.ClientSession
    url: str
    version: str | None
    token: dict[str, str] = field(default_factory=dict)

    def checks(self) -> list[tuple[str, Check]]:
        """Return the checks in order, each with what it is about; a user's only if there is one."""
        of_all: list[tuple[str, Check]] = [
            ("The process lives", self.lives),
            ("It is ready: database, migrations, what else it needs", self.is_ready),
            ("It is the release that was deployed", self.tells_its_version),
            ("It documents itself", self.documents),
            ("It refuses who is not signed in", self.refuses_strangers),
            ("What is not there is said in its envelope", self.answers_in_its_envelope),
        ]
        of_a_user: list[tuple[str, Check]] = [
            ("A user signs in", self.signs_in),
            ("The books balance", self.balances),
            ("The session is ended", self.signs_out),
        ]
        return of_all + (of_a_user if os.environ.get(EMAIL) else [])

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Return the status, the body and the headers."""
        async with self.session.request(
            method, self.url + path, headers=self.token, allow_redirects=False, **options
        ) as answer:
            content = await answer.read()
            return answer.status, orjson.loads(content) if content else None, answer.headers

    async def lives(self) -> str | None:
        """Ask whether the process lives."""
        status, _, _ = await self.ask("GET", "/health/live")
        return None if status == 200 else f"/health/live: {status}"

    async def is_ready(self) -> str | None:
        """Ask for readiness."""
        status, body, _ = await self.ask("GET", "/health/ready")
        return None if status == 200 else f"/health/ready: {status} {body['error']['details']}"

    async def tells_its_version(self) -> str | None:
        """Compare the release."""
        _, body, _ = await self.ask("GET", "/health")
        running = str(body["data"]["version"])[:SOUGHT_VERSION_MAX]
        if self.version is not None and running != self.version:
            return f"{running} answers, not {self.version}"
        return None

    async def documents(self) -> str | None:
        """Ask for the API's description."""
        status, body, _ = await self.ask("GET", "/openapi.json")
        is_there = status == 200 and "/api/v1/sales" in body["paths"]
        return None if is_there else f"/openapi.json: {status}, or without sales"

    async def refuses_strangers(self) -> str | None:
        """Ask as a stranger."""
        status, body, headers = await self.ask("GET", "/api/v1/sales")
        if status != 401 or body["success"] is not False:
            return f"/api/v1/sales without a token: {status}"
        lacking = [name for name in PROTECTED if name not in headers]
        return f"no {', '.join(lacking)}" if lacking else None

    async def answers_in_its_envelope(self) -> str | None:
        """Ask for what is not there."""
        status, body, _ = await self.ask("GET", "/api/v1/nowhere")
        is_right = (status, body["error"]["code"]) == (404, "not_found")
        return None if is_right else f"/api/v1/nowhere: {status}"

    async def signs_in(self) -> str | None:
        """Sign in."""
        body = {"email": os.environ[EMAIL], "password": os.environ.get(PASSWORD, "")}
        status, answer, _ = await self.ask("POST", "/api/v1/auth/login", json=body)
        if status != 200:
            return f"{status} {answer['error']['code']}"
        self.token = {"Authorization": f"Bearer {answer['data']['access_token']}"}
        return None

    async def balances(self) -> str | None:
        """Ask for the trial balance."""
        status, body, _ = await self.ask("GET", "/api/v1/journal/trial-balance")
        if status != 200:
            return f"{status} {body['error']['code']}"
        return None if body["data"]["is_balanced"] else "they do not"

    async def signs_out(self) -> str | None:
        """Sign out."""
        status, _, _ = await self.ask("POST", "/api/v1/auth/logout")
        return None if status == 204 else f"{status}"
