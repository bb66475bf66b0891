#!/usr/bin/env bash
# A private MySQL, the one of Oracle's, on loopback for the tests; no server,
# configuration or data of the machine's own is read or changed. See README.md
# beside this file for the contract that every server script keeps.
#
# Usage: mysql.sh needs          prints the missing Debian packages, one a line
#        mysql.sh start DIR      prints `export` lines once the server answers
#        mysql.sh crash DIR      kills it, which leaves it no time to write anything
#        mysql.sh restart DIR    runs it again after that, on the same port
#        mysql.sh stop DIR       ends exactly the instance under DIR
#
# Debian has MySQL only in unstable. `start` fetches it from there with all that
# it links, and apt checks the archive's signatures; the packages are unpacked
# into a directory of their own and never installed, so that the machine's
# packages, and what apt knows of them, stay as they are. MySQL then runs by its
# own loader on its own libraries. What was unpacked is kept (scripts/lib/cache.sh);
# remove it to have a newer one fetched.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/lib/mysql.sh
. "$here/../lib/mysql.sh"
# shellcheck source=scripts/lib/cache.sh
. "$here/../lib/cache.sh"

product=MySQL
variables=MYSQL
mirror=${POSTRIDER_TEST_DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

needs() {
    id -u "$os_user" >/dev/null 2>&1 || echo mariadb-server
    [ -r "$keyring" ] || echo debian-archive-keyring
}

# fetch DIR: the server, its client and their libraries.
fetch() {
    local apt=$1/apt all=$1/all size
    mkdir -p "$apt"/lists/partial "$apt"/archives/partial "$all"
    : >"$apt/status"
    cat >"$apt/unstable.sources" <<-SOURCES
		Types: deb
		URIs: $mirror
		Suites: unstable
		Components: main
		Signed-By: $keyring
	SOURCES
    # The machine's own proxy and the like hold for this as well; its sources, lists, locks and packages do not.
    local apt_get=(apt-get -qq -o Dir::Etc::sourcelist="$apt/unstable.sources" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" -o Dir::Log="$apt"
        -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=false -o Acquire::Languages=none)
    local what=(install -y --no-install-recommends mysql-server-core mysql-client-core)
    say "looking for MySQL in Debian unstable ($mirror)"
    "${apt_get[@]}" update &&
        size=$("${apt_get[@]}" --print-uris "${what[@]}" | awk '/^\x27/ { n++; s += $3 } END { printf "%d packages, %d MB", n, s / 1e6 }') &&
        say "fetching MySQL from Debian unstable: $size, into $cache" &&
        "${apt_get[@]}" --download-only "${what[@]}" || return 1
    local package
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$all" || return 1; done
    # Perl and what else it depends on is for scripts that nobody runs here.
    mkdir -p "$1"/usr/{bin,sbin,lib,share} &&
        mv "$all/usr/sbin/mysqld" "$1/usr/sbin/" &&
        mv "$all/usr/bin/mysql" "$1/usr/bin/" &&
        mv "$all/usr/share/mysql" "$1/usr/share/" &&
        mv "$all"/usr/lib/mysql "$all"/usr/lib/*-linux-gnu* "$1/usr/lib/" &&
        rm -rf "$apt" "$all"
}

provide() {
    local tree
    tree=$(cached "mysql-unstable-$(uname -m)" fetch) && lend "$tree" "$dir/mysql" || return 1
    programs
    cat >"$client" <<-CLIENT
		#!/bin/sh
		exec ${loader[*]} $root/bin/mysql "\$@"
	CLIENT
    chmod 755 "$client"
}

programs() {
    local libraries found
    root=$dir/mysql/usr
    libraries=$(compgen -G "$root/lib/*-linux-gnu*") || true
    found=$(compgen -G "$libraries/ld-linux*.so.*") || true
    loader=("$found" --library-path "$libraries:$root/lib/mysql/private")
    server=("${loader[@]}" "$root/sbin/mysqld" --no-defaults --basedir="$root"
        --lc-messages-dir="$root/share/mysql" --plugin-dir="$root/lib/mysql/plugin"
        --secure-file-priv=NULL --mysqlx=0)
    client=$dir/client
    client_options=()
}

# Nobody but who comes by the socket could log in as root otherwise, since names are not looked up.
create_tables() {
    cat >"$dir/root.sql" <<-SQL
		CREATE USER root@'%' IDENTIFIED BY '';
		GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
	SQL
    chmod 644 "$dir/root.sql"
    "${as_server[@]}" "${server[@]}" --datadir="$data" --initialize-insecure --init-file="$dir/root.sql"
}

main "$@"
