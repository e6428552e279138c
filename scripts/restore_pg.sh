#!/bin/sh
# Restore a dump: restore_pg.sh DUMP [DATABASE]. The database is made if it is missing, and must be
# empty. POSTGRES_HOST, POSTGRES_DB, POSTGRES_USER, POSTGRES_PASSWORD of a superuser (or RESTORE_URL).
#
# A dump of `sofinance backup` is checked, compared and verified. Another program's, in plain SQL, is
# run as it is, in one transaction; with CREATE DATABASE in it only if ALLOW_CREATE_IN_DUMP=1.
set -eu
. "$(dirname "$0")/backup_env.sh"

if [ $# -lt 1 ]; then
    echo "usage: $(basename "$0") DUMP [DATABASE]" >&2
    exit 2
fi
dump=$1
database=${2:-${POSTGRES_DB:-}}
[ $# -lt 2 ] && shift 1 || shift 2
if [ -n "$database" ] || [ -z "${RESTORE_URL:-}${RESTORE_URL_FILE:-}" ]; then
    needs POSTGRES_HOST POSTGRES_USER POSTGRES_PASSWORD database
    use_postgres_variables
    RESTORE_URL=$(url_of "$database")
    export RESTORE_URL
fi

if [ ! -f "$dump" ] || [ -f "$dump.json" ] || [ "$(head -c 5 "$dump")" = PGDMP ]; then
    sofinance restore "$dump" --create "$@"
    exit
fi
once=--single-transaction
if grep -aqiE '^[[:space:]]*CREATE[[:space:]]+DATABASE' "$dump"; then
    if [ "${ALLOW_CREATE_IN_DUMP:-}" != 1 ]; then
        echo "$(basename "$0"): $dump creates a database; ALLOW_CREATE_IN_DUMP=1 lets it." >&2
        exit 1
    fi
    once=--no-psqlrc # CREATE DATABASE does not work within a transaction
fi
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 $once --dbname "$RESTORE_URL" --file "$dump"
