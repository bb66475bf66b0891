//! The header of a message.

use std::slice;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::header_text::{self, Field};
use crate::{Email, Mailbox, Outgoing};

/// Writes all headers except those that describe the body. `labels`: whether to write tags and metadata.
pub(super) fn write(outgoing: &Outgoing<Email>, labels: bool, out: &mut String) {
    let email = outgoing.message();
    // First, because trace headers must be above the others (RFC 5322 section 3.6).
    for header in email.headers() {
        if holds_identifiers(header.name()) {
            header_text::identifiers(out, header.name(), header.value());
        } else {
            header_text::custom(out, header.name(), header.value());
        }
    }
    if labels {
        for tag in email.tags() {
            header_text::custom(out, "X-Tag", tag);
        }
        for (key, value) in email.metadata() {
            header_text::unstructured(out, &format!("X-Metadata-{key}"), value);
        }
    }
    mailboxes(out, "From", slice::from_ref(email.from()));
    header_text::identifiers(out, "Date", &date(outgoing.dated_at()));
    header_text::identifiers(out, "Message-ID", &outgoing.message_id());
    header_text::unstructured(out, "Subject", email.subject());
    let sender = email.sender().map(slice::from_ref).unwrap_or_default();
    for (name, list) in [("Sender", sender), ("Reply-To", email.reply_to()), ("To", email.to()), ("Cc", email.cc())] {
        if !list.is_empty() {
            mailboxes(out, name, list);
        }
    }
    if let Some(list) = email.list_unsubscribe() {
        header_text::identifiers(out, "List-Unsubscribe", &list.header_value());
        if list.is_one_click() {
            header_text::identifiers(out, "List-Unsubscribe-Post", "List-Unsubscribe=One-Click");
        }
    }
    out.push_str("MIME-Version: 1.0\r\n");
}

/// Whether a header has message ids (RFC 5322 section 3.6.4), which must not be encoded. Ids outside ASCII stay as they are (RFC 6532
/// section 3.3).
fn holds_identifiers(name: &str) -> bool {
    ["In-Reply-To", "References", "Resent-Message-ID", "Original-Message-ID"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
}

/// Writes a list of mailboxes, one per line, because the length of a line is limited.
fn mailboxes(out: &mut String, name: &str, list: &[Mailbox]) {
    let mut field = Field::new(out, name);
    for (index, mailbox) in list.iter().enumerate() {
        if index > 0 {
            field.raw(",");
            field.fold();
        }
        let address = mailbox.address().as_str();
        match mailbox.name() {
            // Without the brackets, some mail programs take the quoted string for a name.
            None if address.starts_with('"') => field.raw(&format!("<{address}>")),
            None => field.raw(address),
            Some(name) => {
                header_text::phrase(&mut field, name);
                field.word(&format!("<{address}>"));
            }
        }
    }
    field.end();
}

/// Formats a date (RFC 5322 section 3.3). Times before 1970 and after 9999 are clamped.
fn date(at: SystemTime) -> String {
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let mut text = httpdate::fmt_http_date(at.clamp(UNIX_EPOCH, last));
    // The HTTP date (RFC 9110 section 5.6.7) differs only in the zone's name, which is obsolete in mail.
    text.truncate(text.len() - "GMT".len());
    text.push_str("+0000");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, list: &[(&str, &str)]) -> String {
        let list: Vec<_> = list.iter().map(|(name, at)| Mailbox::new(*name, at.parse().unwrap()).unwrap()).collect();
        let mut out = String::new();
        mailboxes(&mut out, name, &list);
        out
    }

    #[test]
    fn names_are_atoms_quoted_or_encoded() {
        for (name, written) in [
            ("", "a@example.com"),
            ("Ada Lovelace", "Ada Lovelace <a@example.com>"),
            ("Lovelace, Ada", "\"Lovelace, Ada\" <a@example.com>"),
            ("A \"B\" \\C", "\"A \\\"B\\\" \\\\C\" <a@example.com>"),
            ("Ada  Lovelace", "\"Ada  Lovelace\" <a@example.com>"),
            ("Zoë", "=?utf-8?q?Zo=C3=AB?= <a@example.com>"),
            ("=?utf-8?q?x?=", "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <a@example.com>"),
        ] {
            assert_eq!(header("To", &[(name, "a@example.com")]), format!("To: {written}\r\n"), "{name}");
        }
        let two = header("To", &[("", "a@example.com"), ("B", "b@example.com")]);
        assert_eq!(two, "To: a@example.com,\r\n B <b@example.com>\r\n");
    }

    #[test]
    fn dates_follow_rfc_5322() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(1_700_000_000), "Tue, 14 Nov 2023 22:13:20 +0000");
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(at(400_000_000_000), "Fri, 31 Dec 9999 23:59:59 +0000");
    }
}
