# shellcheck shell=bash
# A private PostgreSQL on loopback, and a PgBouncer in transaction mode before
# it: what scripts/servers/postgres.sh and postgres-18.sh have in common. To be
# sourced under `set -euo pipefail` where these are defined:
#
#   variables  what stands after POSTRIDER_TEST_ in the names of what is exported
#   programs   sets `bin`, the directory of pg_ctl
#   missing    prints the missing Debian packages beside those named here, one a line
#   provide    sees to programs that Debian's release does not have
#
# Whoever reaches the ports is superuser without a password. A commit is durable
# as by default: fsync, full_page_writes and synchronous_commit are all on.
#
# shellcheck disable=SC2154 # what the sourcing script sets
PATH=$PATH:/usr/sbin:/sbin

os_user=postgres
script=${0##*/}
lib=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { echo "$script: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$lib/ports.sh"

# The client of the newest version that Debian has.
newest_psql() { compgen -G '/usr/lib/postgresql/*/bin/psql' | sort -V | tail -n 1; }

needs() {
    if [ -z "$(newest_psql)" ] || ! id -u "$os_user" >/dev/null 2>&1; then
        echo postgresql
    fi
    command -v pgbouncer >/dev/null || echo pgbouncer
    missing
}

# Every process of the two works as their user in two directories that no other
# instance shares: this finds them even where a start failed before it wrote a
# pid file, or where somebody has removed DIR already. `$1` narrows it to one
# program.
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
    # After a crash, flush the file system once instead of each file: the tests
    # leave thousands. (What 13 lacks, it refuses to start with.)
    if [ "$("$bin/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 14 ]; then
        echo "recovery_init_sync_method = syncfs" >>"$dir/postgres.conf"
    fi
    # The pool is far below max_connections, and a database's idle connections
    # go soon: every database that a test makes has a pool of its own. With the
    # default timeouts clients would hang for 120 s while PostgreSQL is away, and
    # go on failing for 15 s after it is back.
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
    # From 1.21 on PgBouncer can follow prepared statements, from 1.24 on it
    # does by default. The tests are to meet the same pooler everywhere.
    if [ "$(printf '%s\n' 1.21 "$(bouncer_version)" | sort -V | head -n 1)" = 1.21 ]; then
        echo "max_prepared_statements = 0" >>"$dir/pgbouncer.ini"
    fi
    echo '"postgres" ""' >"$dir/pgbouncer.users"
    chmod 644 "$dir"/{postgres.conf,pgbouncer.ini,pgbouncer.users}
}

bouncer_version() { pgbouncer --version | awk '/^PgBouncer/ { print $2 }'; }

# pg_ctl returns once the server takes connections, which after a crash is only
# at the end of the recovery.
launch_postgres() {
    "${as_server[@]}" "$bin/pg_ctl" start --pgdata="$data" --log="$dir/run/postgres.log" \
        --wait --timeout=120 </dev/null >>"$dir/start.log" 2>&1
}

query() {
    "${as_server[@]}" "$(newest_psql)" -XAtw -c "$2" </dev/null \
        "postgres://postgres@127.0.0.1:$1/postgres?connect_timeout=5"
}

# True once a query goes through PgBouncer to PostgreSQL.
answers() {
    local port
    port=$(sed -n 's/^listen_port = //p' "$dir/pgbouncer.ini")
    [ "$(query "$port" 'select 1')" = 1 ]
} 2>/dev/null

launch_bouncer() {
    "${as_server[@]}" setsid pgbouncer -q "$dir/pgbouncer.ini" </dev/null >>"$dir/start.log" 2>&1 &
    await_bouncer $!
}

await_bouncer() {
    for _ in {1..50}; do
        # An answer while PgBouncer has gone would be somebody else's.
        kill -0 "$1" 2>/dev/null || return 1
        answers && kill -0 "$1" 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

last_words() {
    say "$1; its last words:"
    tail -n 20 "$dir/start.log" "$dir/run/postgres.log" "$dir/run/pgbouncer.log" >&2 || true
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
    # 0711: the servers give up root and must still pass through.
    chmod 711 "$dir"
    mkdir -p "$data" "$dir/run"
    chown "$os_user:$os_user" "$data" "$dir/run"
    chmod 700 "$data" "$dir/run"
    if ! setpriv --reuid "$os_user" --clear-groups test -x "$data"; then
        say "the user $os_user cannot reach $dir; use a directory below /tmp"
        return 1
    fi
    provide || return 1
    create_cluster || { last_words "PostgreSQL made no cluster"; return 1; }
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
    last_words "PostgreSQL or PgBouncer did not start"
    return 1
}

# PgBouncer goes on, and meets the loss as an application's pooler would.
crash() {
    if [ -z "$(instance_pids postgres)" ]; then
        say "PostgreSQL does not run under $dir"
        return 1
    fi
    "${as_server[@]}" "$bin/pg_ctl" stop --pgdata="$data" --mode=immediate --wait --timeout=60 \
        </dev/null >>"$dir/start.log" 2>&1 || { last_words "PostgreSQL did not crash"; return 1; }
}

restart() {
    local bouncer
    if ! [ -e "$dir/postgres.conf" ]; then
        say "nothing was started under $dir"
        return 1
    fi
    if [ -n "$(instance_pids postgres)" ]; then
        say "PostgreSQL runs under $dir already"
        return 1
    fi
    launch_postgres || { last_words "PostgreSQL did not start again"; return 1; }
    # PgBouncer refuses new clients for a while after it has met the loss.
    bouncer=$(instance_pids pgbouncer)
    if [ -n "$bouncer" ]; then await_bouncer "$bouncer"; else launch_bouncer; fi || {
        last_words "PgBouncer did not serve again"
        return 1
    }
}

stop() {
    local pids signal
    if [ -e "$data/postmaster.pid" ]; then
        "${as_server[@]}" "$bin/pg_ctl" stop --pgdata="$data" --mode=fast --wait --timeout=20 \
            </dev/null >>"$dir/start.log" 2>&1 || true
    fi
    # To PostgreSQL, QUIT is the last word that lets it free its shared memory.
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

# What the script was called for.
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
        lacking=$(needs)
        if [ -n "$lacking" ]; then
            say "missing (Debian's names): ${lacking//$'\n'/ }"
            exit 2
        fi
    fi
    dir=$(realpath -m -- "$2")
    if [[ "$dir" == *[!a-zA-Z0-9/._+-]* ]]; then
        say "a PgBouncer configuration cannot name the directory $dir"
        exit 2
    fi
    data=$dir/data
    programs
    # Without the caller's environment: PGHOST, PGOPTIONS and their like would
    # change what these programs do. No function, which would leave a shell waiting
    # beside a server in the background.
    as_server=(env -C "$dir/run" -i PATH="$PATH" LC_ALL=C.UTF-8 TMPDIR="$dir/run"
        setpriv --reuid "$os_user" --regid "$os_user" --init-groups --)
    "$1"
}
