#!/usr/bin/env bash
# No server, but what the tests ask about rendered mail: a Python with dkimpy,
# which verifies DKIM signatures, and with Python's own mail parser. See
# README.md beside this file for the contract that every script here keeps.
#
# Usage: verifiers.sh needs        prints the missing Debian packages, one a line
#        verifiers.sh start DIR    prints `export` lines once it is installed
#        verifiers.sh stop DIR     does nothing: nothing runs
#
# dkimpy comes from PyPI into an environment of its own under DIR, in the
# versions of verifiers-requirements.txt and verifiers-source.txt and by their
# hashes; pip keeps what it downloaded for the next time.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { echo "verifiers.sh: $*" >&2; }

needs() { python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv; }

# No code of a package runs before its hash is known: all is built already, but
# for dkimpy itself, which is built by what was installed before.
install() {
    local pip=("$dir/venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile --require-hashes)
    {
        python3 -m venv "$dir/venv" &&
            "${pip[@]}" --only-binary :all: -r "$here/verifiers-requirements.txt" &&
            "${pip[@]}" --no-binary dkimpy --no-build-isolation --no-deps -r "$here/verifiers-source.txt"
    } </dev/null >"$dir/install.log" 2>&1 || { tail -n 20 "$dir/install.log" >&2; return 1; }
}

start() {
    mkdir -p "$dir"
    install || { say "dkimpy could not be installed"; return 1; }
    # Whoever runs the tests must be able to use it.
    chmod -R go+rX "$dir"
    "$dir/venv/bin/python" -c 'import dkim, nacl.signing' || { say "dkimpy cannot be used"; return 1; }
    echo "export POSTRIDER_TEST_PYTHON=$dir/venv/bin/python"
}

stop() { :; }

case "${1:-} $#" in
"needs 1") needs; exit ;;
"start 2" | "stop 2") ;;
*) say "usage: verifiers.sh needs | start DIR | stop DIR"; exit 2 ;;
esac
if [ "$1" = start ]; then
    missing=$(needs)
    if [ -n "$missing" ]; then
        say "missing (Debian's names): ${missing//$'\n'/ }"
        exit 2
    fi
fi
dir=$(realpath -m -- "$2")
"$1"
