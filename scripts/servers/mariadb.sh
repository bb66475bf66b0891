#!/usr/bin/env bash
# A private MariaDB on loopback for the tests. It does not use or change a server,
# configuration or data of the machine. README.md in this directory describes the
# commands of all server scripts.
#
# Usage: mariadb.sh needs          prints the missing Debian packages, one on each line
#        mariadb.sh start DIR      prints `export` lines when the server is ready
#        mariadb.sh crash DIR      kills the server
#        mariadb.sh restart DIR    starts it again on the same port
#        mariadb.sh stop DIR       stops only the instance under DIR
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

install_programs() { :; }

set_programs() {
    server=(mariadbd --no-defaults --character-set-server=utf8mb4)
    client=mariadb
    client_options=(--skip-ssl)
}

init_data() {
    "${as_server[@]}" mariadb-install-db --no-defaults --datadir="$data" --skip-test-db \
        --skip-name-resolve --auth-root-authentication-method=normal
}

main "$@"
