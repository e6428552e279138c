"""Tills that sell one thing after the other, and count what they are answered."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.conftest import Shop

READS = ("/sales?size=1", "/journal/trial-balance", "/products?size=1")
PATIENCE_S = 120
# A request is always under way; without a pause they would take the machine from what is tested.
PAUSE_S = 0.02


class Load:
    """Some clients, each on a connection that it keeps: three sales, then something to read."""

    def __init__(self, port: int, shop: Shop, *, clients: int) -> None:
        self.port, self._shop = port, shop
        self.answers: Counter[int | str] = Counter()
        self.failures: list[str] = []
        self.sold: list[int] = []  # ids of acknowledged sales
        self.slowest_s = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._clients = [threading.Thread(target=self._sell) for _ in range(clients)]

    @property
    def count(self) -> int:
        """Return how many requests were answered."""
        return sum(self.answers.values())

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Sell for as long as a block runs."""
        for client in self._clients:
            client.start()
        try:
            yield self
        finally:
            self._ended.set()
            for client in self._clients:
                client.join(PATIENCE_S)
            assert not any(client.is_alive() for client in self._clients)

    def wait_for(self, more: int) -> None:
        """Wait till so many more requests were answered."""
        target, until_s = self.count + more, time.monotonic() + PATIENCE_S
        while self.count < target:
            assert time.monotonic() < until_s, f"{self.count} of {target} answers"
            time.sleep(0.02)

    def _sell(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        token = self._shop.org.admin.token
        sale = json.dumps(self._shop.sale(paid="11.00"))
        while not self._ended.wait(PAUSE_S):
            number = next(self._numbers)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            if number % 4:
                method, path, body = "POST", "/sales", sale
                headers["Idempotency-Key"] = f"sale-{number}"
            else:
                method, path, body = "GET", READS[number // 4 % len(READS)], ""
            began_s = time.monotonic()
            try:
                connection.request(method, f"/api/v1{path}", body or None, headers)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._note(repr(error), f"{method} {path}: {error!r}")
                continue
            took_s = time.monotonic() - began_s
            with self._lock:
                self.slowest_s = max(self.slowest_s, took_s)
            self._note(answer.status, f"{method} {path}: {answer.status} {content[:300]!r}")
            if answer.status == 201:
                sold: dict[str, Any] = json.loads(content)["data"]
                with self._lock:
                    self.sold.append(sold["id"])
        connection.close()

    def _note(self, answer: int | str, told: str) -> None:
        with self._lock:
            self.answers[answer] += 1
            if answer not in (200, 201):
                self.failures.append(told)
