#!/usr/bin/env bash
# A private Prometheus on loopback for the tests. It does not use or change a server
# or a configuration of the machine. README.md in this directory describes the
# commands of all server scripts.
#
# Usage: prometheus.sh needs        prints the missing Debian packages, one on each line
#        prometheus.sh start DIR    prints `export` lines when the server is ready
#        prometheus.sh stop DIR     stops only the instance under DIR
#
# It scrapes every second and evaluates rules every half second. A test names its targets and rules
# by files under DIR/tests.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/commands.sh
. "$here/../lib/commands.sh"

say() { echo "prometheus.sh: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$here/../lib/ports.sh"

needs() {
    if ! command -v prometheus || ! command -v promtool; then
        echo prometheus >&3
    fi
} 3>&1 >/dev/null 2>&1

# Prints the pids of this instance. The server runs in a directory that no other
# instance uses. This finds it also if the start failed, or if DIR is removed.
instance_pids() {
    local proc cwd
    for proc in /proc/[0-9]*; do
        cwd=$(readlink "$proc/cwd" || true)
        [ "${cwd% (deleted)}" != "$dir/run" ] || echo "${proc#/proc/}"
    done 2>/dev/null
}

configure() {
    mkdir -p "$dir/run" "$dir/tests/targets" "$dir/tests/rules"
    # The server's user writes its data, and the user who runs the tests adds files.
    chmod 711 "$dir"
    chmod 777 "$dir/tests/targets" "$dir/tests/rules"
    chown nobody "$dir/run"
    cat >"$dir/prometheus.yml" <<-CONF
		global:
		  scrape_interval: 1s
		  scrape_timeout: 1s
		  evaluation_interval: 500ms
		rule_files: [$dir/tests/rules/*.yml]
		scrape_configs:
		  - job_name: tests
		    file_sd_configs:
		      - files: [$dir/tests/targets/*.json]
	CONF
    chmod 644 "$dir/prometheus.yml"
}

is_ready() {
    local status=
    { printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3 && read -r -t 10 status <&3; } \
        3<>"/dev/tcp/127.0.0.1/$port" || true
    [[ "$status" == "HTTP/1."?" 200"* ]]
} 2>/dev/null

# exec replaces the subshell by the server, so that $! is the server's pid.
launch() {
    (cd "$dir/run" && exec setsid setpriv --reuid nobody --regid nogroup --clear-groups prometheus \
        --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/run/data" --web.enable-lifecycle \
        --web.listen-address="127.0.0.1:$port" --log.level=warn) </dev/null >>"$dir/prometheus.log" 2>&1 &
    for _ in {1..300}; do
        # If the server has exited, another one answers on the port.
        kill -0 $! 2>/dev/null || return 1
        is_ready && kill -0 $! 2>/dev/null && return 0
        sleep 0.2
    done
    return 1
}

start() {
    if [ -n "$(instance_pids)" ]; then
        say "a server already runs under $dir"
        return 1
    fi
    mkdir -p "$dir"
    trap '[ $? = 0 ] || stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    configure
    for _ in 1 2 3; do
        # shellcheck disable=SC2119 # there is no other port to avoid
        port=$(free_port)
        if launch; then
            cat <<-EXPORTS
				export POSTRIDER_TEST_PROMETHEUS_URL=http://127.0.0.1:$port
				export POSTRIDER_TEST_PROMETHEUS_DIR=$(printf %q "$dir/tests")
				export POSTRIDER_TEST_PROMTOOL=$(command -v promtool)
			EXPORTS
            return 0
        fi
        stop
    done
    say "Prometheus did not start; the end of its log:"
    tail -n 20 "$dir/prometheus.log" >&2 || true
    return 1
}

stop() {
    local pids='' signal
    for signal in TERM KILL; do
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

run_command "$@"
