#!/bin/sh
# Weekly: every backup of BACKUP_DIR is there and whole, and the latest one comes back and adds up.
set -eu
. "$(dirname "$0")/backup_env.sh"

sofinance backup verify
sofinance drill --backup latest "$@"
