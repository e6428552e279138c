"""Tills that post sales over HTTP: a load generator that is cheaper than what it measures.

Run in a process of its own: ``python -m bench.load`` with a job as JSON on stdin, the figures as
JSON on stdout. Every till has one connection and waits for each answer, as a real one does. It is
one epoll loop over raw sockets that sends ready-made bytes: some 25 us of processor per request,
against a millisecond of the service and PostgreSQL, and as much as pgbench takes for its own.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

READ_BYTES = 65_536
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"Content-Length: "


@dataclass(slots=True)
class Till:
    """One connection and what it sends next."""

    sock: socket.socket
    bodies: list[bytes]
    head: bytes
    number: int
    sent: int = 0
    began_s: float = 0.0
    buffer: bytes = b""
    durations_s: list[float] = field(default_factory=list)

    def send(self) -> None:
        """Post the next sale, each under a key of its own."""
        body = self.bodies[self.sent % len(self.bodies)]
        self.sent += 1
        self.began_s = time.perf_counter()
        self.sock.sendall(b"%b%d-%d-%d\r\nContent-Length: %d\r\n\r\n%b" % (
            self.head, os.getpid(), self.number, self.sent, len(body), body
        ))  # fmt: skip

    def receive(self) -> bool:
        """Read what came; True when the answer is whole."""
        self.buffer += self.sock.recv(READ_BYTES)
        end = self.buffer.find(END_OF_HEAD)
        if end < 0:
            return False
        at = self.buffer.index(LENGTH) + len(LENGTH)
        length = int(self.buffer[at : self.buffer.index(b"\r", at)])
        if len(self.buffer) < end + len(END_OF_HEAD) + length:
            return False
        if self.buffer[9:12] != b"201":
            raise RuntimeError(self.buffer.decode(errors="replace"))
        self.buffer = b""
        self.durations_s.append(time.perf_counter() - self.began_s)
        return True


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Keep all tills busy for the job's time; return how many sales, how long, at what cost."""
    head = (
        f"POST {job['path']} HTTP/1.1\r\nHost: {job['host']}\r\nUser-Agent: till\r\n"
        f"Authorization: Bearer {job['token']}\r\nContent-Type: application/json\r\n"
        "Idempotency-Key: "
    ).encode()
    poller = select.epoll()
    tills: dict[int, Till] = {}
    for number, bodies in enumerate(job["bodies"]):
        sock = socket.create_connection((job["host"], job["port"]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        till = Till(sock, [body.encode() for body in bodies], head, number)
        tills[sock.fileno()] = till
        poller.register(sock, select.EPOLLIN)
    cpu_began_s, began_s = time.process_time(), time.perf_counter()
    until_s = began_s + job["seconds"]
    for till in tills.values():
        till.send()
    waiting = len(tills)
    while waiting:
        for fileno, _ in poller.poll():
            till = tills[fileno]
            if not till.receive():
                continue
            if time.perf_counter() < until_s:
                till.send()
            else:
                waiting -= 1
    elapsed_s = time.perf_counter() - began_s
    durations_s = [duration_s for till in tills.values() for duration_s in till.durations_s]
    return {
        "count": len(durations_s),
        "elapsed_s": elapsed_s,
        "cpu_s": time.process_time() - cpu_began_s,
        "durations_s": durations_s,
    }


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
