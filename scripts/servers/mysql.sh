#!/usr/bin/env bash
# A private MySQL (Oracle's) on loopback for the tests. It does not use or change a
# server, configuration or data of the machine. README.md in this directory
# describes the commands of all server scripts.
#
# Usage: mysql.sh needs          prints the missing Debian packages, one on each line
#        mysql.sh start DIR      prints `export` lines when the server is ready
#        mysql.sh crash DIR      kills the server
#        mysql.sh restart DIR    starts it again on the same port
#        mysql.sh stop DIR       stops only the instance under DIR
#
# Debian has MySQL only in unstable. `start` downloads it from there with its
# libraries, and apt checks the archive's signatures. The packages are unpacked
# into a separate directory and not installed, so that the machine's packages and
# apt's lists do not change. MySQL runs with its own loader and libraries. The
# unpacked files are cached (scripts/lib/cache.sh): remove them to get a newer
# version.
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

# fetch DIR: downloads the server, its client and their libraries.
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
    # Uses the machine's apt settings, such as a proxy, but not its sources, lists, locks and packages.
    local apt_get=(apt-get -qq -o Dir::Etc::sourcelist="$apt/unstable.sources" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" -o Dir::Log="$apt"
        -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=false -o Acquire::Languages=none)
    local what=(install -y --no-install-recommends mysql-server-core mysql-client-core)
    say "searching Debian unstable for MySQL ($mirror)"
    "${apt_get[@]}" update &&
        size=$("${apt_get[@]}" --print-uris "${what[@]}" | awk '/^\x27/ { n++; s += $3 } END { printf "%d packages, %d MB", n, s / 1e6 }') &&
        say "downloading MySQL from Debian unstable: $size, into $cache" &&
        "${apt_get[@]}" --download-only "${what[@]}" || return 1
    local package
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$all" || return 1; done
    # Perl and other dependencies are for scripts that the tests do not run.
    mkdir -p "$1"/usr/{bin,sbin,lib,share} &&
        mv "$all/usr/sbin/mysqld" "$1/usr/sbin/" &&
        mv "$all/usr/bin/mysql" "$1/usr/bin/" &&
        mv "$all/usr/share/mysql" "$1/usr/share/" &&
        mv "$all"/usr/lib/mysql "$all"/usr/lib/*-linux-gnu* "$1/usr/lib/" &&
        rm -rf "$apt" "$all"
}

install_programs() {
    local tree
    tree=$(cached "mysql-unstable-$(uname -m)" fetch) && copy_tree "$tree" "$dir/mysql" || return 1
    set_programs
    cat >"$client" <<-CLIENT
		#!/bin/sh
		exec ${loader[*]} $root/bin/mysql "\$@"
	CLIENT
    chmod 755 "$client"
}

set_programs() {
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

# By default, root can log in only through the socket, because host names are not resolved.
init_data() {
    cat >"$dir/root.sql" <<-SQL
		CREATE USER root@'%' IDENTIFIED BY '';
		GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
	SQL
    chmod 644 "$dir/root.sql"
    "${as_server[@]}" "${server[@]}" --datadir="$data" --initialize-insecure --init-file="$dir/root.sql"
}

main "$@"
