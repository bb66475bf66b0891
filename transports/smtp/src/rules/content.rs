//! Words about the message itself.

use super::row::{Row, row};
use super::verdict::CONTENT;
use crate::stage::Stage::{self, Accept, Body, Data, Mail, Recipient};

const SIZE: &str = "RFC 1870 section 6: the message is larger than the server accepts";
const FORM: &str = "RFC 5322, RFC 5321 section 4.5.3.1: the format of the message, common wordings";
const LOOP: &str = "RFC 5321 section 6.3: a loop";
const SPAM: &str = "RFC 3463 section 3.8, X.7.0 and X.7.1: a filter's verdict on the content";

/// The stages at which the server may have seen the content. Before, it knows only the size in MAIL FROM.
const CONTENT_SEEN: &[Stage] = &[Data, Body, Accept];

/// Words that name a part of the message.
pub(super) const SPECIFIC: &[Row] = &[
    row(CONTENT, LOOP).at(CONTENT_SEEN).says(&[
        "too many hops",
        "hop count",
        "hops",
        "mail|routing|message|delivery loop",
        "loop detected|detection",
        "looping",
    ]),
    row(CONTENT, SPAM)
        .at(CONTENT_SEEN)
        .says(&[
            "url|urls|uri|link|links … content|message|body|spam|list*|black*|block*",
            "listed|spam*|bad|blocked|your url|urls|uri|link|links",
            "uribl|surbl",
            "contain*|containing … url|urls|link|links|virus|malware|attachment|file|banned|spam|word|words|contents",
            "header based",
            "virus|viruses|malware|phish*|trojan|infected|ransomware",
            "banned|illegal|prohibited … attachment|attachments|file|files|content|extension",
            "dangerous|executable|forbidden … attachment|attachments|file|files|content|extension",
            "spam pattern",
        ])
        .unless(&["too many recipients"]),
    row(CONTENT, SIZE)
        .at(&[Mail, Recipient, Data, Body, Accept])
        .says(&[
            "message|mail|email|messages|data … too large|big|long",
            "message|mail|email|maximum|header|attachment size",
            "size … exceed*|limit|limits|maximum|large|big",
            "exceed* … size|bytes",
            "larger than",
            "too large|big",
            "message file too",
            "exceed* … limit of … attachments|bytes",
        ])
        .unless(&["recipient … exceeded", "mailbox size"]),
    row(CONTENT, FORM).at(CONTENT_SEEN).says(&[
        "rfc 5322|2822|822|2045|2047|2821 … compliant|compliance|message|section",
        "not … compliant|compliance|conform",
        "bare lf|cr|line|newline|linefeed",
        "bare … lf|cr",
        "malformed … message|mail|mime|header*",
        "message|mail … malformed",
        "missing … header|headers|from|date|message|subject",
        "header|headers … missing|invalid|duplicate|multiple|not|large|disallowed|bytes",
        "duplicate|multiple|invalid|no|bad|many|too … header|headers|subject|message id",
        "line too long",
        "lines … long",
        "line length",
        "encoded word",
        "unicode character",
        "8bit|8 bit|data",
        "mime … error|invalid|nesting|depth",
        "bad header",
        "null character*|byte*",
    ]),
];

/// Words that servers also use for clients on a blocklist. They come after the words about the client.
pub(super) const GENERAL: &[Row] = &[
    row(CONTENT, SPAM).at(CONTENT_SEEN).says(&[
        "spam*",
        "junk*",
        "unsolicited",
        "content|contents",
        "bulk mail",
        "mcspamsignature*",
        "suspicious",
        "suspicion",
        "advert*",
        "scam",
        "fraud*",
        "signature",
    ]),
    row(CONTENT, SPAM)
        .at(CONTENT_SEEN)
        .says(&[
            "message|messages|mail|email|mails|emails rejected|refused|denied|blocked",
            "message|messages|mail|email|mails|emails rejete|not|quarantined|discarded",
            "message|messages|mail|email is|has|was|were … rejected|refused|denied|blocked|accepted|allowed",
            "policy|policies",
            "reject|rejected|refused|denied|blocked",
            "not accepted",
            "delivery not authorized",
            "action not taken",
            "violat*",
            "prohibited",
            "local policy",
        ])
        .unless(&[
            "temporar*",
            "try again",
            "later",
            "internal|system|server error|problem|failure",
            "recipient|mailbox|user",
        ]),
];
