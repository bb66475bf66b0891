# shellcheck shell=bash
# The common part of scripts/servers/postgres.sh and postgres-18.sh: a private
# PostgreSQL on loopback, and a PgBouncer in transaction mode in front of it.
# Source it under `set -euo pipefail`. The sourcing script must define:
#
#   variables         the prefix of the exported variables, after POSTRIDER_TEST_
#   set_programs      sets `bin`, the directory of pg_ctl
#   more_needs        prints further missing Debian packages, one on each line
#   install_programs  installs programs that Debian's release does not have
#
# Every local user can log in as superuser without a password. Commits are durable
# as by default: fsync, full_page_writes and synchronous_commit are on.
#
# shellcheck disable=SC2154 # what the sourcing script sets
PATH=$PATH:/usr/sbin:/sbin

os_user=postgres
script=${0##*/}
lib=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { echo "$script: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$lib/ports.sh"

# The newest client that is installed.
newest_psql() { compgen -G '/usr/lib/postgresql/*/bin/psql' | sort -V | tail -n 1; }

needs() {
    if [ -z "$(newest_psql)" ] || ! id -u "$os_user" >/dev/null 2>&1; then
        echo postgresql
    fi
    command -v pgbouncer >/dev/null || echo pgbouncer
    more_needs
}

# instance_pids [PROGRAM]: prints the pids of this instance. All its processes run
# as the servers' user in one of two directories that no other instance uses. This
# finds them also if the start failed before it wrote a pid file, or if DIR is
# removed.
instance_pids() {
    local proc cwd exe
    for proc in /proc/[0-9]*; do
        cwd=$(readlink "$proc/cwd" || true)
        cwd=${cwd% (deleted)}
        [ "$cwd" = "$data" ] || [ "$cwd" = "$dir/run" ] || continue
        [ "$(stat -c %U "$proc" || true)" = "$os_user" ] || continue
        exe=$(readlink "$proc/exe" || true)
        exe=${exe% (deleted)}
        [ -z "${1:-}" ] || [ "${exe##*/}" = "$1" ] || continue
        echo "${proc#/proc/}"
    done 2>/dev/null
}

create_cluster() {
    "${as_server[@]}" "$bin/initdb" --pgdata="$data" --username=postgres --auth=trust \
        --encoding=UTF8 --locale=C.UTF-8 </dev/null >>"$dir/start.log" 2>&1 || return 1
    "${as_server[@]}" tee -a "$data/postgresql.conf" <<<"include '$dir/postgres.conf'" >/dev/null
}

configure() {
    cat >"$dir/postgres.conf" <<-CONF
		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = ''
		max_connections = 200
		shared_buffers = 256MB
		max_wal_size = 2GB
	CONF
    # After a crash, sync the file system once instead of each file: the tests leave
    # thousands. Version 13 does not have this option, and does not start with it.
    if [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 14 ]; then
        echo "recovery_init_sync_method = syncfs" >>"$dir/postgres.conf"
    fi
    # Every database that a test creates has its own pool, so the pool is far below
    # max_connections, and idle connections end soon. With the default timeouts,
    # clients would wait 120 s while PostgreSQL is down, and fail for 15 s after its
    # restart.
    cat >"$dir/pgbouncer.ini" <<-CONF
		[databases]
		* = host=127.0.0.1 port=$port

		[pgbouncer]
		listen_addr = 127.0.0.1
		listen_port = $bouncer_port
		unix_socket_dir =
		logfile = $dir/run/pgbouncer.log
		auth_type = trust
		auth_file = $dir/pgbouncer.users
		admin_users = postgres
		pool_mode = transaction
		max_client_conn = 1000
		default_pool_size = 20
		server_idle_timeout = 10
		server_login_retry = 1
		query_wait_timeout = 20
		ignore_startup_parameters = extra_float_digits
	CONF
    # PgBouncer supports prepared statements from 1.21 on, and enables them by
    # default from 1.24 on. The tests need the same behaviour of every version.
    if [ "$(printf '%s\n' 1.21 "$(bouncer_version)" | sort -V | head -n 1)" = 1.21 ]; then
        echo "max_prepared_statements = 0" >>"$dir/pgbouncer.ini"
    fi
    echo '"postgres" ""' >"$dir/pgbouncer.users"
    chmod 644 "$dir"/{postgres.conf,pgbouncer.ini,pgbouncer.users}
}

bouncer_version() { pgbouncer --version | awk '/^PgBouncer/ { print $2 }'; }

# pg_ctl returns when the server accepts connections. After a crash, that is at
# the end of the recovery.
launch_postgres() {
    "${as_server[@]}" "$bin/pg_ctl" start --pgdata="$data" --log="$dir/run/postgres.log" \
        --wait --timeout=120 </dev/null >>"$dir/start.log" 2>&1
}

query() {
    "${as_server[@]}" "$(newest_psql)" -XAtw -c "$2" </dev/null \
        "postgres://postgres@127.0.0.1:$1/postgres?connect_timeout=5"
}

# True once a query reaches PostgreSQL through PgBouncer.
is_ready() {
    local port
    port=$(sed -n 's/^listen_port = //p' "$dir/pgbouncer.ini")
    [ "$(query "$port" 'select 1')" = 1 ]
} 2>/dev/null

launch_bouncer() {
    "${as_server[@]}" setsid pgbouncer -q "$dir/pgbouncer.ini" </dev/null >>"$dir/start.log" 2>&1 &
    wait_for_bouncer $!
}

wait_for_bouncer() {
    for _ in {1..50}; do
        # If PgBouncer has exited, another program answers on the port.
        kill -0 "$1" 2>/dev/null || return 1
        is_ready && kill -0 "$1" 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

show_logs() {
    say "$1; the end of its logs:"
    tail -n 20 "$dir/start.log" "$dir/run/postgres.log" "$dir/run/pgbouncer.log" >&2 || true
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
    # 0711: the servers' user must be able to enter the directory.
    chmod 711 "$dir"
    mkdir -p "$data" "$dir/run"
    chown "$os_user:$os_user" "$data" "$dir/run"
    chmod 700 "$data" "$dir/run"
    if ! setpriv --reuid "$os_user" --clear-groups test -x "$data"; then
        say "the user $os_user cannot reach $dir; use a directory below /tmp"
        return 1
    fi
    install_programs || return 1
    create_cluster || { show_logs "PostgreSQL did not create its data directory"; return 1; }
    for _ in 1 2 3; do
        port=$(free_port)
        bouncer_port=$(free_port "$port")
        configure
        if launch_postgres && launch_bouncer; then
            cat <<-EXPORTS
				export POSTRIDER_TEST_${variables}_URL=postgres://postgres@127.0.0.1:$port/postgres
				export POSTRIDER_TEST_${variables}_DIR=$(printf %q "$dir")
				export POSTRIDER_TEST_${variables}_BIN=$(printf %q "$bin")
				export POSTRIDER_TEST_${variables}_DATA=$(printf %q "$data")
				export POSTRIDER_TEST_${variables}_OS_USER=$os_user
				export POSTRIDER_TEST_${variables}BOUNCER_URL=postgres://postgres@127.0.0.1:$bouncer_port/postgres
				export POSTRIDER_TEST_${variables}_VERSION=$(printf %q "PostgreSQL $(query "$port" 'show server_version')")
			EXPORTS
            return 0
        fi
        stop
    done
    show_logs "PostgreSQL or PgBouncer did not start"
    return 1
}

# PgBouncer keeps running, like the pooler of an application.
crash() {
    if [ -z "$(instance_pids postgres)" ]; then
        say "PostgreSQL is not running under $dir"
        return 1
    fi
    "${as_server[@]}" "$bin/pg_ctl" stop --pgdata="$data" --mode=immediate --wait --timeout=60 \
        </dev/null >>"$dir/start.log" 2>&1 || { show_logs "PostgreSQL did not stop"; return 1; }
}

restart() {
    local bouncer
    if ! [ -e "$dir/postgres.conf" ]; then
        say "no server was started under $dir"
        return 1
    fi
    if [ -n "$(instance_pids postgres)" ]; then
        say "PostgreSQL already runs under $dir"
        return 1
    fi
    launch_postgres || { show_logs "PostgreSQL did not start again"; return 1; }
    # PgBouncer refuses new clients for some time after the crash.
    bouncer=$(instance_pids pgbouncer)
    if [ -n "$bouncer" ]; then wait_for_bouncer "$bouncer"; else launch_bouncer; fi || {
        show_logs "PgBouncer did not recover"
        return 1
    }
}

stop() {
    local pids signal
    if [ -e "$data/postmaster.pid" ]; then
        "${as_server[@]}" "$bin/pg_ctl" stop --pgdata="$data" --mode=fast --wait --timeout=20 \
            </dev/null >>"$dir/start.log" 2>&1 || true
    fi
    # QUIT is the last signal after which PostgreSQL frees its shared memory.
    for signal in TERM QUIT KILL; do
        for _ in {1..25}; do
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
        say "the servers run as the user $os_user: run this as root or with sudo"
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
        say "a PgBouncer configuration does not support the characters of $dir"
        exit 2
    fi
    data=$dir/data
    set_programs
    # The environment is cleared, because PGHOST, PGOPTIONS and similar variables
    # affect these programs. This is an array, because a function in the background
    # would keep a shell process beside the server.
    as_server=(env -C "$dir/run" -i PATH="$PATH" LC_ALL=C.UTF-8 TMPDIR="$dir/run"
        setpriv --reuid "$os_user" --regid "$os_user" --init-groups --)
    "$1"
}
