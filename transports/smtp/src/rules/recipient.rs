//! Words about one recipient.

use super::row::{PERMANENT, Row, TRANSIENT, row};
use super::verdict::{LIMIT, RECIPIENT, RECIPIENT_LATER, TOO_MANY_RECIPIENTS};
use crate::stage::Stage::{Accept, Data, Recipient};

const POSTFIX: &str = "Postfix: smtpd.c, smtpd_check.c, ADDRESS_VERIFICATION_README";
const GMAIL: &str = "Google: Gmail SMTP errors and codes (support.google.com/a/answer/3726730)";
const GREY: &str = "RFC 6647: greylisting";
const FULL: &str = "RFC 3463 section 3.3: X.2.2, mailbox full, common wordings";
const RATE: &str = "the receiving rate of a mailbox: Google, Microsoft, Yahoo, Apple, Proofpoint";
const NO_MAILBOX: &str = "RFC 5321 section 4.2.3 (550, 553), RFC 3463 section 3.2, common wordings";
const DISABLED: &str = "RFC 3463 section 3.3: X.2.1, mailbox disabled, common wordings";
const REFUSES_SENDER: &str = "the recipient or its organisation refuses this sender";
const TRANSACTION_LIMIT: &str =
    "RFC 5321 section 4.5.3.1.10: too many recipients, the rest goes into another transaction";
const DOMAIN: &str = "RFC 5321 section 5, RFC 7504 section 4, RFC 7505 section 4.2: the recipient's domain";

