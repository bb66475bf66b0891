//! The recipients and headers of a message, in the fields that most APIs have.

use std::collections::HashSet;

use postrider_transport::{Address, Email, Mailbox, Outgoing, Recipient, Unsupported};

use crate::encoded_word::encode_text;

/// The recipients and headers of one attempt, in the fields that most APIs have.
///
/// Such fields are both envelope and visible header. An attempt for some recipients of a mail therefore shows only these.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fields<'a> {
    /// The `to` field.
    pub to: Vec<&'a Mailbox>,
    /// The `cc` field.
    pub cc: Vec<&'a Mailbox>,
    /// The `bcc` field.
    pub bcc: Vec<&'a Mailbox>,
    /// The `reply_to` field. Addresses that differ only in case occur once, with the first name.
    pub reply_to: Vec<&'a Mailbox>,
    /// The custom headers in their order, then `List-Unsubscribe` and `List-Unsubscribe-Post` (RFC 8058).
    ///
    /// Values are ASCII. A value that is not, or that looks like an encoded word, is in encoded words (RFC 2047).
    pub headers: Vec<(&'a str, String)>,
}

impl<'a> Fields<'a> {
    /// Refuses what no API with such fields carries reliably: a `Sender`, an envelope sender, a mail whose bodies are all empty, and an empty
    /// attachment.
    ///
    /// # Errors
    /// The first of these that the mail has.
    pub fn check(email: &Email) -> Result<(), Unsupported> {
        let what = if email.sender().is_some() {
            "a Sender"
        } else if email.envelope_from().is_some() {
            "an envelope sender"
        } else if [email.text(), email.html()].into_iter().flatten().all(str::is_empty) {
            "an empty body"
        } else if email.attachments().iter().any(|file| file.content().is_empty()) {
            "an empty attachment"
        } else {
            return Ok(());
        };
        Err(Unsupported::new(what))
    }

    /// Checks for a `To` recipient, for APIs that require one.
    ///
    /// # Errors
    /// If the mail has none.
    pub fn check_to(email: &Email) -> Result<(), Unsupported> {
        if email.to().is_empty() { Err(Unsupported::new("a mail without a To recipient")) } else { Ok(()) }
    }

    /// Checks that header names are unique, for APIs that accept headers as a JSON object.
    ///
    /// # Errors
    /// If two headers have the same name.
    pub fn check_unique_headers(email: &Email) -> Result<(), Unsupported> {
        let mut seen = HashSet::new();
        if email.headers().iter().all(|header| seen.insert(header.name().to_ascii_lowercase())) {
            Ok(())
        } else {
            Err(Unsupported::new("two headers of the same name"))
        }
    }

    /// Checks for at most one `Reply-To`, for APIs that accept only one.
    ///
    /// # Errors
    /// If the mail has several.
    pub fn check_one_reply_to(email: &Email) -> Result<(), Unsupported> {
        if unique_reply_to(email).len() > 1 { Err(Unsupported::new("more than one Reply-To")) } else { Ok(()) }
    }

    /// Puts each recipient of the attempt into the field in which the mail names it.
    ///
    /// # Errors
    /// If the attempt has no recipients, or one that the mail does not name.
    pub fn new(outgoing: &'a Outgoing<Email>) -> Result<Self, Unsupported> {
        // Another program may have written the recipient's domain in upper case. The mail holds it normalized.
        let normalize = |recipient: &Recipient| match recipient.as_str().parse::<Address>() {
            Ok(address) => address.as_str().to_owned(),
            Err(_) => recipient.as_str().to_owned(),
        };
        let mut remaining: HashSet<String> = outgoing.recipients().iter().map(normalize).collect();
        if remaining.is_empty() {
            return Err(Unsupported::new("a mail without recipients"));
        }
        let mut take = |mailboxes: &'a [Mailbox]| -> Vec<&'a Mailbox> {
            mailboxes.iter().filter(|mailbox| remaining.remove(mailbox.address().as_str())).collect()
        };
        let email = outgoing.message();
        let (to, cc, bcc) = (take(email.to()), take(email.cc()), take(email.bcc()));
        if !remaining.is_empty() {
            // This occurs only if a program writes deliveries in plain SQL.
            return Err(Unsupported::new("a recipient that the mail does not name"));
        }
        Ok(Self { to, cc, bcc, reply_to: unique_reply_to(email), headers: all_headers(email) })
    }

