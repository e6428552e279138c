#!/bin/sh
# Keep a segment of PostgreSQL's write-ahead log: archive_wal.sh PATH NAME DIR. For postgresql.conf:
#   archive_mode = on
#   archive_timeout = 300        # seconds; a quiet shop loses no more than that, either
#   archive_command = '/opt/sofinance/scripts/archive_wal.sh %p %f /srv/wal'
# PostgreSQL keeps the segment until this says, by 0, that it is on disk. Another of the same name is
# never overwritten; the same again is good: PostgreSQL asks twice when it crashed in between.
# Compressed: one that archive_timeout cut short is some kilobytes then, instead of 16 MiB.
set -eu

if [ $# -ne 3 ]; then
    echo "usage: $(basename "$0") PATH NAME DIR" >&2
    exit 2
fi
# Whoever makes backups reads them, too: by the directory's group (chmod 2770).
umask 027
kept=$3/$2.gz
is_the_same() { gzip -t <"$1" && gzip -dc <"$1" | cmp -s - "$2"; }
if [ -e "$kept" ]; then
    is_the_same "$kept" "$1" && exit 0
    echo "$(basename "$0"): $kept is there already, and is another one." >&2
    exit 1
fi
partial=$3/.$2.partial
gzip -1 -c <"$1" | dd of="$partial" bs=1M conv=fsync status=none
# Read back, for a pipe hides that its first command failed.
is_the_same "$partial" "$1"
mv "$partial" "$kept"
sync "$3"
