#!/usr/bin/env bash
# A private MariaDB on loopback for the tests; no server, configuration or data
# of the machine's own is read or changed. See README.md beside this file for
# the contract that every server script keeps.
#
# Usage: mariadb.sh needs          prints the missing Debian packages, one a line
#        mariadb.sh start DIR      prints `export` lines once the server answers
#        mariadb.sh crash DIR      kills it, which leaves it no time to write anything
#        mariadb.sh restart DIR    runs it again after that, on the same port
#        mariadb.sh stop DIR       ends exactly the instance under DIR
set -euo pipefail
# shellcheck source=scripts/lib/mysql.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../lib/mysql.sh"

product=MariaDB
variables=MARIADB

needs() {
    if ! command -v mariadbd || ! command -v mariadb-install-db || ! command -v mariadb ||
        ! id -u "$os_user"; then
        echo mariadb-server >&3
    fi
} 3>&1 >/dev/null 2>&1

provide() { :; }

programs() {
    server=(mariadbd --no-defaults --character-set-server=utf8mb4)
    client=mariadb
    client_options=(--skip-ssl)
}

create_tables() {
    "${as_server[@]}" mariadb-install-db --no-defaults --datadir="$data" --skip-test-db \
        --skip-name-resolve --auth-root-authentication-method=normal
}

main "$@"
