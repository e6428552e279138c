#!/bin/sh
# Back up one database: POSTGRES_HOST, POSTGRES_DB, POSTGRES_USER, POSTGRES_PASSWORD (or BACKUP_URL);
# BACKUP_DIR (./backups), RETENTION_DAYS (7). The role must see all rows: sofinance_backup.
set -eu
. "$(dirname "$0")/backup_env.sh"

if [ -z "${BACKUP_URL:-}${BACKUP_URL_FILE:-}" ]; then
    needs POSTGRES_HOST POSTGRES_DB POSTGRES_USER POSTGRES_PASSWORD
    use_postgres_variables
    BACKUP_URL=$(url_of "$POSTGRES_DB")
    export BACKUP_URL
fi
sofinance backup --keep-days "${RETENTION_DAYS:-7}" "$@"
