//! Words about the server itself.

use super::row::{PERMANENT, Row, row};
use super::verdict::SERVER;

const UNAVAILABLE: &str = "RFC 5321 section 4.2.3 (421, 451, 452), RFC 3463 section 3.4, common wordings";

pub(super) const ROWS: &[Row] = &[
    row(SERVER, UNAVAILABLE).says(&[
        "server configuration error|problem",
        "internal|system|server error|failure",
        "out of memory",
        "insufficient|not|no|low|out … disk|system|resources|memory|space|storage",
        "queue file",
        "cannot write",
    ]),
    row(SERVER, UNAVAILABLE)
        .says(&[
            "temporary|temporarily|transient|local|internal|system|server error|problem|failure|unavailable",
            "temporary|temporarily|transient|local|internal|system|server trouble|issue|rejected|system|server",
            "software|service|database|backend|processing|resource|resources error|problem|failure|unavailable",
            "software|service|database|backend|processing|resource|resources trouble|issue|rejected|system|server",
            "temporary|temporarily|transient|local|internal|system|server local|lookup|dns|deferred",
            "temporary|temporarily|transient busy|overloaded|configuration|internal|unable",
            "local|internal|system|server busy|overloaded|configuration|internal|unable",
            "software|service|database|backend|processing|resource|resources local|lookup|dns|deferred",
            "software|service|database busy|overloaded|configuration|internal|unable",
            "backend|processing|resource|resources busy|overloaded|configuration|internal|unable",
            "server|service|system|host|agent|queue|mailserver is|currently|temporarily|not|busy|too",
            "server|service|system|host|agent|queue|mailserver overloaded|unavailable|available|down|out|shutting",
            "service unavailable|denied|refused|refuse",
            "disk full|space|quota",
            "space shortage",
            "queue unavailable|full|file",
            "resources … unavailable|exhausted",
            "timeout|timed",
            "try reconnecting",
            "too much load",
            "load … high",
            "overload*",
            "ports are busy",
            "not accepting … messages|mail",
            "shutting down|shutdown",
            "maintenance",
            "technical difficult*|reasons|problem*",
            "healthy secondary",
            "replicat*",
            "lost connection",
            "connection timed|reset|closed|expired",
            "cannot accept your message",
            "could not be processed",
            "unable to … process|complete|accept",
            "ldap|sql|mysql|milter|filter|lookup … error|unavailable|failure|timeout",
        ])
        .unless(&["recipient|mailbox|user"]),
    row(SERVER, UNAVAILABLE)
        .says(&["try again|later|back … later|again"])
        .codes(&[PERMANENT])
        .unless(&["recipient|mailbox|user|message"]),
];
