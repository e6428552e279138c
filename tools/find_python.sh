#!/bin/sh
# Print the first Python of the named versions that is really there and can make environments.
# A pyenv shim may stand on PATH for a version that is not selected: then take that version itself.
for version in "$@"; do
    found=$(command -v "python$version") || continue
    for python in "$found" "${found%/*}"/../versions/"$version"*/bin/python; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            echo "$python"
            exit 0
        fi
    done
done
