# shellcheck shell=bash
# Finds free ports for the scripts of servers. The sourcing script must define `say`.

# free_port [PORT...]: prints a free port of 127.0.0.1 other than these. It is
# below the kernel's ephemeral ports, so that no client takes it before the server
# binds it, or between a crash and the restart.
free_port() {
    local port
    for _ in {1..200}; do
        port=$((10000 + RANDOM % 20000))
        [[ " $* " != *" $port "* ]] || continue
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    say "there is no free port on 127.0.0.1"
    return 1
}
