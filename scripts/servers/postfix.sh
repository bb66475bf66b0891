#!/usr/bin/env bash
# A private Postfix on loopback for the tests. It does not use or change the
# machine's mail configuration. README.md in this directory describes the commands
# of all server scripts.
#
# Usage: postfix.sh needs        prints the missing Debian packages, one on each line
#        postfix.sh start DIR    prints `export` lines when the server is ready
#        postfix.sh stop DIR     stops only the instance under DIR
#
# One port offers STARTTLS, and another one implicit TLS. AUTH PLAIN and LOGIN work
# only with TLS. Mail to @example.test goes into one Maildir, as one file for each
# recipient, with the recipient in X-Original-To. The replies to
# nobody@example.test and busy@example.test are 550 5.1.1 and 450 4.2.0. No mail
# leaves the server. A third port, without TLS, accepts a hundred recipients for
# each mail, limits errors as Postfix does by default, and discards its mail.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

user=ada@example.test
password='s3cret:@/%+?#&='

say() { echo "postfix.sh: $*" >&2; }
# shellcheck source=scripts/lib/ports.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/ports.sh"

needs() {
    command -v postfix >/dev/null || echo postfix
    command -v saslpasswd2 >/dev/null || echo sasl2-bin
    command -v openssl >/dev/null || echo openssl
    sasl_plugin libplain || echo libsasl2-modules
    sasl_plugin libsasldb || echo libsasl2-modules-db
}

sasl_plugin() { compgen -G "/usr/lib*/sasl2/$1.so*" || compgen -G "/usr/lib/*/sasl2/$1.so*"; } >/dev/null

