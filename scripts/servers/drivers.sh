#!/usr/bin/env bash
# The clients that run the statements of docs/sql.md: Python and Node with drivers for
# each database, and sqlite3. They are no servers. README.md in this directory
# describes the commands of all server scripts.
#
# Usage: drivers.sh needs        prints the missing Debian packages, one on each line
#        drivers.sh start DIR    installs them and prints `export` lines
#        drivers.sh stop DIR     does nothing
#
# `start` installs the drivers from PyPI and npm under DIR, in the versions of
# drivers-requirements.txt and tests/consumers/node/package-lock.json and by their
# hashes. pip and npm cache the downloads.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/commands.sh
. "$here/../lib/commands.sh"

say() { echo "drivers.sh: $*" >&2; }

needs() {
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    command -v sqlite3 >/dev/null || echo sqlite3
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

# No code of a package runs while it is installed.
install() {
    {
        python3 -m venv "$dir/venv" &&
            "$dir/venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile --require-hashes \
                --only-binary :all: -r "$here/drivers-requirements.txt" &&
            cp "$here"/../../tests/consumers/node/package{,-lock}.json "$dir" &&
            npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund
    } </dev/null >"$dir/install.log" 2>&1 || { tail -n 20 "$dir/install.log" >&2; return 1; }
}

start() {
    mkdir -p "$dir"
    install || { say "the drivers could not be installed"; return 1; }
    # The user who runs the tests must be able to use it.
    chmod -R go+rX "$dir"
    "$dir/venv/bin/python" -c 'import psycopg, pymysql, sqlite3' || { say "the Python drivers do not work"; return 1; }
    NODE_PATH=$dir/node_modules node -e 'for (const name of ["pg", "mysql2", "node-sqlite3-wasm"]) require(name)' ||
        { say "the Node drivers do not work"; return 1; }
    echo "export POSTRIDER_TEST_DRIVERS_PYTHON=$dir/venv/bin/python"
    echo "export POSTRIDER_TEST_DRIVERS_NODE=$dir/node_modules"
}

stop() { :; }

run_command "$@"
