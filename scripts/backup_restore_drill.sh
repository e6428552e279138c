#!/bin/sh
# Back up, restore into a scratch PostgreSQL, compare and verify: exit 1 on any difference.
# The variables are those of backup_pg.sh, the arguments those of `sofinance drill`.
set -eu
. "$(dirname "$0")/backup_env.sh"

if [ -z "${BACKUP_URL:-}${BACKUP_URL_FILE:-}" ]; then
    needs POSTGRES_HOST POSTGRES_DB POSTGRES_USER POSTGRES_PASSWORD
    use_postgres_variables
    BACKUP_URL=$(url_of "$POSTGRES_DB")
    export BACKUP_URL
fi
sofinance drill "$@"