# Prints the pids of this instance. Every Postfix daemon runs in its queue
# directory, which no other instance uses. This finds them also if the start
# failed before it wrote a pid file, or if DIR is removed.
instance_pids() {
    local proc cwd
    for proc in /proc/[0-9]*; do
        cwd=$(readlink "$proc/cwd" || true)
        if [ "${cwd% (deleted)}" = "$queue" ] &&
            [[ "$(readlink "$proc/exe" || true)" == */postfix/* ]]; then
            echo "${proc#/proc/}"
        fi
    done 2>/dev/null
}

certificates() {
    local ca=$dir/tls/ca key=$dir/tls/server
    mkdir -p "$dir/tls"
    {
        openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 30 \
            -subj "/CN=postrider test CA" \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
            -keyout "$ca.key" -out "$ca.pem" &&
            openssl req -newkey rsa:2048 -nodes -sha256 -subj "/CN=localhost" \
                -keyout "$key.key" -out "$key.csr" &&
            openssl x509 -req -sha256 -days 30 -in "$key.csr" -CA "$ca.pem" -CAkey "$ca.key" \
                -set_serial "$(date +%s)" -out "$key.pem" -extfile <(
                    echo basicConstraints=critical,CA:FALSE
                    echo keyUsage=critical,digitalSignature,keyEncipherment
                    echo extendedKeyUsage=serverAuth
                    echo subjectAltName=DNS:localhost,IP:127.0.0.1
                )
    } >"$dir/openssl.log" 2>&1 || { cat "$dir/openssl.log" >&2; return 1; }
}

# Debian's Postfix ignores cyrus_sasl_config_path and reads smtpd.conf from `sasl`
# in its configuration directory. Here both are the same directory.
credentials() {
    mkdir -p "$dir/etc/sasl"
    cat >"$dir/etc/sasl/smtpd.conf" <<-CONF
		pwcheck_method: auxprop
		auxprop_plugin: sasldb
		sasldb_path: $dir/data/sasldb2
		mech_list: PLAIN LOGIN
	CONF
    rm -f "$dir/data/sasldb2"
    printf %s "$password" | saslpasswd2 -p -c -f "$dir/data/sasldb2" -u "${user#*@}" "${user%@*}"
    chown postfix "$dir/data/sasldb2"
}

# Prints the owner of the Maildir: the owner of DIR, who reads the mail. Postfix
# does not deliver as root, so if root owns DIR, it is `nobody`.
mail_owner() {
    local owner
    owner=$(stat -c %u:%g "$dir")
    [[ "$owner" != 0:* ]] || owner=$(id -u nobody):$(id -g nobody)
    echo "$owner"
}

configure() {
    local owner
    owner=$(mail_owner)
    # 0711: the daemons' users must be able to enter the directory.
    chmod 711 "$dir"
    mkdir -p "$queue" "$dir/etc" "$dir/data" "$maildir"/{tmp,new,cur}
    chown postfix "$dir/data"
    chown "$owner" "$maildir" "$maildir"/{tmp,new,cur}
    chmod 700 "$maildir"
    certificates
    credentials
    cat >"$dir/etc/main.cf" <<-CONF
		compatibility_level = 3.6
		queue_directory = $queue
		data_directory = $dir/data
		maillog_file = $dir/mail.log
		maillog_file_prefixes = $dir
		myhostname = mta.example.test
		mydestination =
		mynetworks = 127.0.0.0/8
		inet_protocols = ipv4
		alias_maps =
		alias_database =
		notify_classes =
		smtpd_peername_lookup = no
		disable_dns_lookups = yes
		# The headers in the Maildir are those that were sent.
		local_header_rewrite_clients =

		# No mail leaves: other domains than example.test are refused, and a bounce
		# to an outside sender fails.
		local_transport = error:no local mail
		relay_transport = error:no relaying
		default_transport = error:no outside mail
		smtpd_relay_restrictions = reject_unauth_destination
		smtpd_recipient_restrictions = reject_unauth_destination,
		    check_recipient_access inline:{
		        {nobody@example.test = 550 5.1.1 no such mailbox},
		        {busy@example.test = 450 4.2.0 mailbox busy}}

		virtual_mailbox_domains = example.test
		virtual_mailbox_base = $dir
		virtual_mailbox_maps = static:maildir/
		virtual_minimum_uid = 1
		virtual_uid_maps = static:${owner%:*}
		virtual_gid_maps = static:${owner#*:}
		virtual_mailbox_limit = 0
		virtual_destination_concurrency_limit = 50
		smtputf8_enable = yes

		smtpd_tls_security_level = may
		smtpd_tls_chain_files = $dir/tls/server.key, $dir/tls/server.pem
		smtpd_tls_auth_only = yes
		smtpd_sasl_auth_enable = yes
		smtpd_sasl_type = cyrus
		smtpd_sasl_path = smtpd
		cyrus_sasl_config_path = $dir/etc/sasl
		smtpd_sasl_security_options = noanonymous

		# The tests send like an attacker, so rate limits and penalties are off.
		default_process_limit = 400
		in_flow_delay = 0
		smtpd_client_connection_count_limit = 0
		smtpd_client_connection_rate_limit = 0
		smtpd_client_message_rate_limit = 0
		smtpd_client_recipient_rate_limit = 0
		smtpd_client_new_tls_session_rate_limit = 0
		smtpd_client_auth_rate_limit = 0
		smtpd_error_sleep_time = 0
		smtpd_soft_error_limit = 10000
		smtpd_hard_error_limit = 10000
		smtpd_junk_command_limit = 10000
		smtpd_timeout = 300s
	CONF
    cat >"$dir/etc/master.cf" <<-CONF
		127.0.0.1:$port inet n - n - - smtpd
		127.0.0.1:$tls_port inet n - n - - smtpd
		    -o smtpd_tls_wrappermode=yes
		    -o smtpd_tls_security_level=encrypt
		127.0.0.1:$limited_port inet n - n - - smtpd
		    -o smtpd_recipient_limit=100
		    -o smtpd_soft_error_limit=10
		    -o smtpd_hard_error_limit=20
		    -o smtpd_end_of_data_restrictions=check_client_access,static:discard
		pickup    unix n - n 60    1 pickup
		cleanup   unix n - n -     0 cleanup
		qmgr      unix n - n 300   1 qmgr
		tlsmgr    unix - - n 1000? 1 tlsmgr
		rewrite   unix - - n -     - trivial-rewrite
		bounce    unix - - n -     0 bounce
		defer     unix - - n -     0 bounce
		trace     unix - - n -     0 bounce
		verify    unix - - n -     1 verify
		flush     unix n - n 1000? 0 flush
		proxymap  unix - - n -     - proxymap
		showq     unix n - n -     - showq
		error     unix - - n -     - error
		retry     unix - - n -     - error
		virtual   unix - n n -     - virtual
		anvil     unix - - n -     1 anvil
		postlog   unix-dgram n - n - 1 postlogd
	CONF
}

# True once both ports greet with 220, the second one with a certificate of the CA.
is_ready() {
    local greeting=
    { read -r -t 5 greeting <&3 && printf 'QUIT\r\n' >&3; } 3<>"/dev/tcp/127.0.0.1/$port" || true
    [[ "$greeting" == 220* ]] || return 1
    greeting=$(printf 'QUIT\r\n' | timeout 10 openssl s_client -quiet -verify_return_error \
        -CAfile "$dir/tls/ca.pem" -connect "127.0.0.1:$tls_port" || true)
    [[ "$greeting" == 220* ]]
} 2>/dev/null

launch() {
    postfix -c "$dir/etc" start </dev/null >>"$dir/start.log" 2>&1 || return 1
    for _ in {1..50}; do
        is_ready && return 0
        sleep 0.2
    done
    return 1
}

start() {
    if [ -n "$(instance_pids)" ]; then
        say "a server already runs under $dir"
        return 1
    fi
    mkdir -p "$dir"
    trap '[ $? = 0 ] || stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    for _ in 1 2 3; do
        port=$(free_port)
        tls_port=$(free_port "$port")
        limited_port=$(free_port "$port" "$tls_port")
        configure
        if ! setpriv --reuid postfix --clear-groups test -x "$dir/data"; then
            say "the user postfix cannot reach $dir; use a directory below /tmp"
            return 1
        fi
        if launch; then
            cat <<-EXPORTS
				export POSTRIDER_TEST_MTA_HOST=127.0.0.1
				export POSTRIDER_TEST_MTA_PORT=$port
				export POSTRIDER_TEST_MTA_TLS_PORT=$tls_port
				export POSTRIDER_TEST_MTA_LIMITED_PORT=$limited_port
				export POSTRIDER_TEST_MTA_CA=$(printf %q "$dir/tls/ca.pem")
				export POSTRIDER_TEST_MTA_USER=$(printf %q "$user")
				export POSTRIDER_TEST_MTA_PASSWORD=$(printf %q "$password")
				export POSTRIDER_TEST_MTA_MAILDIR=$(printf %q "$maildir")
			EXPORTS
            return 0
        fi
        stop
    done
    say "Postfix did not start; the end of its logs:"
    tail -n 20 "$dir/start.log" "$dir/mail.log" >&2 || true
    return 1
}

stop() {
    local pids signal
    if [ -e "$dir/etc/main.cf" ]; then
        postfix -c "$dir/etc" stop </dev/null >>"$dir/start.log" 2>&1 || true
    fi
    for signal in TERM KILL; do
        for _ in {1..25}; do
            pids=$(instance_pids)
            [ -n "$pids" ] || return 0
            # shellcheck disable=SC2086 # one argument for each pid
            kill -"$signal" $pids 2>/dev/null || true
            sleep 0.2
        done
    done
    say "still running under $dir: ${pids//$'\n'/ }"
    return 1
}

case "${1:-} $#" in
"needs 1") needs; exit ;;
"start 2" | "stop 2") ;;
*) say "usage: postfix.sh needs | start DIR | stop DIR"; exit 2 ;;
esac
if [ "$(id -u)" != 0 ]; then
    say "only root can start and stop Postfix: run this as root or with sudo"
    exit 2
fi
if [ "$1" = start ]; then
    missing=$(needs)
    if [ -n "$missing" ]; then
        say "missing (Debian's package names): ${missing//$'\n'/ }"
        exit 2
    fi
fi
dir=$(realpath -m -- "$2")
if [[ "$dir" == *[!a-zA-Z0-9/._+-]* ]]; then
    say "a Postfix configuration does not support the characters of $dir"
    exit 2
fi
queue=$dir/queue
maildir=$dir/maildir
"$1"
