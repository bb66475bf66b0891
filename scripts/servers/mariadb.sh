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
#
# Whoever reaches the port is root of the database without a password. A commit
# is in the log on disk before it is acknowledged.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

os_user=mysql

say() { echo "mariadb.sh: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/ports.sh"

needs() {
    if ! command -v mariadbd || ! command -v mariadb-install-db || ! command -v mariadb ||
        ! id -u "$os_user"; then
        echo mariadb-server >&3
    fi
} 3>&1 >/dev/null 2>&1

# The server, and what fills its data directory at first, work as its user in
# two directories that no other instance shares: this finds them even where a
# start failed before there was a pid file, or where somebody has removed DIR
# already.
instance_pids() {
    local proc cwd
    for proc in /proc/[0-9]*; do
        cwd=$(readlink "$proc/cwd" || true)
        cwd=${cwd% (deleted)}
        [ "$cwd" = "$data" ] || [ "$cwd" = "$dir/run" ] || continue
        [ "$(stat -c %U "$proc" || true)" != "$os_user" ] || echo "${proc#/proc/}"
    done 2>/dev/null
}

create_tables() {
    "${as_server[@]}" mariadb-install-db --no-defaults --datadir="$data" --skip-test-db \
        --skip-name-resolve --auth-root-authentication-method=normal \
        </dev/null >>"$dir/start.log" 2>&1
}

client() {
    "${as_server[@]}" mariadb --no-defaults --protocol=tcp --skip-ssl --host=127.0.0.1 \
        --port="$port" --user=root --connect-timeout=5 --batch --skip-column-names \
        --execute="$1" </dev/null
}

answers() { [ "$(client 'SELECT 1')" = 1 ]; } 2>/dev/null

# The socket is named from within the data directory, since a socket's path
# cannot be longer than some hundred bytes and DIR may be.
launch() {
    port=$(<"$dir/port")
    "${as_server[@]}" setsid mariadbd --no-defaults --datadir="$data" --tmpdir="$dir/run" \
        --socket=mariadb.sock --pid-file="$dir/run/mariadb.pid" \
        --log-error="$dir/run/mariadb.log" --bind-address=127.0.0.1 --port="$port" \
        --skip-name-resolve --character-set-server=utf8mb4 \
        --innodb-flush-log-at-trx-commit=1 --max-connections=200 \
        </dev/null >>"$dir/start.log" 2>&1 &
    for _ in {1..600}; do
        # An answer while the server has gone would be somebody else's.
        kill -0 $! 2>/dev/null || return 1
        answers && [ -e "$dir/run/mariadb.pid" ] && kill -0 $! 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

last_words() {
    say "$1; its last words:"
    tail -n 20 "$dir/start.log" "$dir/run/mariadb.log" >&2 || true
}

start() {
    if [ -n "$(instance_pids)" ]; then
        say "already running under $dir"
        return 1
    fi
    if [ -e "$data" ]; then
        say "$dir holds a database, or a part of one: start takes a new directory"
        return 1
    fi
    mkdir -p "$dir"
    trap '[ $? = 0 ] || stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # 0711: the server gives up root and must still pass through.
    chmod 711 "$dir"
    mkdir -p "$data" "$dir/run"
    chown "$os_user:$os_user" "$data" "$dir/run"
    chmod 700 "$data" "$dir/run"
    if ! setpriv --reuid "$os_user" --clear-groups test -x "$data"; then
        say "the user $os_user cannot reach $dir; use a directory below /tmp"
        return 1
    fi
    create_tables || { last_words "MariaDB made no database"; return 1; }
    for _ in 1 2 3; do
        # shellcheck disable=SC2119 # there is no other port to avoid
        free_port >"$dir/port"
        if launch; then
            client 'CREATE DATABASE postrider' >&2
            cat <<-EXPORTS
				export POSTRIDER_TEST_MYSQL_URL=mysql://root@127.0.0.1:$port/postrider
				export POSTRIDER_TEST_MYSQL_DIR=$(printf %q "$dir")
				export POSTRIDER_TEST_MYSQL_PID_FILE=$(printf %q "$dir/run/mariadb.pid")
			EXPORTS
            return 0
        fi
        stop
    done
    last_words "MariaDB did not start"
    return 1
}

crash() {
    local pids
    pids=$(instance_pids)
    if [ -z "$pids" ]; then
        say "MariaDB does not run under $dir"
        return 1
    fi
    # shellcheck disable=SC2086 # one argument for each pid
    kill -KILL $pids 2>/dev/null || true
    for _ in {1..100}; do
        [ -n "$(instance_pids)" ] || return 0
        sleep 0.1
    done
    say "still running under $dir: ${pids//$'\n'/ }"
    return 1
}

restart() {
    if ! [ -e "$dir/port" ]; then
        say "nothing was started under $dir"
        return 1
    fi
    if [ -n "$(instance_pids)" ]; then
        say "MariaDB runs under $dir already"
        return 1
    fi
    # The killed server's pid file would pass for the new one's.
    rm -f "$dir/run/mariadb.pid"
    launch || { last_words "MariaDB did not start again"; return 1; }
}

stop() {
    local pids signal
    for signal in TERM KILL; do
        for _ in {1..50}; do
            pids=$(instance_pids)
            [ -n "$pids" ] || return 0
            # shellcheck disable=SC2086 # one argument for each pid
            kill -"$signal" $pids 2>/dev/null || true
            sleep 0.2
        done
    done
    say "still running under $dir: ${pids//$'\n'/ }"
    return 1
}

case "${1:-} $#" in
"needs 1") needs; exit ;;
"start 2" | "crash 2" | "restart 2" | "stop 2") ;;
*) say "usage: mariadb.sh needs | start DIR | crash DIR | restart DIR | stop DIR"; exit 2 ;;
esac
if [ "$(id -u)" != 0 ]; then
    say "the server runs as the user $os_user: run this as root or with sudo"
    exit 2
fi
if [ "$1" != stop ]; then
    missing=$(needs)
    if [ -n "$missing" ]; then
        say "missing (Debian's names): ${missing//$'\n'/ }"
        exit 2
    fi
fi
dir=$(realpath -m -- "$2")
if [[ "$dir" == *[!a-zA-Z0-9/._+-]* ]]; then
    say "the scripts of MariaDB cannot name the directory $dir"
    exit 2
fi
data=$dir/data
# Without the caller's environment: MYSQL_HOST, MYSQL_PWD and their like would
# change what these programs do. No function, which would leave a shell waiting
# beside a server in the background.
as_server=(env -C "$dir/run" -i PATH="$PATH" LC_ALL=C.UTF-8 TMPDIR="$dir/run"
    setpriv --reuid "$os_user" --regid "$os_user" --init-groups --)
"$1"
