//! Words about the client: its IP address, name, network and connection.

use super::row::{Row, row};
use super::verdict::{ACCOUNT, LIMIT, SERVER};
use crate::stage::Stage::Recipient;

const HELLO: &str = "RFC 5321 section 4.1.4: the name for EHLO";
const PTR: &str = "RFC 7372 section 3.3: the client's reverse DNS";
const LISTED: &str = "RFC 5782: the client is on a DNS blocklist";
const IP: &str = "the client's address, common wordings: Postfix, Exim, Google, Mimecast, Barracuda, Cisco";
const TLS: &str = "RFC 3207 section 4: no mail without encryption";
const CONNECTION: &str = "RFC 5321 section 3.8: the connection has reached its limit";
const RATE: &str = "the client connects too often, or has too many connections: Postfix anvil, Exim, Exchange, Orange";
const TONLINE: &str = "T-Online: postmaster.t-online.de";

pub(super) const ROWS: &[Row] = &[
    row(ACCOUNT, HELLO).says(&["helo", "ehlo"]).unless(&["first", "send hello", "spf"]),
    row(ACCOUNT, PTR).says(&[
        "ptr",
        "reverse dns|hostname|lookup|name|record|ip|address|host",
        "rdns",
        "reverse … dns",
        "cannot find your",
        "your hostname|host|reverse … find|found|name|dns",
        "forward confirmed",
        "fcrdns",
        "ip name lookup|possibly",
        "host|client name lookup|not|resolve",
        "bad dns",
        "hostname is not",
        "cannot resolve your",
        "unresolvable relay",
        "dns lookup|check failure",
    ]),
    row(ACCOUNT, TLS)
        .says(&[
            "encryption required|is|needed",
            "session encryption",
            "issue a starttls",
            "starttls|tls|ssl … required|first|must|needed",
            "require* … starttls|tls|ssl|encryption",
            "only with ssl|tls",
            "over tls",
            "ciphers",
            "tls version",
            "tls ssl* connection required",
        ])
        .unless(&["rcpt domain", "requiretls"]),
    row(SERVER, CONNECTION)
        .says(&[
            "messages|message|mails|emails|recipients|transactions in|per|on this|connection|session|one",
            "new session|connection",
            "too many messages sent",
            "too many … in|on|for this connection|session",
        ])
        .unless(&["day|hour|minute|second|daily|hourly"]),
    row(LIMIT, RATE).says(&[
        "too many|frequent … connections|connects|connexions|sessions|auth",
        "too many|frequent … errors|commands|logins|concurrent|login|spams",
        "concurrent|simultaneous connections|sessions|smtp",
        "connection|connections rate|limit|frequency|quota",
        "thread limit",
        "processing requests from your",
        "limit … connections",
        "frequent … connections|connects",
    ]),
    row(ACCOUNT, LISTED)
        .says(&[
            "abuseat|barracudacentral|cbl|dnsbl|dnsbls|hostkarma|invaluement|ivmsip|mailspike|proofpoint|psbl|rbl",
            "rbls|sorbs|spamcop|spamhaus|spamrats|surriel|uceprotect|dnsrbl|xbl|sbl|pbl|zen|drbl",
            "dnsbl*",
            "dns block|black list",
            "black|block|deny|blocked list|lists|listed|listing",
            "blacklist*|blocklist*|denylist*|blacklistis|denylisted",
            "realtime block",
            "listed on|at|in|by #host|#link|the",
            "blocked by|using|at #host|#link|list",
            "spammer list",
            "sending spam",
            "listing … effect",
        ])
        .unless(&[
            "url|urls|uri|link|links|content|body|uribl|surbl",
            "sender|from address",
            "recipient's … list",
            "domain",
            "pattern",
        ]),
    row(ACCOUNT, TONLINE).says(&["#ip a problem occurred", "ip a problem occurred", "ask your postmaster for help"]),
    row(ACCOUNT, IP)
        .says(&[
            "client host|ip|address|network|server|machine",
            "your ip|host|server|network|mta|mailserver … block*|reject*|denied|deny|refus*|ban*|poor|bad",
            "your isp|system|mail|connection|access|provider … block*|reject*|denied|deny|refus*|ban*|poor|bad",
            "your ip|host|server|network|mta|mailserver … reputation|not|listed|spam*",
            "your ip|host|server|network|mta|mailserver … restrict*|suspicious|identified|found",
            "your isp|system|mail|connection|access|provider … reputation|not|listed|spam*",
            "your isp|system|mail|connection|access|provider … restrict*|suspicious|identified|found",
            "your|sending ip|ips",
            "sending|source|originating|remote|connecting|client ip|ips|host|server|mta",
            "ip|ips is|was|has|address|addresses|temporarily|range|ranges|netblock|network|not",
            "ip|ips rejected|blocked|denied|banned|source|based|reputation|in|on|are|blacklisted|frequency",
            "black|bad|banned|blocked|unauthorized ip|ips",
            "part of their network",
            "#ip is|was|has|found|listed|blocked|rejected|denied|refused|banned",
            "#ip not|in|on|blacklisted|will|temporarily|permanently|deferred|may|by",
            "sender|host|from|by #ip",
            "due to ip",
            "poor|bad|low|negative|insufficient reputation",
            "reputation … sender|mta|server|network|poor|low|bad",
            "your reputation",
            "csi",
            "cloudmark",
            "connection|connections refused|denied|rejected|dropped|disallowed|will|not|blocked",
            "not accepting connections",
            "not allowed|permitted|authorized to connect",
            "host|network|hosts not|rejected|denied|blocked|banned allowed|rejected|permitted|denied",
            "access to this mail system",
            "your access",
            "access to submit",
            "access from … blocked|denied|rejected",
            "dynamic|residential|dialup|dsl|generic ip|address|host|hosts|ips|dns",
            "country",
            "geographical location",
            "open proxy",
            "botnet",
            "bot net",
            "spam* from your",
            "go away",
            "attack|attacks",
            "your server|mailserver",
            "confirm this mail|server",
            "from mail|your server",
            "smtp server of your",
            "reputation score",
            "client blocked|rejected|denied|refused",
        ])
        .unless(&[
            "open relay not",
            "spf",
            "rcpt domain",
            "url|urls",
            "unsolicited mail to|reduce",
            "is likely unsolicited",
        ]),
    // Before the server has seen the content, a filter means the client.
    row(ACCOUNT, "RFC 5321 section 3.3: RCPT TO comes before the content").at(&[Recipient]).says(&[
        "spam*",
        "junk*",
        "unsolicited",
        "suspicious",
    ]),
];
