"""A receiver of traces and of error reports, as a process of its own: it keeps what is posted.

``python -m tests.ops.receiver PORT FOLDER [STATUS]`` answers every POST with the status and writes
its path, its headers and its body into the folder, a file each.
"""

from __future__ import annotations

import gzip
import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

NUMBERS = itertools.count()


class Posted(NamedTuple):
    """What was posted."""

    path: str
    headers: dict[str, str]
    body: bytes


class Keeper(BaseHTTPRequestHandler):
    """Keeps what is posted, and says nothing."""

    folder: Path
    status = 200

    def do_POST(self) -> None:
        """Keep it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        half = self.folder / f"{next(NUMBERS):06}.half"
        half.write_bytes(json.dumps([self.path, headers]).encode() + b"\n" + body)
        half.rename(half.with_suffix(".posted"))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def posted(folder: Path) -> list[Posted]:
    """Return what was posted so far."""
    found = []
    for path in sorted(folder.glob("*.posted")):
        head, _, body = path.read_bytes().partition(b"\n")
        found.append(Posted(*json.loads(head), body))
    return found


if __name__ == "__main__":
    port, folder, *status = sys.argv[1:]
    Keeper.folder, Keeper.status = Path(folder), int(*status or (200,))
    ThreadingHTTPServer(("127.0.0.1", int(port)), Keeper).serve_forever()
