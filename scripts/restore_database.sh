#!/bin/sh
# Restore latest, or a backup by its name or time (backup-20260115-1030), into RESTORE_URL:
# restore_database.sh latest [--create | --dry-run | --confirm TOKEN]
set -eu
. "$(dirname "$0")/backup_env.sh"

if [ $# -lt 1 ]; then
    echo "usage: $(basename "$0") latest | BACKUP [options of sofinance restore]" >&2
    exit 2
fi
sofinance restore "$@"
