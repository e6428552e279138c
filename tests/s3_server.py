"""A real server that speaks S3, as a process of its own: moto's, which can be stopped and begun."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

from sofinance.infra.storage_s3 import Target
from tests.ports import free_port

START_TIMEOUT_S = 180
BUCKET = "sofinance-tests"


class S3Server:
    """One server on a port of its own; what it keeps goes when it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it and make the bucket; the same port every time."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")  # noqa: S310 - ours
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - the same
                    return
            except (URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """End it, with all that it keeps."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def target(self, **changes: object) -> Target:
        """Return its bucket, to be asked with patience: what is gone refuses at once."""
        asked: dict[str, object] = {
            "bucket": BUCKET,
            "endpoint_url": self.url,
            "access_key_id": "tests",
            "secret_access_key": "tests",
            "connect_timeout_s": 10,
            "read_timeout_s": 30,
            "attempt_count_max": 2,
            **changes,
        }
        return Target(**asked)  # type: ignore[arg-type]

    def settings(self) -> dict[str, object]:
        """Return the settings of an application that keeps its files here."""
        return {
            "storage_backend": "s3",
            "s3_bucket": BUCKET,
            "s3_endpoint_url": self.url,
            "s3_access_key_id": "tests",
            "s3_secret_access_key": "tests",
            "s3_connect_timeout_s": 10,
            "s3_read_timeout_s": 30,
            "s3_attempts": 2,
        }
