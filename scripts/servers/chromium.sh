#!/usr/bin/env bash
# Debian's Chromium, with the Node packages that drive it and check accessibility,
# for the tests of the dashboard. It is no server. README.md in this directory
# describes the commands of all server scripts.
#
# Usage: chromium.sh needs        prints the missing Debian packages, one on each line
#        chromium.sh start DIR    installs the Node packages and prints `export` lines
#        chromium.sh stop DIR     does nothing
#
# `start` installs from npm under DIR, in the versions of
# tests/dashboard/browser/package-lock.json and by their hashes. npm caches the
# downloads.
set -euo pipefail

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/commands.sh
. "$here/../lib/commands.sh"

say() { echo "chromium.sh: $*" >&2; }

needs() {
    command -v chromium >/dev/null || echo chromium
    command -v curl >/dev/null || echo curl
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

# No code of a package runs while it is installed.
install() {
    {
        cp "$here"/../../tests/dashboard/browser/package{,-lock}.json "$dir" &&
            npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund
    } </dev/null >"$dir/install.log" 2>&1 || { tail -n 20 "$dir/install.log" >&2; return 1; }
}

start() {
    mkdir -p "$dir"
    install || { say "the Node packages could not be installed"; return 1; }
    # The user who runs the tests must be able to use it.
    chmod -R go+rX "$dir"
    NODE_PATH=$dir/node_modules node -e 'for (const name of ["puppeteer-core", "axe-core"]) require(name)' ||
        { say "the Node packages do not work"; return 1; }
    echo "export POSTRIDER_TEST_BROWSER=$(command -v chromium)"
    echo "export POSTRIDER_TEST_BROWSER_NODE=$dir/node_modules"
}

stop() { :; }

run_command "$@"