/// Words that name the recipient and its condition.
pub(super) const SPECIFIC: &[Row] = &[
    // Postfix's anvil, Exim and Cisco limit the rate of recipients and the number of unknown ones.
    row(LIMIT, POSTFIX).says(&[
        "too many recipients|rcpts from",
        "too much mail from",
        "too many invalid|unknown|bad|nonexistent",
        "too many recipients received|this|per|in",
    ]),
    row(TOO_MANY_RECIPIENTS, TRANSACTION_LIMIT)
        .at(&[Recipient])
        .says(&["too many recipients|rcpts|destinations|addresses", "too many … recipients"])
        .unless(&["daily|hourly|day|hour|minute"]),
    row(TOO_MANY_RECIPIENTS, GMAIL)
        .at(&[Recipient])
        .says(&["in a separate transaction", "multiple destination domains per transaction"]),
    // Several transactions can carry what one cannot, also if the server says so later.
    row(RECIPIENT_LATER, TRANSACTION_LIMIT)
        .at(&[Data, Accept])
        .says(&["too many recipients|rcpts"])
        .unless(&["daily|hourly|day|hour|minute"]),
    row(RECIPIENT_LATER, GREY).says(&["greylist*", "graylist*", "grey|gray listed|listing|list"]),
    row(RECIPIENT_LATER, POSTFIX)
        .says(&["verification in progress", "unverified address", "recipient verify callout", "recipient … callout"])
        .unless(&["sender"]),
    row(RECIPIENT_LATER, RATE)
        .says(&[
            "receiving mail|messages|email too",
            "receiving mail at a rate",
            "received too much|many",
            "recipient|mailbox has exceeded … message|rate|limit|receiving",
            "receive limit",
            "organization queue quota",
            "to this recipient per|in",
            "messages|mail to #address deferred|delayed",
        ])
        .unless(&["ip|ips"]),
    row(RECIPIENT, FULL)
        .says(&[
            "mailbox|inbox|box|mailfolder|account|user|recipient full",
            "mailbox|inbox|box|folder|account|user|recipient is|was … full",
            "mailbox … is full",
            "full mailbox|inbox",
            "over|overdrawn|out quota",
            "overquota",
            "out of storage|space|quota … account|mailbox",
            "out of storage",
            "quota violation",
            "mailbox|account|user|recipient|inbox|disk|storage quota",
            "mailbox|inbox|storage … exceed*",
            "mailbox limit|size",
            "exceed* … mailbox|inbox|storage",
            "exceed* the quota",
            "quota … mailbox|inbox",
            "quota exceeded",
            "exceeds|exceeding|exceeded quota",
            "quota|space … used up",
            "enough storage|space",
            "over the … quota",
            "too many messages on the server",
            "boite|boîte … pleine",
            "buzon|buzón … lleno",
            "postfach … voll",
        ])
        .unless(&[
            "relay|sending|submission|outgoing|outbound|message quota|limit",
            "messages|email|emails|daily|hourly|monthly quota|limit",
            "rate",
            "insufficient system|disk",
            "your … quota|limit",
            "policy",
        ]),
    row(RECIPIENT, REFUSES_SENDER)
        .says(&[
            "blacklisted|blocklisted|blocked by|in … recipient|recipients|recipients'|addressee|destinatario",
            "rejected|refused|denied|banned by|in … recipient|recipients|recipients'|addressee|destinatario",
            "recipient's|user's|users … blacklist|blocklist|block|deny",
            "user in blacklist",
            "refused due to recipient",
            "recipient|user preferences",
            "only accepting mail from",
            "refuse to receive",
            "this account is protected",
            "members only",
            "closed mailing",
            "user reject",
            "senderfilterconfig",
            "allowed senders list",
            "sender not authenticated for|when",
            "senderNotAuthenticatedForGroup",
            "delivery restriction",
            "does not accept mail|messages|email from|over",
            "banned recipient",
            "recipient is banned",
            "recipient address is banned",
            "badrcptto",
            "target address",
        ])
        .unless(&["your ip", "client host", "ptr", "ip|ips"]),
    row(RECIPIENT, NO_MAILBOX)
        .says(&[
            "user|users|recipient|mailbox|address unknown|inconnu|unbekannt|unrecognized",
            "user|users|recipient|mailbox|address unallocated|undeliverable|nonexistent|notfound",
            "alias|account|addressee|destinataire|utilisateur|rcpt unknown|inconnu|unbekannt|unrecognized",
            "alias|account|addressee|destinataire|utilisateur|rcpt unallocated|undeliverable|nonexistent|notfound",
            "unknown|unrecognized|undeliverable|nonexistent user|users|recipient|mailbox|address|alias",
            "unknown|unrecognized|undeliverable|nonexistent account|addressee|rcpt|local|virtual|or",
            "no such user|recipient|mailbox|address|person|account|alias|customer|local|email|id|name|one|user's",
            "no mailbox|mail|account here|by|box|with|for",
            "no valid recipient|recipients|mailbox",
            "user|recipient|mailbox|account|address|email not found|known|valid|exist|recognized|local|listed",
            "user|recipient|mailbox|account|address|email … not exist",
            "does|do not exist … user|mailbox|account|recipient",
            "user|recipient|mailbox|account|address doesnt|didnt|isnt|cannot|could … exist|have|found|valid|local",
            "user doesnt have",
            "recipientnotfound",
            "recipnotfound",
            "exrecipnotfound",
            "not a valid|known|local mailbox|user|recipient",
            "not a|our … customer",
            "recipient|mailbox|user|address no longer",
            "no longer valid|active|available|on|in|with|here|exists",
            "mailbox not|unavailable found",
            "invalid|illegal|bad|nonexistent|incorrect recipient|recipients|mailbox|user|users",
            "invalid|illegal|bad|nonexistent|incorrect rcpt|addressee|alias|destinataire|destination|username",
            "recipient|destinataire|mailbox|user|rcpt invalid|invalide|invalido|illegal",
            "cannot|cant|could not deliver … for|to",
            "invalid account",
            "there is no … user|mailbox|account|address|one|such",
            "i cannot deliver",
        ])
        .unless(&[
            "sender",
            "helo|ehlo",
            "ptr",
            "your account|address|mailbox|username",
            "verified|verify|verification|identity",
            "authenticat*",
            "message id",
            "login|password|credential*",
            "client host|address",
            "too many",
        ]),
    row(RECIPIENT_LATER, DISABLED)
        .codes(&[PERMANENT])
        .at(&[Recipient])
        .says(&["user|recipient|mailbox|account … temporarily|temporary"])
        .unless(&["your", "sender"]),
    row(RECIPIENT, DISABLED)
        .says(&[
            "mailbox|account|user|recipient|address disabled|inactive|suspended|locked|deactivated|closed",
            "mailbox|account|user|recipient|address expired|discontinued|terminated",
            "mailbox|account|user|recipient|address removed|deleted|frozen|unavailable",
            "mailbox|account|user|recipient is|was|has … disabled|inactive|suspended",
            "mailbox|account|user|recipient is|was|has … locked|deactivated|closed|expired",
            "mailbox|account|user|recipient is|was|has … discontinued|terminated|removed",
            "mailbox|account|user|recipient is|was|has … deleted|frozen|blocked|abandoned",
            "is expired account",
            "disabled|inactive|suspended recipient|mailbox|user|account|email|address",
            "expired|closed|deactivated|locked recipient|mailbox|user|account|email|address",
            "account|mailbox|user … not active|activated|enabled",
            "account inbounds disabled",
            "account that you tried",
            "due to|blocked inactivity",
            "blocked … inactivity",
        ])
        .unless(&[
            "your",
            "sender|sending|outgoing|outbound",
            "smtp account",
            "user account disabled",
            "blacklist*",
            "mailbox unavailable … blacklist*|ip",
            "mailbox unavailable",
        ]),
];

