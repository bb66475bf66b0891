#!/usr/bin/env bash
# A private PostgreSQL on loopback for the tests, of the newest version that
# Debian has here, and a PgBouncer in transaction mode before it; no cluster of
# the machine's own is read or changed. See README.md beside this file for the
# contract that every server script keeps.
#
# Usage: postgres.sh needs          prints the missing Debian packages, one a line
#        postgres.sh start DIR      prints `export` lines once both servers answer
#        postgres.sh crash DIR      ends PostgreSQL as a power cut of it would
#        postgres.sh restart DIR    runs it again after that, on the same port
#        postgres.sh stop DIR       ends exactly the instance under DIR
set -euo pipefail
# shellcheck source=scripts/lib/postgres.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../lib/postgres.sh"

variables=PG

# A directory with a client alone is none.
programs() {
    bin=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1) || true
    bin=${bin%/postgres}
}

missing() {
    programs
    [ -n "$bin" ] || echo postgresql
}

provide() { :; }

main "$@"
