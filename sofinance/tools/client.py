"""A client of the API that does not give up at the first trouble: what importers post through.

Every POST carries an Idempotency-Key, so that one whose answer was lost is sent again safely. A
call is tried again for as long as its patience lasts, then it fails with one sentence.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson

from sofinance.infra.command import EXIT_FAILED, EXIT_USAGE, SetupError
from sofinance.tools.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

Item = TypeVar("Item")

PREFIX = "/api/v1"
PAGE_SIZE = 100
TIMEOUT_S = 30
PATIENCE_S = 60
BACKOFF_S = 0.05
BACKOFF_S_MAX = 2.0
RETRY_AFTER_S_MAX = 30.0
RELIST_COUNT_MAX = 3
# Nothing was done, or it is not known: a load limit, a restart, a proxy without a service.
TRANSIENT = frozenset({429, 502, 503, 504})
KEY_IN_USE = "idempotency_key_in_use"
NO_ANSWER = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, good or not."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def error(self) -> Mapping[str, Any]:
        """The envelope's error; empty where there is none."""
        return self.body.get("error") or {}

    @property
    def retry_after_s(self) -> float:
        """How long the service asks us to wait, within reason."""
        asked = self.headers.get("Retry-After", "")
        return min(float(asked), RETRY_AFTER_S_MAX) if asked.isdecimal() else 0.0


class RefusedError(SetupError):
    """The API refused a call: its code says which rule."""

    def __init__(self, what: str, answer: Answer) -> None:
        self.status = answer.status
        self.code = str(answer.error.get("code") or "")
        self.details: Mapping[str, Any] = answer.error.get("details") or {}
        said = str(answer.error.get("message") or "it does not say why").rstrip(".")
        details = f" ({orjson.dumps(self.details).decode()})" if self.details else ""
        super().__init__(
            f"{what} was refused with {answer.status} {self.code}: {said}{details}.",
            exit_code=EXIT_FAILED,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer; ``replayed`` if an earlier call with the same key was the one that did it."""

    status: int
    data: Any
    replayed: bool


class Client:
    """Calls as one user, who signs in again when the access token has expired."""

    def __init__(
        self,
        url: str,
        *,
        email: str = "",
        password: str = "",
        token: str = "",
        connections: int = 8,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url = url.rstrip("/").removesuffix(PREFIX)
        self._email, self._password, self._token = email, password, token
        self._connections, self.patience_s = connections, patience_s
        self._signing_in = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": "sofinance-import"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: Any) -> Any:
        """Return the data of a GET."""
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        return (await self.call("GET", f"{path}?{asked}" if asked else path)).data

    async def post(self, path: str, body: Mapping[str, Any], *, key: str = "") -> Reply:
        """Post; without a key of its own the call is only safe against being sent twice by us."""
        return await self.call("POST", path, body, key=key or str(uuid.uuid4()))

    async def list_all(self, path: str, **query: Any) -> list[Any]:
        """Return all items of a paged list, reading as many pages at once as we may."""
        first = await self.get(path, page=1, size=PAGE_SIZE, **query)
        pages: dict[int, list[Any]] = {1: first["items"]}

        async def read(page: int) -> None:
            pages[page] = (await self.get(path, page=page, size=PAGE_SIZE, **query))["items"]

        last = first["pagination"]["total_pages"]
        await for_each(range(2, last + 1), read, at_once=self._connections)
        return [item for page in sorted(pages) for item in pages[page]]

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str = ""
    ) -> Reply:
        """Call until there is an answer; raises RefusedError, or SetupError when there is none."""
        content = None if body is None else orjson.dumps(body)
        token = self._token or await self._sign_in("")
        answer = await self._persist(method, path, content, key, token)
        if answer.status == 401 and self._email:
            token = await self._sign_in(token)
            answer = await self._persist(method, path, content, key, token)
        if answer.status >= 400:
            raise RefusedError(f"{method} {path}", answer)
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        return Reply(answer.status, answer.body.get("data"), replayed)

    async def _sign_in(self, stale: str) -> str:
        """Return a token other than the stale one; whoever comes first gets it for all."""
        async with self._signing_in:
            if self._token != stale:
                return self._token
            if not self._email:
                raise SetupError(
                    "Say who posts: --email and --password, or --token.", exit_code=EXIT_USAGE
                )
            body = orjson.dumps({"email": self._email, "password": self._password})
            answer = await self._persist("POST", "/auth/login", body, "", "")
            if answer.status != 200:
                raise RefusedError(f"Signing in as {self._email}", answer)
            self._token = str(answer.body["data"]["access_token"])
            return self._token

    async def _persist(
        self, method: str, path: str, content: bytes | None, key: str, token: str
    ) -> Answer:
        """Send until there is an answer that sending again would not change."""
        began_s, pause_s = time.monotonic(), BACKOFF_S
        while True:
            wait_s = 0.0
            try:
                answer = await self._send(method, path, content, key, token)
            except NO_ANSWER as error:
                trouble = str(error) or "no answer in time"
            else:
                if answer.status not in TRANSIENT and answer.error.get("code") != KEY_IN_USE:
                    return answer
                trouble = str(answer.error.get("message") or f"status {answer.status}")
                wait_s = answer.retry_after_s
            if time.monotonic() - began_s > self.patience_s:
                raise SetupError(
                    f"{self.url} does not answer ({trouble.rstrip('.')}), tried for "
                    f"{self.patience_s:.0f} s. Run the same command again once it does: it goes "
                    "on where it stopped."
                )
            await asyncio.sleep(max(wait_s, pause_s * (0.5 + random.random() / 2)))  # noqa: S311
            pause_s = min(pause_s * 2, BACKOFF_S_MAX)

    async def _send(
        self, method: str, path: str, content: bytes | None, key: str, token: str
    ) -> Answer:
        if self._session is None:
            raise RuntimeError("use the client with `async with`")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        async with self._session.request(
            method, self.url + PREFIX + path, data=content, headers=headers
        ) as response:
            text = await response.read()
            return Answer(response.status, response.headers, json_object(text))


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Any]], *, at_once: int
) -> None:
    """Do the work for every item, some at once; the first failure ends the others."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    workers = [asyncio.create_task(take()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def ensure(
    client: Client,
    path: str,
    key: str,
    wanted: Mapping[str, Mapping[str, Any]],
    *,
    at_once: int,
    quiet: bool = False,
) -> dict[str, int]:
    """Create what is not there yet of the things that their key names; return the ids by key."""
    for _ in range(RELIST_COUNT_MAX):
        known = {row[key]: row["id"] for row in await client.list_all(path)}
        missing = [body for name, body in wanted.items() if name not in known]
        with Progress(path.strip("/").capitalize(), len(missing), quiet=quiet) as progress:
            create = functools.partial(_create, client, path, key, known, progress)
            await for_each(missing, create, at_once=at_once)
        if all(name in known for name in wanted):
            return {name: known[name] for name in wanted}
    raise SetupError(f"Others keep creating the same {path.strip('/')}; run one import at a time.")


async def _create(
    client: Client,
    path: str,
    key: str,
    known: dict[str, int],
    progress: Progress,
    body: Mapping[str, Any],
) -> None:
    try:
        known[body[key]] = (await client.post(path, body)).data["id"]
    except RefusedError as refused:
        # Somebody else made it since we looked, perhaps our own last run: look again.
        if not refused.code.endswith("_taken"):
            raise
    progress.step()


def json_object(text: bytes) -> dict[str, Any]:
    """Return the object that an answer holds; nothing, if a proxy wrote it and not the service."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
