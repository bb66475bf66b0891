//! The SQL contract (docs/sql.md): programs that we did not write run its statements, and the tool sends the mail.

mod clients;
mod inserts;
mod manual;
mod page;
mod unusual_rows;
mod views;

use crate::smtp_server::{Mail, SmtpServer};
use crate::tool::Tool;

fn is_version_7(id: &str) -> bool {
    let form: String = id.chars().map(|c| if c.is_ascii_hexdigit() { 'x' } else { c }).collect();
    form == "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" && id[14..15] == *"7" && "89ab".contains(&id[19..20])
}

/// Sends all mail and checks the recipients of each, in any order.
fn assert_sent(tool: &Tool, expected: &[&[&str]]) -> Vec<Mail> {
    let server = SmtpServer::start();
    let summary = tool.drain(&server.url());
    assert_eq!((&summary["sent"], &summary["dead"]), (&expected.len().into(), &0.into()), "{summary}");
    let mails = server.accepted();
    let mut recipients: Vec<_> = mails.iter().map(|mail| mail.to.clone()).collect();
    recipients.sort();
    assert_eq!(recipients, expected);
    mails
}
