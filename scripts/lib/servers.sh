# shellcheck shell=bash
# For the scripts that run tests against real servers:
#
#   prepare        installs the tools and packages that are missing
#   start_servers  starts every server of scripts/servers; when the script exits,
#                  they are stopped and removed
#   run            runs one command
#   versions       prints the versions of the databases
#
# Source it from the project's root, under `set -euo pipefail`. The names in
# `skipped_servers` are not started.

skipped_servers=
work=
started=()
group=

say() { echo "scripts/${0##*/}: $*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

# Prints the names of the servers to start, one on each line.
servers() {
    local script name
    for script in scripts/servers/*.sh; do
        name=$(basename "$script" .sh)
        [[ " $skipped_servers " == *" $name "* ]] || echo "$name"
    done
}

missing_packages() {
    local server
    command -v cc >/dev/null || echo build-essential
    for server in $(servers); do "scripts/servers/$server.sh" needs; done
}

# Installs what is missing. If that is impossible, prints it and exits with 2.
prepare() {
    local missing
    if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
        # shellcheck source=/dev/null
        . "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        say "cargo is missing: install Rust, see https://rustup.rs" >&2
        exit 2
    fi
    missing=$(missing_packages | sort -u | paste -sd ' ')
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        say "the test servers need root: run this as root, or install sudo" >&2
        exit 2
    fi
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "missing (Debian's package names): $missing" >&2
        say "install them with this system's package manager, then run this again" >&2
        exit 2
    fi
    say "will install with apt-get: $missing"
    # shellcheck disable=SC2086 # one argument for each package
    as_root scripts/debian-install $missing
    missing=$(missing_packages | paste -sd ' ')
    if [ -n "$missing" ]; then
        say "still missing after the installation: $missing" >&2
        exit 2
    fi
}

start_servers() {
    local name exports
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    work=$(mktemp -d)
    # The servers' users must be able to enter their directories.
    chmod 711 "$work"
    for name in $(servers); do
        mkdir "$work/$name"
        started+=("$name")
        say "starting $name"
        exports=$(as_root "scripts/servers/$name.sh" start "$work/$name")
        eval "$exports"
    done
}

# Prints the versions of the started databases, and of the SQLite that the tests link.
versions() {
    local name sqlite source
    for name in PG PG18 MARIADB MYSQL; do
        name=POSTRIDER_TEST_${name}_VERSION
        [ -z "${!name:-}" ] || printf '%s, ' "${!name}"
    done
    source=$(awk '$1 == "name" && $3 == "\"libsqlite3-sys\"" { getline; gsub("\"", ""); print $3 }' Cargo.lock)
    sqlite=$(awk '$1 == "#define" && $2 == "SQLITE_VERSION" { gsub("\"", ""); print $3 }' \
        "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"libsqlite3-sys-$source"/sqlite3/sqlite3.h 2>/dev/null) || true
    echo "SQLite ${sqlite:-of libsqlite3-sys $source}"
}

# Runs a command in its own process group, so that an interrupted script can end
# the whole group. Otherwise bash would wait for the command first, and a signal
# to cargo alone would leave its tests running.
run() {
    local code=0
    set -m
    "$@" </dev/null &
    group=$!
    set +m
    wait "$group" || code=$?
    group=
    return "$code"
}

end_group() {
    local signal
    for signal in TERM KILL; do
        kill -"$signal" -- "-$group" 2>/dev/null || return 0
        for _ in {1..50}; do
            kill -0 -- "-$group" 2>/dev/null || return 0
            sleep 0.1
        done
    done
}

clean_up() {
    local code=$? name
    trap - EXIT
    trap '' INT TERM
    [ -z "$group" ] || end_group
    for name in "${started[@]}"; do
        as_root "scripts/servers/$name.sh" stop "$work/$name" || code=$((code ? code : 1))
    done
    [ -z "$work" ] || as_root rm -rf -- "$work"
    exit "$code"
}
