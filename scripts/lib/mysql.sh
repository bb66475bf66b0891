# shellcheck shell=bash
# The common part of scripts/servers/mariadb.sh and mysql.sh: a private MySQL or
# MariaDB on loopback. Source it under `set -euo pipefail`. The sourcing script
# must define:
#
#   product           the server's name in messages
#   variables         the prefix of the exported variables, after POSTRIDER_TEST_
#   needs             prints the missing Debian packages, one on each line
#   install_programs  installs programs that Debian's release does not have
#   set_programs      sets `server`, `client` and the array `client_options`
#   init_data         creates the data directory's content
#
# Every local user can log in as root without a password. The log of a commit is
# on disk before the commit is acknowledged.
#
# shellcheck disable=SC2154 # what the sourcing script sets
PATH=$PATH:/usr/sbin:/sbin

os_user=mysql
script=${0##*/}
lib=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { echo "$script: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$lib/ports.sh"

# Prints the pids of this instance. All its processes run as the server's user in
# one of two directories that no other instance uses. This finds them also if the
# start failed before it wrote a pid file, or if DIR is removed.
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

is_ready() { [ "$(query 'SELECT 1')" = 1 ]; } 2>/dev/null

# The socket's path is relative to the data directory, because an absolute path
# can exceed the limit of about a hundred bytes.
launch() {
    port=$(<"$dir/port")
    "${as_server[@]}" setsid "${server[@]}" --datadir="$data" --tmpdir="$dir/run" \
        --socket=server.sock --pid-file="$pid_file" --log-error="$dir/run/server.log" \
        --bind-address=127.0.0.1 --port="$port" --skip-name-resolve \
        --innodb-flush-log-at-trx-commit=1 --max-connections=200 \
        </dev/null >>"$dir/start.log" 2>&1 &
    for _ in {1..600}; do
        # If the server has exited, another one answers on the port.
        kill -0 $! 2>/dev/null || return 1
        is_ready && [ -e "$pid_file" ] && kill -0 $! 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

show_logs() {
    say "$1; the end of its logs:"
    tail -n 20 "$dir/start.log" "$dir/run/server.log" >&2 || true
}

start() {
    if [ -n "$(instance_pids)" ]; then
        say "a server already runs under $dir"
        return 1
    fi
    if [ -e "$data" ]; then
        say "$dir has data already: start needs a new directory"
        return 1
    fi
    mkdir -p "$dir"
    trap '[ $? = 0 ] || stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # 0711: the server's user must be able to enter the directory.
    chmod 711 "$dir"
    mkdir -p "$data" "$dir/run"
    chown "$os_user:$os_user" "$data" "$dir/run"
    chmod 700 "$data" "$dir/run"
    if ! setpriv --reuid "$os_user" --clear-groups test -x "$data"; then
        say "the user $os_user cannot reach $dir; use a directory below /tmp"
        return 1
    fi
    install_programs || return 1
    init_data </dev/null >>"$dir/start.log" 2>&1 || { show_logs "$product did not create its data directory"; return 1; }
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
    show_logs "$product did not start"
    return 1
}

crash() {
    local pids
    pids=$(instance_pids)
    if [ -z "$pids" ]; then
        say "$product is not running under $dir"
        return 1
    fi
    # shellcheck disable=SC2086 # one argument for each pid
    kill -KILL $pids 2>/dev/null || true
    for _ in {1..100}; do
        # An exiting process has no working directory, but still exists.
        # shellcheck disable=SC2086 # one argument for each pid
        [ -n "$(instance_pids)" ] || kill -0 $pids 2>/dev/null || return 0
        sleep 0.1
    done
    say "still running under $dir: ${pids//$'\n'/ }"
    return 1
}

restart() {
    if ! [ -e "$dir/port" ]; then
        say "no server was started under $dir"
        return 1
    fi
    if [ -n "$(instance_pids)" ]; then
        say "$product already runs under $dir"
        return 1
    fi
    # The killed server's pid file would look like the new one's, and its lock file
    # would block the new socket.
    rm -f "$pid_file" "$data"/server.sock "$data"/server.sock.lock
    launch || { show_logs "$product did not start again"; return 1; }
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

# Runs the command of the command line.
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
            say "missing (Debian's package names): ${missing//$'\n'/ }"
            exit 2
        fi
    fi
    dir=$(realpath -m -- "$2")
    if [[ "$dir" == *[!a-zA-Z0-9/._+-]* ]]; then
        say "$product's scripts do not support the characters of $dir"
        exit 2
    fi
    data=$dir/data
    pid_file=$dir/run/server.pid
    # The environment is cleared, because MYSQL_HOST, MYSQL_PWD and similar variables
    # affect these programs. This is an array, because a function in the background
    # would keep a shell process beside the server.
    as_server=(env -C "$dir/run" -i PATH="$PATH" LC_ALL=C.UTF-8 TMPDIR="$dir/run"
        setpriv --reuid "$os_user" --regid "$os_user" --init-groups --)
    set_programs
    "$1"
}
