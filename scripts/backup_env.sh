# shellcheck shell=sh
# What the scripts about backups share: where the command is, and the database by the variables that
# PostgreSQL's images have. Sourced, not run.

sofinance() {
    if command -v "${SOFINANCE:-sofinance}" >/dev/null; then
        command "${SOFINANCE:-sofinance}" "$@"
    else
        "$(dirname "$0")/../.venv/bin/sofinance" "$@"
    fi
}

# The password reaches libpq as its own variable, so that no command line shows it.
use_postgres_variables() {
    export PGUSER="$POSTGRES_USER" PGPASSWORD="$POSTGRES_PASSWORD"
}

needs() {
    for variable in "$@"; do
        eval "value=\${$variable:-}"
        if [ -z "$value" ]; then
            echo "$(basename "$0"): $variable is missing." >&2
            exit 2
        fi
    done
}

url_of() {
    case "$1" in
        *[!A-Za-z0-9_.-]*) echo "$(basename "$0"): $1 is no name of a database." >&2; exit 2 ;;
        *) echo "postgresql://$POSTGRES_HOST:${POSTGRES_PORT:-5432}/$1" ;;
    esac
}
