# shellcheck shell=bash
# For the scripts of servers: `free_port [PORT...]` prints a port of 127.0.0.1 that
# nobody uses, and none of these. To be sourced where `say` is defined.

# Below the ports that the kernel hands out by itself, so that a client's or a
# test's own socket does not take the port between this look and the bind, nor
# between a crash and the restart.
free_port() {
    local port
    for _ in {1..200}; do
        port=$((10000 + RANDOM % 20000))
        [[ " $* " != *" $port "* ]] || continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    say "found no free port on 127.0.0.1"
    return 1
}
