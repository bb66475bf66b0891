//! The codes and tags that providers document.

use super::row::{PERMANENT, Row, TRANSIENT, row};
use super::verdict::{ACCOUNT, CONTENT, LIMIT, RECIPIENT, RECIPIENT_LATER, SENDER, SERVER};
use crate::stage::Stage::{Data, Mail, Recipient};

const EXCHANGE: &str = "Microsoft: non-delivery reports in Exchange Online (learn.microsoft.com)";
const THROTTLING: &str = "Microsoft: continuous error throttling of SMTP AUTH submissions (learn.microsoft.com)";
const OUTLOOK: &str = "Microsoft: Outlook.com postmaster, SMTP error codes (postmaster.live.com)";
const GMAIL: &str = "Google: Gmail SMTP errors and codes (support.google.com/a/answer/3726730)";
const YAHOO: &str = "Yahoo: SMTP error codes (senders.yahooinc.com/smtp-error-codes)";
const AOL: &str = "AOL: error codes of its postmaster (postmaster.aol.com)";
const NETEASE: &str = "NetEase 163: bounce codes of its postmaster (help.163.com)";
const SES: &str = "Amazon SES: SMTP response codes (docs.aws.amazon.com/ses)";
const COX: &str = "Cox, Spectrum: email error codes (cox.com, spectrumbusiness.net)";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Exchange Online. 5.2.252 means both a throttled account and a From address that the account may not use.
    row(SENDER, EXCHANGE).says(&["sendasdenied", "send as denied"]),
    row(RECIPIENT_LATER, EXCHANGE).enhanced(&[(2, 121, 122)]).codes(&[TRANSIENT, PERMANENT]),
    row(LIMIT, THROTTLING).enhanced(&[(2, 251, 255)]),
    row(LIMIT, EXCHANGE).enhanced(&[(1, 90, 90), (7, 232, 236), (7, 508, 508)]),
    row(LIMIT, EXCHANGE).says(&["submission quota exceeded", "outboundspamexception", "storedrv clientsubmit"]),
    row(RECIPIENT_LATER, EXCHANGE).says(&["recipient thread limit exceeded"]),
    row(SERVER, EXCHANGE).codes(&[TRANSIENT]).enhanced(&[(7, 500, 899)]),
    row(RECIPIENT, EXCHANGE).enhanced(&[(7, 105, 105), (7, 124, 124), (7, 133, 136), (7, 321, 325), (7, 504, 505), (7, 507, 507), (7, 510, 510), (7, 513, 513), (4, 300, 399), (2, 14, 14), (1, 10, 10)]),
    row(SENDER, EXCHANGE).enhanced(&[(7, 60, 60), (7, 509, 509), (7, 515, 515), (7, 750, 750)]),
    row(CONTENT, EXCHANGE).enhanced(&[(7, 512, 512), (0, 350, 350), (4, 11, 11), (4, 14, 14), (1, 20, 20)]),
    row(ACCOUNT, EXCHANGE).enhanced(&[(7, 57, 57), (7, 64, 64), (7, 139, 139), (7, 501, 503), (7, 506, 506), (7, 511, 511), (7, 606, 649), (7, 700, 749)]),
    row(ACCOUNT, EXCHANGE).says(&["bad outbound sender", "client was not authenticated"]),
    row(ACCOUNT, OUTLOOK).says(&["sc 001|002|003|004", "dy 001|002", "ou 001|002", "rp 001|002|003", "block list s3140|s3150"]),

    // Gmail. The code alone does not say what the failure affects.
    row(CONTENT, GMAIL).says(&["same message id", "nature of the content or the links", "one of your url domains"]),
    row(ACCOUNT, GMAIL).says(&["to use tls ssl", "mail relay denied", "mail sending denied", "invalid credentials for relay"]),
    row(SERVER, GMAIL).says(&["no identity changes permitted", "connection expired"]),

    row(CONTENT, YAHOO).says(&["ph01"]),
    row(ACCOUNT, YAHOO).says(&["tss04|tss05|tss07|tss09|tss11|tss12|ts01|ts02|ts03|ts04", "bl21|bl23", "vs1 ip"]),
    row(SENDER, YAHOO).says(&["vs1 mf", "au01"]),

    // Amazon SES. Its sandbox refuses unverified recipients in the same words. These words count as the sender's.
    row(SENDER, SES).says(&["email address is not verified"]),
    row(LIMIT, SES).codes(&[(454, 454)]).says(&["throttling failure"]),

    // AOL. The tags name the connection, reputation, reverse DNS and relaying of the client, and links and attachments of the message.
    row(ACCOUNT, AOL).says(&["rtr bb|bg|bl|ch|d*|ge|rd|sc|sp", "con b1|b2", "dns b1|b2|nr", "dyn t1|t2", "rly b1|b2|b3|bd|bl|ch|cn|cs|ir|nw|ov|sn", "ouf i1", "csi"]).unless(&["spf"]),
    row(CONTENT, AOL).says(&["hvu b1|b2", "mff ld"]),

    // NetEase. A reply has the stage and a reason of three letters.
    row(ACCOUNT, NETEASE).says(&["hl rep|icc|ifc|mep|ihu|ipb", "dt rbl", "wm bli", "mi nhd|ccl|cel", "rp ccl|cel"]),
    row(SERVER, NETEASE).says(&["mi dmc", "rp drc"]),
    row(SENDER, NETEASE).says(&["mi sfq|spf|dma|stc|imf|spb", "rp qrc|trc|frl", "wm blu", "dt sum"]),
    row(CONTENT, NETEASE).says(&["dt spm"]),
    row(RECIPIENT_LATER, NETEASE).says(&["rp rcl"]),

    row(SENDER, COX).says(&["aup cxsndr", "aup … 1500|1510|1520"]),
    row(CONTENT, COX).says(&["aup urlbl*", "aup … 1530"]),
    row(ACCOUNT, COX).says(&["aup cdrbl|cxbl|cxcnct|cxdns|cxmj|cxmxrt|cxthrt|cxsmtp|ipbl*", "aup i|o|in|out"]),

    // Outlook.com refuses a sender that is too fast in the words of an unknown mailbox.
    row(LIMIT, "nodemailer issue 1555").at(&[Mail, Recipient, Data]).says(&["failure sending mail … try again later"]),
];
