"""gunicorn's own settings, derived from ours; whatever gunicorn has besides may be given to it.

`sofinance serve --workers N` and `gunicorn -c gunicorn.conf.py` read them here. A reload (HUP)
reads them again; ours are then taken from their files, and kept as they were if something is wrong.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from sofinance.infra import gunicorn_state
from sofinance.infra.command import SetupError

METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
METRICS_DIR_IS_OURS = "SOFINANCE_METRICS_DIR_IS_OURS"
# Between the last answer's deadline and a SIGKILL.
MARGIN_S = 5

try:
    ours = gunicorn_state.read()
except SetupError as error:
    # Here, once, and not in every worker with a traceback each.
    print(f"sofinance: {error.message}", file=sys.stderr, flush=True)  # noqa: T201
    if not gunicorn_state.has_read():
        sys.exit(error.exit_code)
    print("sofinance: the settings stay as they were.", file=sys.stderr, flush=True)  # noqa: T201
    ours = gunicorn_state.settings()

wsgi_app = "sofinance.app:gunicorn_app"
worker_class = "sofinance.infra.gunicorn_worker.Worker"
bind = f"[{ours.host}]:{ours.port}" if ":" in ours.host else f"{ours.host}:{ours.port}"
# Twice the cores: while one worker waits for a commit on disk, the other has the core.
workers = ours.web_concurrency or 2 * multiprocessing.cpu_count()
# A worker that has not reported for this long hangs and is replaced.
timeout = ours.web_timeout_s
# First the delay in which requests go elsewhere, then what was begun is answered.
graceful_timeout = ours.drain_delay_s + ours.shutdown_timeout_s + MARGIN_S
# The middleware writes a JSON line per request.
accesslog = None
errorlog = "-"
# No max_requests: nothing is known to leak, and a worker that ends cuts idle connections.
# Nobody steers a running gunicorn here, so nothing listens for it.
control_socket_disable = True
# gunicorn's heartbeat files: on a disk they would stall a worker with the disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - its own files

# All workers' metrics add up to one answer of /metrics, by way of files. prometheus_client reads
# the variable when it is imported, so it is set before, and nothing here imports it at the top.
if not os.environ.get(METRICS_DIR):
    os.environ[METRICS_DIR] = tempfile.mkdtemp(prefix="sofinance-metrics-")
    os.environ[METRICS_DIR_IS_OURS] = str(os.getpid())


def on_starting(_server: Any) -> None:
    """Forget what workers of an earlier gunicorn counted: those numbers began at another zero."""
    if _server.master_pid:  # beside an older one, which still counts
        return
    folder = Path(os.environ[METRICS_DIR])
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.db"), *folder.glob("exemplars_*.json")):
        file.unlink(missing_ok=True)


def when_ready(server: Any) -> None:
    """Let workers tell the end of all from their own."""
    gunicorn_state.notice_stop(server)


def child_exit(_server: Any, worker: Any) -> None:
    """Drop what a worker that ended said of itself alone; its exemplars stay till they are old."""
    # Not before the variable is set.
    from prometheus_client import multiprocess  # noqa: PLC0415

    from sofinance.infra import exemplars  # noqa: PLC0415

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
    exemplars.forget_old(Path(os.environ[METRICS_DIR]))


def on_exit(_server: Any) -> None:
    """Remove the workers' metrics, if the directory is one we made."""
    if os.environ.get(METRICS_DIR_IS_OURS) == str(os.getpid()):
        shutil.rmtree(os.environ[METRICS_DIR], ignore_errors=True)
