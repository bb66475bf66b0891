//! Words about the account and its sending limits.

use super::row::{Row, row};
use super::verdict::{ACCOUNT, LIMIT};
use crate::stage::Stage::{Accept, Data, Mail};

const CREDENTIALS: &str = "RFC 4954 section 6: authentication required, common wordings";
const CLOSED: &str =
    "the sending account is closed or not yet active: SMTP2GO, Mailtrap, Postmark, Brevo, cPanel, SpamExperts";
const SENT: &str =
    "the sending limits of the account: Google, Microsoft, Amazon SES, SendGrid, Zoho, Plesk, cPanel, Migadu";

pub(super) const STATUS: &[Row] = &[
    row(ACCOUNT, CREDENTIALS)
        .says(&[
            "authentication|auth|authentification|login required|requise|first|failed|failure|needed|error",
            "authentication|auth|authentification|login unsuccessful|credentials|is|not",
            "authentication|auth|authentification|login disabled|mechanism|type|rejected",
            "not|please|must|requires|require|first authenticate|authenticated|authentication|login|log|auth",
            "on|enable|use|your … smtp authentication|auth",
            "issue an auth",
            "invalid|wrong|bad|incorrect … credential*|login|password|username",
            "credential*",
            "username and password",
            "user has no permission",
            "failed|unable|fail to authenticate",
            "code … authentification",
            "in your email|mail client",
            "not authorized to perform",
            "unauthenticated mail|email|sender|senders|connection|client|user|relay",
            "not logged in",
            "no|without authentication|auth",
        ])
        .unless(&["sender address … not logged in", "spf", "delivery restriction", "for group", "to this group"]),
    row(ACCOUNT, CLOSED)
        .says(&[
            "your … account|subscription|plan|license|service suspended|locked|disabled|inactive|blocked",
            "your … account|subscription|plan|license|service closed|expired|restricted|limited|deactivated",
            "your … account|subscription|plan|license|service terminated|banned|frozen|has|is",
            "your … account|subscription|plan|license|service was|not|cannot|must|needs|been",
            "smtp|sending|sender account … not|suspended|disabled|blocked|locked|expired",
            "your smtp|sending|email account",
            "user account disabled",
            "outgoing|outbound|outbounds … suspended|disabled|blocked|denied|stopped|rejected|restricted",
            "sending|sends … suspended|disabled|blocked|paused|restricted|denied",
            "not allowed|permitted|authorized|able to send mail|email|messages|any|outgoing",
            "contact … activat*|reactivat*",
            "email|mail sending|send|submission|service denied|disabled|suspended|blocked",
            "tenant … not|exceeded|suspended|disabled|blocked|expired",
            "trial … expired|account|plan|period",
            "account … suspended|under review … support",
        ])
        .unless(&["domain not found", "recipient|mailbox"]),
    row(ACCOUNT, CLOSED).says(&["not allowed|permitted|authorized to send"]).unless(&[
        "sender",
        "from",
        "as",
        "recipient|mailbox",
    ]),
    row(LIMIT, CLOSED)
        .says(&[
            "recharge",
            "upgrade your|plan|to",
            "your plan",
            "credits|credit",
            "billing",
            "insufficient funds|balance",
            "unusual|suspicious … activity",
            "unusual amount|rate|volume",
            "originating from your|this",
            "spam abuse",
            "payment|unpaid|overdue",
        ])
        .unless(&["url|urls domains"]),
];

pub(super) const LIMITS: &[Row] = &[
    row(LIMIT, SENT)
        .says(&[
            "daily|hourly|monthly|weekly … limit|limits|quota|exceeded|reached|maximum|allowance",
            "limit|limits|quota|maximum … daily|hourly|monthly|hour|day|month",
            "messages|emails|mails|recipients|email|mail per|a|each|every|this day|hour|minute|second|month",
            "per day|hour|minute|second|month",
            "recipients received this|per hour",
            "rate|ratelimit limit*|limited|exceeded|control|too|is|of|policy",
            "ratelimit*",
            "throttl*",
            "sending|send|relay|outgoing rate|limit|limits|quota|quotas|ratelimit",
            "outbound|messaging|submission|transaction|out rate|limit|limits|quota|quotas|ratelimit",
            "message|messages|email rate|limit|limits|quota|quotas … exceed*|reach*|over|hit|used|full",
            "emails|mail|mails rate|limit|limits|quota|quotas … exceed*|reach*|over|hit|used|full",
            "account|sender|user rate|limit|limits|quota|quotas … exceed*|reach*|over|hit|used|full",
            "domain|your|address rate|limit|limits|quota|quotas … exceed*|reach*|over|hit|used|full",
            "exceed*|reached|over|hit|above … sending|relay|outgoing … rate|limit|limits|quota|quotas",
            "exceed*|reached|over|hit|above … outbound|messaging|submission … rate|limit|limits|quota|quotas",
            "exceed*|reached|over|hit|above … sending|relay|outgoing … allowed|messages|emails|recipients|hour",
            "exceed*|reached|over|hit|above … outbound|messaging|submission … allowed|messages|emails|recipients|hour",
            "exceed*|reached|over|hit|above … permitted|allowed|rate … rate|limit|limits|quota|quotas",
            "exceed*|reached|over|hit|above … your|max|maximum|number … rate|limit|limits|quota|quotas",
            "exceed*|reached|over|hit|above … permitted|allowed|rate … allowed|messages|emails|recipients|hour",
            "exceed*|reached|over|hit|above … your|max|maximum|number … allowed|messages|emails|recipients|hour",
            "too many messages|emails|mails|requests|login|logins|failed|auth|errors|message|email",
            "too much mail|messages|spam",
            "limit on|of … messages|emails|mails|recipients",
            "number of … messages|mails|emails|recipients … exceeded|limit",
            "too fast|quickly|frequent|frequently",
            "slow down",
            "slower",
            "frequency limit*",
            "limit|quota exceeded|reached|exceed",
            "exceeded|reached … limit|limits|quota|rate|maximum",
            "excessive|unexpected|unusual|high … volume|rate|traffic",
            "sent too many|much",
            "quota fully used",
            "limits for #address",
            "try … after sometime|some",
        ])
        .unless(&[
            "size",
            "mailbox|inbox|storage|disk",
            "header|headers|attachment*|hops|bytes|large|length|characters|lines|octets",
            "recipient has",
            "user is",
            "url|urls domains",
        ]),
    row(LIMIT, SENT).at(&[Mail, Data, Accept]).says(&["quota"]).unless(&["mailbox|inbox|storage|size|full|recipient"]),
];
