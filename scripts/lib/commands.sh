# The command line of a server script. Sourced; README.md in scripts/servers
# describes the commands.

# run_command "$@": runs the function `needs`, `start` or `stop` of the script. Sets
# `dir`, the script's directory for its files, for `start` and `stop`.
run_command() {
    local name missing
    name=$(basename "$0")
    case "${1:-} $#" in
    "needs 1") needs; return ;;
    "start 2" | "stop 2") ;;
    *) say "usage: $name needs | start DIR | stop DIR"; exit 2 ;;
    esac
    if [ "$1" = start ]; then
        missing=$(needs)
        if [ -n "$missing" ]; then
            say "missing (Debian's package names): ${missing//$'\n'/ }"
            exit 2
        fi
    fi
    dir=$(realpath -m -- "$2")
    "$1"
}
