#!/bin/sh
# Run once, when the database is made: the two roles that sign in, with their passwords. What they
# may do is the first migration's.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
    -v app="$(cat /run/secrets/app_password)" -v backup="$(cat /run/secrets/backup_password)" <<'SQL'
create role sofinance_app login password :'app';
create role sofinance_backup login password :'backup';
SQL
