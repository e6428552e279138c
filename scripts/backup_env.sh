# shellcheck shell=sh
# What the scripts share: where the command is (SOFINANCE, PATH, else beside them), and the database
# by the variables that PostgreSQL's images have. Sourced, not run.

# Before the function of that name is defined, which `command -v` would find as well.
program=${SOFINANCE:-$(command -v sofinance || true)}
for beside in bin .venv/bin; do
    [ -n "$program" ] || [ ! -x "$(dirname "$0")/../$beside/sofinance" ] ||
        program=$(dirname "$0")/../$beside/sofinance
done
if [ -z "$program" ]; then
    echo "$(basename "$0"): sofinance is not on PATH; name it in SOFINANCE." >&2
    exit 2
fi
sofinance() { "$program" "$@"; }

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
