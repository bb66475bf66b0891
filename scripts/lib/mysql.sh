# shellcheck shell=bash
# A private MySQL or MariaDB on loopback: what scripts/servers/mariadb.sh and
# mysql.sh have in common. To be sourced under `set -euo pipefail` where these
# are defined:
#
#   product        the server's name, for what is said
#   variables      what stands after POSTRIDER_TEST_ in the names of what is exported
#   needs          prints the missing Debian packages, one a line
#   provide        sees to programs that Debian's release does not have
#   programs       sets `server`, `client` and, in an array, `client_options`
#   create_tables  fills the data directory
#
# Whoever reaches the port is root of the database without a password. A commit
# is in the log on disk before it is acknowledged.
#
# shellcheck disable=SC2154 # what the sourcing script sets
PATH=$PATH:/usr/sbin:/sbin

os_user=mysql
script=${0##*/}
lib=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { echo "$script: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$lib/ports.sh"

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

query() {
    "${as_server[@]}" "$client" --no-defaults "${client_options[@]}" --protocol=tcp --host=127.0.0.1 \
        --port="$port" --user=root --connect-timeout=5 --batch --skip-column-names \
        --execute="$1" </dev/null
}

answers() { [ "$(query 'SELECT 1')" = 1 ]; } 2>/dev/null

# The socket is named from within the data directory, since a socket's path
# cannot be longer than some hundred bytes and DIR may be.
launch() {
    port=$(<"$dir/port")
    "${as_server[@]}" setsid "${server[@]}" --datadir="$data" --tmpdir="$dir/run" \
        --socket=server.sock --pid-file="$pid_file" --log-error="$dir/run/server.log" \
        --bind-address=127.0.0.1 --port="$port" --skip-name-resolve \
        --innodb-flush-log-at-trx-commit=1 --max-connections=200 \
        </dev/null >>"$dir/start.log" 2>&1 &
    for _ in {1..600}; do
        # An answer while the server has gone would be somebody else's.
        kill -0 $! 2>/dev/null || return 1
        answers && [ -e "$pid_file" ] && kill -0 $! 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

last_words() {
    say "$1; its last words:"
    tail -n 20 "$dir/start.log" "$dir/run/server.log" >&2 || true
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
    provide || return 1
    create_tables </dev/null >>"$dir/start.log" 2>&1 || { last_words "$product made no database"; return 1; }
    for _ in 1 2 3; do
        # shellcheck disable=SC2119 # there is no other port to avoid
        free_port >"$dir/port"
        if launch; then
            query 'CREATE DATABASE postrider' >&2
            version=$(query 'SELECT VERSION()')
            cat <<-EXPORTS
				export POSTRIDER_TEST_${variables}_URL=mysql://root@127.0.0.1:$port/postrider
				export POSTRIDER_TEST_${variables}_DIR=$(printf %q "$dir")
				export POSTRIDER_TEST_${variables}_PID_FILE=$(printf %q "$pid_file")
				export POSTRIDER_TEST_${variables}_CLIENT=$(printf %q "$client")
				export POSTRIDER_TEST_${variables}_VERSION=$(printf %q "$product ${version/-MariaDB/}")
			EXPORTS
            return 0
        fi
        stop
    done
    last_words "$product did not start"
    return 1
}

crash() {
    local pids
    pids=$(instance_pids)
    if [ -z "$pids" ]; then
        say "$product does not run under $dir"
        return 1
    fi
    # shellcheck disable=SC2086 # one argument for each pid
    kill -KILL $pids 2>/dev/null || true
    for _ in {1..100}; do
        # A process that ends has no directory any more before it has gone.
        # shellcheck disable=SC2086 # one argument for each pid
        [ -n "$(instance_pids)" ] || kill -0 $pids 2>/dev/null || return 0
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
        say "$product runs under $dir already"
        return 1
    fi
    # The killed server's pid file would pass for the new one's, and its lock
    # would keep the new one from its socket.
    rm -f "$pid_file" "$data"/server.sock "$data"/server.sock.lock
    launch || { last_words "$product did not start again"; return 1; }
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

# What the script was called for.
main() {
    case "${1:-} $#" in
    "needs 1") needs; exit ;;
    "start 2" | "crash 2" | "restart 2" | "stop 2") ;;
    *) say "usage: $script needs | start DIR | crash DIR | restart DIR | stop DIR"; exit 2 ;;
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
        say "the scripts of $product cannot name the directory $dir"
        exit 2
    fi
    data=$dir/data
    pid_file=$dir/run/server.pid
    # Without the caller's environment: MYSQL_HOST, MYSQL_PWD and their like would
    # change what these programs do. No function, which would leave a shell waiting
    # beside a server in the background.
    as_server=(env -C "$dir/run" -i PATH="$PATH" LC_ALL=C.UTF-8 TMPDIR="$dir/run"
        setpriv --reuid "$os_user" --regid "$os_user" --init-groups --)
    programs
    "$1"
}
