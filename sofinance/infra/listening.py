"""The address that a process listens on."""

from __future__ import annotations

import errno
import socket

from sofinance.infra.command import SetupError


def listen(host: str, port: int) -> socket.socket:
    """Take the address before anything else is started, so that nothing is started in vain."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        # Not yet listening: a client is refused, not kept waiting, until we can answer.
    except OSError as error:
        taken.close()
        why = {
            errno.EADDRINUSE: "another program uses it; stop that one or give another port",
            errno.EACCES: "ports below 1024 need a right that this user has not",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, error.strerror or str(error))
        raise SetupError(f"Cannot listen on {host}:{port}: {why}.") from None
    return taken


def url_of(taken: socket.socket) -> str:
    """Return the URL that reaches the socket from this machine."""
    host, port = taken.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not bound
    return f"http://{host}:{port}"
