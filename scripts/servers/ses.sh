#!/usr/bin/env bash
# A private moto on loopback for the tests: a Python program that emulates version
# 2 of the Amazon SES API. README.md in this directory describes the commands of
# all server scripts.
#
# Usage: ses.sh needs        prints the missing Debian packages, one on each line
#        ses.sh start DIR    prints `export` lines when the server is ready
#        ses.sh stop DIR     stops only the instance under DIR
#
# `start` installs moto from PyPI into a virtual environment under DIR, in the
# versions of ses-requirements.txt and by their hashes. pip caches the downloads.
# moto sends no mail.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/commands.sh
. "$here/../lib/commands.sh"

say() { echo "ses.sh: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$here/../lib/ports.sh"

needs() { python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv; }

# Prints the pids of this instance. The server runs in a directory that no other
# instance uses. This finds it also if the start failed, or if DIR is removed.
instance_pids() {
    local proc cwd
    for proc in /proc/[0-9]*; do
        cwd=$(readlink "$proc/cwd" || true)
        [ "${cwd% (deleted)}" != "$dir/run" ] || echo "${proc#/proc/}"
    done 2>/dev/null
}

# Installs only wheels, so that no code of a package runs before its hash is checked.
install() {
    [ -x "$dir/venv/bin/moto_server" ] && return 0
    {
        python3 -m venv "$dir/venv" &&
            "$dir/venv/bin/python" -m pip install --disable-pip-version-check --no-input \
                --only-binary :all: --no-compile --require-hashes -r "$here/ses-requirements.txt"
    } </dev/null >"$dir/install.log" 2>&1 || { tail -n 20 "$dir/install.log" >&2; return 1; }
}

is_ready() {
    local status=
    { printf 'GET /moto-api/data.json HTTP/1.0\r\n\r\n' >&3 && read -r -t 10 status <&3; } \
        3<>"/dev/tcp/127.0.0.1/$port" || true
    [[ "$status" == "HTTP/1."?" 200"* ]]
} 2>/dev/null

# exec replaces the subshell by the server, so that $! is the server's pid.
launch() {
    (cd "$dir/run" && exec setsid "$dir/venv/bin/moto_server" -H 127.0.0.1 -p "$port") \
        </dev/null >>"$dir/moto.log" 2>&1 &
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
    mkdir -p "$dir/run"
    trap '[ $? = 0 ] || stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    install || { say "moto could not be installed"; return 1; }
    for _ in 1 2 3; do
        # shellcheck disable=SC2119 # there is no other port to avoid
        port=$(free_port)
        if launch; then
            echo "export POSTRIDER_TEST_SES_URL=http://127.0.0.1:$port"
            return 0
        fi
        stop
    done
    say "moto did not start; the end of its log:"
    tail -n 20 "$dir/moto.log" >&2 || true
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
