#!/bin/sh
# Run once, when the database is made: the roles that sign in, with their passwords. What they may do
# is the first migration's.
set -eu
psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" \
    -v owner="$(cat /run/secrets/owner_password)" -v app="$(cat /run/secrets/app_password)" \
    -v backup="$(cat /run/secrets/backup_password)" <<'SQL'
create role sofinance_owner login password :'owner';
create role sofinance_app login password :'app';
create role sofinance_backup login replication password :'backup';
SQL
# Who copies the server's files: the image's own lines let nobody in for that from elsewhere.
echo "host replication sofinance_backup all scram-sha-256" >>"$PGDATA/pg_hba.conf"
