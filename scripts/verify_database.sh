#!/bin/sh
# Recompute the books of DATABASE_URL from the rows: exit 1 if anything is broken.
set -eu
. "$(dirname "$0")/backup_env.sh"

sofinance verify "$@"
