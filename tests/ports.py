"""Ports for what a test starts later, or never: nobody else gets them meanwhile.

A port that the system gives and that is let go again may be another test's, or the near end of
anybody's connection, before it is used; and who knocks in vain at one of those ports can end up
talking to itself, and keep a server from coming back there. So these lie below what the system
gives by itself, and a UDP socket of the same number keeps each from other processes of the tests
till this one ends.
"""

from __future__ import annotations

import socket
from secrets import randbelow
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FIRST, LAST = 12_000, 32_000  # on Linux the system gives those from 32,768 on
TRY_COUNT_MAX = 1_000
HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that nobody listens on, and that is given to no other test."""
    for _ in range(TRY_COUNT_MAX):
        port = FIRST + randbelow(LAST - FIRST)
        with socket.socket(type=socket.SOCK_DGRAM) as kept, socket.socket() as probe:
            try:
                kept.bind((HOST, port))
                probe.bind((HOST, port))
            except OSError:
                continue
            kept.detach()  # stays open till the process ends
            return port
    raise RuntimeError("no port is free")


def settle(data: Path) -> None:
    """Choose where the embedded server of a data directory listens, now and when it comes back."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "lock").touch()  # by which the server knows the directory for its own
    (data / "port").write_text(f"{free_port()}\n", "utf-8")
