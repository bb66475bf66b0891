#!/usr/bin/env bash
# A Python with dkimpy, for the tests of rendered mail: dkimpy verifies DKIM
# signatures, and Python's standard library parses mail. It is no server. README.md
# in this directory describes the commands of all server scripts.
#
# Usage: verifiers.sh needs        prints the missing Debian packages, one on each line
#        verifiers.sh start DIR    installs it and prints `export` lines
#        verifiers.sh stop DIR     does nothing
#
# `start` installs dkimpy from PyPI into a virtual environment under DIR, in the
# versions of verifiers-requirements.txt and verifiers-source.txt and by their
# hashes. pip caches the downloads.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/commands.sh
. "$here/../lib/commands.sh"

say() { echo "verifiers.sh: $*" >&2; }

needs() { python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv; }

# No code of a package runs before its hash is checked. All packages are wheels,
# except dkimpy, which is built by the packages that are installed before it.
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
    # The user who runs the tests must be able to use it.
    chmod -R go+rX "$dir"
    "$dir/venv/bin/python" -c 'import dkim, nacl.signing' || { say "dkimpy does not work"; return 1; }
    echo "export POSTRIDER_TEST_PYTHON=$dir/venv/bin/python"
}

stop() { :; }

run_command "$@"
