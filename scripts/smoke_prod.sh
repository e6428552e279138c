#!/bin/sh
# Ask a running service whether it works: scripts/smoke_prod.sh https://office.example.com
# With SMOKE_EMAIL and SMOKE_PASSWORD also whether its books balance. docs/deploy.md
set -eu
. "$(dirname "$0")/backup_env.sh"

sofinance smoke "$@"
