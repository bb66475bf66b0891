# shellcheck shell=bash
# A download cache for the scripts of servers that Debian's release does not have.
# The sourcing script must define `say`.

# The cache of the user that runs the script: with sudo, root's.
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/postrider/servers

# cached NAME FETCH...: creates $cache/NAME if it does not exist, and prints its
# path. `FETCH... DIR` fills an empty directory, and its output goes to stderr. A
# complete directory is renamed to its final name, so that an interrupted download
# is never used. If two scripts download at once, the second result is deleted.
cached() {
    local tree=$cache/$1
    shift
    if ! [ -e "$tree/complete" ]; then
        mkdir -p "$cache"
        # The leftovers of a killed run.
        find "$cache" -maxdepth 1 -name "${tree##*/}.*" -mmin +120 -exec rm -rf {} +
        new=$(mktemp -d "$tree.XXXXXX")
        trap 'rm -rf "$new"' EXIT
        # The servers' users read its files.
        chmod 755 "$new"
        "$@" "$new" >&2 || { say "the download into $cache failed"; return 1; }
        touch "$new/complete"
        mv -T "$new" "$tree" 2>/dev/null || [ -e "$tree/complete" ] || { say "could not create $tree"; return 1; }
    fi
    echo "$tree"
}

# copy_tree TREE DIR: links or copies the tree to DIR. The server's user cannot
# enter the cache if it is in another user's home directory.
copy_tree() {
    cp -al "$1" "$2" 2>/dev/null || { rm -rf "$2" && cp -a "$1" "$2"; }
}
