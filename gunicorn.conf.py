"""gunicorn's settings: `gunicorn -c gunicorn.conf.py` runs two worker processes per core.

They stand in the package, so that `sofinance serve --workers N` has them without this file; what
is set below stands above them, as do gunicorn's command line and GUNICORN_CMD_ARGS.
"""

import runpy

# Run, not imported: a reload reads the settings anew.
globals().update(
    (name, value)
    for name, value in runpy.run_module("sofinance.infra.gunicorn_conf").items()
    if not name.startswith("__")
)
