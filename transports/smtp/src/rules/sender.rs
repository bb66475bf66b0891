//! Words about the sender: the From address, the envelope sender, or the sender's domain.

use super::row::{PERMANENT, Row, row};
use super::verdict::SENDER;
use crate::stage::Stage::Mail;

const AUTH: &str = "RFC 7372 (SPF, DKIM), RFC 7489 (DMARC), common wordings";
const REPUTATION: &str = "the reputation of the sender's domain: Google, Cisco, Spamhaus DBL";
const POSTFIX: &str = "Postfix: smtpd_check.c, Sender address rejected; Exim: sender verify; qmail: badmailfrom";
const IDENTITY: &str =
    "the account may not use this address: Amazon SES, SendGrid, Brevo, SparkPost, Exchange, Postfix, Zoho";
const DOMAIN: &str =
    "RFC 5321 section 4.2.4, RFC 7505 section 4.1: the sender's domain must accept mail; Sendmail, Yahoo, Courier";

/// Words about SPF, DKIM, DMARC, and the reputation of the domain.
pub(super) const AUTHENTICATION: &[Row] = &[
    row(SENDER, AUTH)
        .says(&[
            "spf",
            "dkim",
            "dmarc",
            "domainkeys",
            "sender policy framework",
            "sender is unauthenticated",
            "unauthenticated email from",
            "senders to authenticate",
            "spoof*",
            "antispoof*",
            "impersonat*",
        ])
        .unless(&["ptr"]),
    row(SENDER, REPUTATION)
        .says(&[
            "reputation of … domain",
            "domain … reputation",
            "mailfrom|from|sender|sending domain … listed|blacklist*|blocklist*|block*|banned",
            "your domain … listed|blacklist*|blocklist*|blocked|banned",
            "sender|from address … blocked|listed|blacklist* using|in|by|at",
            "mailfrom domain",
            "domain frequency|rate limit*",
            "sender frequency|rate limit*",
            "badmailfrom",
            "blacklisted sender|from",
            "your email address|domain … blocked|blacklist*|banned|rejected",
            "blocked senders",
            "sending to from an address",
            "block policy for",
            "provide a valid from",
            "domain based",
            "from header … match|authenticated|aligned",
            "as a from",
            "sender … domain not|is",
        ])
        .unless(&["ip … reputation", "helo|ehlo", "client host|ip"]),
];

/// Words about the address, and whether the account may use it.
pub(super) const ADDRESS: &[Row] = &[
    row(SENDER, POSTFIX)
        .says(&[
            "sender address|addresses|domain|email|name rejected|syntax|invalid|blocked|not|denied",
            "sender address|addresses|domain|email|name refused|unknown|must|verification|verify|does|is",
            "sender … address … rejected|invalid|denied|syntax",
            "sender rejected|refused|denied|blocked|invalid|unknown|disallowed|not|is|verify|must",
            "invalid|bad|unknown|illegal|forged|unauthorized|null|empty sender|senders|mailfrom|from",
            "sender access|verify|verification|callout",
            "emetteur invalide",
            "envelope sender|from",
            "return path",
            "mail from address|must|rejected|refused|denied|domain|not",
        ])
        .unless(&["dnsbl|rbl", "invalid from header"]),
    row(SENDER, IDENTITY)
        .says(&[
            "send|sending|submit|relaying|relay|mail|email as|from for|this|#address|another|sender",
            "send|sending|submit|relaying|relay|mail|email as|from other|your|domain|that|the",
            "not allowed|permitted|authorized|authorised to send|use|submit|relay … as|from|this|sender",
            "disallowed as|from",
            "permissions to send",
            "permission to send as|from|on",
            "from|sender address|name|email|you … not|match|verified|valid|validated",
            "from|sender address|name|email|you … allowed|authorized|permitted|owned|registered",
            "verified sender|domain|identity|address|from",
            "identit* failed",
            "sender identity|signature",
            "domain|address|sender|from is not|isnt verified|registered|authorized|authorised|allowed",
            "domain|address|sender|from is not|isnt validated|confirmed|activated|configured|owned|valid",
            "not verified|validated|configured",
            "unverified|unconfigured|unregistered|unvalidated … domain*|sender|address|email",
            "same as auth*",
            "not owned by",
            "owned by user",
            "from address",
            "sender … match",
            "from field",
            "from header",
            "validate your sender",
            "identity … not|changes",
        ])
        .unless(&["sending … ip address", "ip", "ips"]),
    row(SENDER, DOMAIN)
        .says(&[
            "sender … domain",
            "domain of sender",
            "unresolvable … domain",
            "from domain",
            "dns mx",
            "sender … mx",
            "mx … sender",
            "sender … has no",
            "mx or a",
            "a aaaa or mx",
            "null sender",
        ])
        .unless(&["recipient", "rcpt"]),
    row(SENDER, DOMAIN).at(&[Mail]).says(&[
        "mx record*",
        "domain may|must|does … exist",
        "domain … resolve",
        "dns check failed",
    ]),
    row(SENDER, "OpenSMTPD, Sendmail: the reverse-path's syntax")
        .codes(&[PERMANENT])
        .says(&["sender … syntax", "syntax … sender|mail from"]),
];
