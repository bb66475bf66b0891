#!/usr/bin/env bash
# A private PostgreSQL on loopback for the tests, in the newest version that is
# installed, and a PgBouncer in transaction mode in front of it. It does not use or
# change a cluster of the machine. README.md in this directory describes the
# commands of all server scripts.
#
# Usage: postgres.sh needs          prints the missing Debian packages, one on each line
#        postgres.sh start DIR      prints `export` lines when both servers are ready
#        postgres.sh crash DIR      stops PostgreSQL at once, without a checkpoint
#        postgres.sh restart DIR    starts it again on the same port
#        postgres.sh stop DIR       stops only the instance under DIR
set -euo pipefail
# shellcheck source=scripts/lib/postgres.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../lib/postgres.sh"

variables=PG

# A directory with only the client does not count.
set_programs() {
    bin=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n 1) || true
    bin=${bin%/postgres}
}

more_needs() {
    set_programs
    [ -n "$bin" ] || echo postgresql
}

install_programs() { :; }

main "$@"
