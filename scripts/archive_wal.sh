#!/bin/sh
# Keep a segment of PostgreSQL's write-ahead log: archive_wal.sh PATH NAME DIR. For postgresql.conf:
#   archive_mode = on
#   archive_timeout = 300        # seconds; a quiet shop loses no more than that, either
#   archive_command = '/opt/sofinance/scripts/archive_wal.sh %p %f /srv/wal'
# PostgreSQL keeps the segment until this says, by 0, that it is on disk. Another of the same name is
# never overwritten; the same again is good: PostgreSQL asks twice when it crashed in between.
set -eu

if [ $# -ne 3 ]; then
    echo "usage: $(basename "$0") PATH NAME DIR" >&2
    exit 2
fi
kept=$3/$2
if [ -e "$kept" ]; then
    cmp -s "$1" "$kept" && exit 0
    echo "$(basename "$0"): $kept is there already, and is another one." >&2
    exit 1
fi
partial=$3/.$2.partial
dd if="$1" of="$partial" bs=1M conv=fsync status=none
mv "$partial" "$kept"
sync "$3"
