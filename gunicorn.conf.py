"""gunicorn's settings: `gunicorn -c gunicorn.conf.py` runs one worker process per core and more.

The application's own settings are those of .env.example; gunicorn's may be overridden on its
command line or in GUNICORN_CMD_ARGS.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sofinance.config import load
from sofinance.infra.command import SetupError

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

try:
    load(os.environ)
except SetupError as error:
    # Here, once, and not in every worker with a traceback each.
    print(f"sofinance: {error.message}", file=sys.stderr)
    sys.exit(error.exit_code)

wsgi_app = "sofinance.app:gunicorn_app"
worker_class = "aiohttp.GunicornUVLoopWebWorker"
bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
# Twice the cores: while one worker waits for a commit on disk, the other has the core.
workers = int(os.environ.get("WEB_CONCURRENCY", 2 * multiprocessing.cpu_count()))
# A worker that has not reported for this long hangs and is replaced.
timeout = 60
# What was begun is answered for this long after SIGTERM.
graceful_timeout = 20
keepalive = 75
# The middleware writes a JSON line per request.
accesslog = None
errorlog = "-"
# Nobody steers a running gunicorn here, so nothing listens for it.
control_socket_disable = True
# gunicorn's heartbeat files: on a disk they would stall a worker with the disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn's own files

# All workers' metrics add up to one answer of /metrics, by way of files. prometheus_client reads
# the variable when it is imported, so it is set before, and nothing here imports it at the top.
METRICS_DIR_IS_OURS = not os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if METRICS_DIR_IS_OURS:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="sofinance-metrics-")


def child_exit(_server: Arbiter, worker: Any) -> None:
    """Drop what a worker that ended said of itself alone."""
    from prometheus_client import multiprocess  # noqa: PLC0415 - not before the variable is set

    multiprocess.mark_process_dead(worker.pid)


def on_exit(_server: Arbiter) -> None:
    """Remove the workers' metrics, if the directory is one we made."""
    if METRICS_DIR_IS_OURS:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
