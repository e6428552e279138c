#!/bin/sh
# Make the secrets that compose.yaml mounts, each in a file of its own; what is there stays.
# They are readable by all on this machine who may enter the directory, which is its owner alone:
# the containers read them as users of their own.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
umask 022
random() { [ -s "secrets/$1" ] || openssl rand -hex 32 >"secrets/$1"; }
for name in postgres_password owner_password app_password backup_password jwt_secret \
    data_encryption_key backup_encryption_key metrics_token s3_secret grafana_password; do
    random "$name"
done
of() { cat "secrets/$1"; }
# The service goes through PgBouncer; what changes the schema or copies all of it does not.
printf 'postgresql://sofinance_app:%s@pgbouncer:6432/sofinance\n' "$(of app_password)" >secrets/database_url
printf 'postgresql://postgres:%s@postgres:5432/sofinance\n' "$(of postgres_password)" >secrets/superuser_url
printf 'postgresql://sofinance_owner:%s@postgres:5432/sofinance\n' "$(of owner_password)" >secrets/owner_url
printf 'postgresql://sofinance_backup:%s@postgres:5432/sofinance\n' "$(of backup_password)" >secrets/backup_url
printf '"sofinance_app" "%s"\n' "$(of app_password)" >secrets/pgbouncer_users
echo "Secrets are in $(pwd)/secrets. Keep a copy elsewhere, apart from backups."