    /// As [`new`](Self::new), for APIs that require a `to`.
    ///
    /// If the attempt has no `to`, its first `cc` moves there. A `bcc` moves there only if it is the only recipient, since other
    /// recipients would see it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if all of several recipients are `bcc`.
    pub fn with_to(outgoing: &'a Outgoing<Email>) -> Result<Self, Unsupported> {
        let mut fields = Self::new(outgoing)?;
        if fields.to.is_empty() {
            match (fields.cc.is_empty(), fields.bcc.len()) {
                (false, _) => fields.to.push(fields.cc.remove(0)),
                (true, 1) => fields.to.append(&mut fields.bcc),
                (true, _) => return Err(Unsupported::new("a mail whose remaining recipients are all Bcc")),
            }
        }
        Ok(fields)
    }
}

fn unique_reply_to(email: &Email) -> Vec<&Mailbox> {
    let mut seen = HashSet::new();
    email.reply_to().iter().filter(|mailbox| seen.insert(mailbox.address().as_str().to_lowercase())).collect()
}

/// The custom headers, without `List-Unsubscribe`.
pub(crate) fn custom_headers(email: &Email) -> impl Iterator<Item = (&str, String)> {
    email.headers().iter().map(|header| (header.name(), encode_text(header.value()).into_owned()))
}

fn all_headers(email: &Email) -> Vec<(&str, String)> {
    let mut headers: Vec<_> = custom_headers(email).collect();
    if let Some(list) = email.list_unsubscribe() {
        headers.push(("List-Unsubscribe", list.header_value()));
        if list.is_one_click() {
            headers.push(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned()));
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_transport::{DeliveryId, Recipient};

    use super::*;

    fn outgoing(recipients: Vec<Recipient>) -> Outgoing<Email> {
        let email = Email::builder().from("a@x.example").to("to@x.example").to("to2@x.example").cc("cc@x.example");
        let email = email.bcc("b1@x.example").bcc("b2@x.example").text("x").build().expect("a mail");
        Outgoing::new(DeliveryId::new(), SystemTime::now(), email).with_recipients(recipients)
    }

    type Addressed = Result<[Vec<String>; 3], Unsupported>;
    type Constructor = for<'a> fn(&'a Outgoing<Email>) -> Result<Fields<'a>, Unsupported>;

    fn addressed(new: Constructor, recipients: &[&str]) -> Addressed {
        let recipients = recipients.iter().map(|name| Recipient::new(format!("{name}@x.example"))).collect();
        let outgoing = outgoing(recipients);
        let Fields { to, cc, bcc, .. } = new(&outgoing)?;
        let names =
            |list: Vec<&Mailbox>| list.iter().map(|mailbox| mailbox.address().local_part().to_owned()).collect();
        Ok([names(to), names(cc), names(bcc)])
    }

    #[test]
    fn only_the_remaining_recipients_are_addressed_and_bcc_stays_hidden() {
        let lists = |to: &[&str], cc: &[&str], bcc: &[&str]| {
            Ok([to, cc, bcc].map(|list| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()))
        };
        for new in [|mail| Fields::new(mail), |mail| Fields::with_to(mail)] as [Constructor; 2] {
            assert_eq!(addressed(new, &["to", "to2", "cc", "b1", "b2"]), lists(&["to", "to2"], &["cc"], &["b1", "b2"]));
            assert_eq!(addressed(new, &["to2", "b1"]), lists(&["to2"], &[], &["b1"]));
            assert!(addressed(new, &["to", "audit"]).is_err(), "an unknown recipient is an error");
            assert!(addressed(new, &[]).is_err());
        }
        assert_eq!(addressed(|mail| Fields::new(mail), &["cc", "b1", "b2"]), lists(&[], &["cc"], &["b1", "b2"]));
        assert_eq!(addressed(|mail| Fields::with_to(mail), &["cc", "b1", "b2"]), lists(&["cc"], &[], &["b1", "b2"]));
        assert_eq!(addressed(|mail| Fields::new(mail), &["b1", "b2"]), lists(&[], &[], &["b1", "b2"]));
        assert!(addressed(|mail| Fields::with_to(mail), &["b1", "b2"]).is_err());
        assert_eq!(addressed(|mail| Fields::with_to(mail), &["b2"]), lists(&["b2"], &[], &[]));
        let upper_case = outgoing(vec![Recipient::new("cc@X.Example")]);
        assert_eq!(Fields::new(&upper_case).map(|fields| fields.cc.len()), Ok(1), "domains are case-insensitive");
    }
}