/// Enhanced codes about the recipient. Words about the client come before.
pub(super) const ENHANCED: &[Row] =
    &[row(RECIPIENT, "RFC 3463 sections 3.2 and 3.3: X.1.1 to X.1.3, X.2.0 to X.2.4 at RCPT TO")
        .at(&[Recipient])
        .enhanced(&[(1, 1, 3), (2, 0, 4)])
        .unless(&["sender", "your account", "authenticat*", "relay limit", "sending|submission|outgoing"])];

/// Words that servers also use for other reasons. They come late.
pub(super) const GENERAL: &[Row] = &[
    // A relay says this of the recipient's own server.
    row(RECIPIENT_LATER, "RFC 3463 section 3.5, common wordings")
        .says(&[
            "recipient's|recipients server|host|mail|domain|mta … temporarily|unavailable|unreachable|down",
            "recipient|destination|remote server|host|mail|domain|mta … temporarily|unavailable|unreachable|down",
            "recipient|mailbox|user temporarily|currently|is|not unavailable|available|busy|temporarily",
            "recipient temporarily",
            "recipient error",
        ])
        .codes(&[TRANSIENT]),
    row(RECIPIENT, DOMAIN)
        .says(&["does not|doesnt accept mail|email|messages", "nullmx", "null mx", "no mx for"])
        .unless(&["host does not accept", "sender"]),
    row(RECIPIENT, DOMAIN)
        .at(&[Recipient, Accept])
        .says(&[
            "domain|host|hostname not found|known|exist|local|valid|hosted|here",
            "domain|host … not exist|found|resolve",
            "domain|host|hostname unknown|invalid",
            "unknown|invalid|bad|no domain|host",
            "unrouteable|unroutable",
            "nonexistent domain",
            "tenant or domain not found",
            "mx records point",
            "no route to",
            "route does not accept",
            "not accept|accepting incoming|external|mail",
            "fully qualified",
            "unqualified",
            "license expired",
        ])
        .unless(&["sender|mailfrom", "helo|ehlo", "client host"]),
    row(RECIPIENT, NO_MAILBOX)
        .at(&[Recipient, Data, Accept])
        .says(&[
            "bad destination|address",
            "malformed|incorrect|invalid|illegal|unknown|wrong address",
            "address invalid|unknown|rejected|denied|refused|malformed",
            "invalid rcpt",
            "not a valid … address",
            "rejected by recipient*",
            "recipient|rcpt|recipients|user rejected|refused|denied|blocked|unavailable|unrecognized",
            "recipient … denied|rejected",
            "recipient is not",
            "recipient address|addresses rejected",
            "mailbox unavailable|unallocated|disabled",
            "mailbox name",
            "mailbox cannot|not",
            "mailing list expansion",
            "not allowed for recipient",
            "account is|not",
            "permanent failure for one or more recipients",
        ])
        .unless(&["sender|mailfrom", "helo|ehlo", "client host", "your account"]),
];
