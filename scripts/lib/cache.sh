# shellcheck shell=bash
# For the scripts of servers that Debian's own release does not have: what they
# download is kept for the next run. To be sourced where `say` is defined.

# The user's cache, which for a script that runs as root is root's.
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/postrider/servers

# $(cached NAME FETCH...): makes sure that $cache/NAME is there, whole, and
# prints its path. `FETCH... DIR` fills an empty directory, and what it prints
# goes to stderr. The directory gets its name only when all of it is there, so
# that an interrupted download is never taken for the whole; of two that run at
# once, the second one's is thrown away.
cached() {
    local tree=$cache/$1
    shift
    if ! [ -e "$tree/complete" ]; then
        mkdir -p "$cache"
        # What a killed run has left behind.
        find "$cache" -maxdepth 1 -name "${tree##*/}.*" -mmin +120 -exec rm -rf {} +
        new=$(mktemp -d "$tree.XXXXXX")
        trap 'rm -rf "$new"' EXIT
        # The servers' own users read what is in it.
        chmod 755 "$new"
        "$@" "$new" >&2 || { say "could not fetch what it needs into $cache"; return 1; }
        touch "$new/complete"
        mv -T "$new" "$tree" 2>/dev/null || [ -e "$tree/complete" ] || { say "could not fill $tree"; return 1; }
    fi
    echo "$tree"
}

# lend TREE DIR: the tree under DIR, where the server's user can reach it: the
# cache may lie in a home directory that nobody else may enter.
lend() {
    cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2" && cp -a "$1" "$2"; }
}
