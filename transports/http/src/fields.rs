//! What the providers' requests have in common: who stands in which field, and the headers beside the fields.

use std::collections::HashSet;

use postrider_transport::{Address, Email, Mailbox, Outgoing, Recipient, Unsupported};

use crate::encoded;

/// A mail for the recipients of one attempt, in the parts that most APIs have a field for.
///
/// The fields of an API are the envelope and the visible headers in one, so that an attempt for fewer recipients than the mail names
/// shows fewer.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fields<'a> {
    /// The `to` field.
    pub to: Vec<&'a Mailbox>,
    /// The `cc` field.
    pub cc: Vec<&'a Mailbox>,
    /// The `bcc` field.
    pub bcc: Vec<&'a Mailbox>,
    /// Where answers go: each address once, in whatever case it is written, with the name that it has first.
    pub reply_to: Vec<&'a Mailbox>,
    /// The mail's own headers, `List-Unsubscribe` with its companion (RFC 8058) among them, in their order. Values are in ASCII: what is
    /// beyond it, or would be read as an encoded word, is in encoded words (RFC 2047).
    pub headers: Vec<(&'a str, String)>,
}

impl<'a> Fields<'a> {
    /// What no API with such fields expresses, and what some refuse and some drop, so that none is given it: a `Sender`, an envelope
    /// sender of its own, an empty body alone, an empty attachment.
    ///
    /// # Errors
    /// The first of these that the mail has.
    pub fn check(email: &Email) -> Result<(), Unsupported> {
        let what = if email.sender().is_some() {
            "a Sender"
        } else if email.envelope_from().is_some() {
            "an envelope sender of its own"
        } else if [email.text(), email.html()].into_iter().flatten().all(str::is_empty) {
            "an empty body"
        } else if email.attachments().iter().any(|file| file.content().is_empty()) {
            "an empty attachment"
        } else {
            return Ok(());
        };
        Err(Unsupported::new(what))
    }

    /// For APIs that ask for at least one `to`.
    ///
    /// # Errors
    /// When the mail names nobody there.
    pub fn check_to(email: &Email) -> Result<(), Unsupported> {
        if email.to().is_empty() { Err(Unsupported::new("a mail without a To recipient")) } else { Ok(()) }
    }

    /// For APIs that take headers as a JSON object: two of the same name have no place in it.
    ///
    /// # Errors
    /// When a header's name comes twice.
    pub fn check_unique_headers(email: &Email) -> Result<(), Unsupported> {
        let mut seen = HashSet::new();
        if email.headers().iter().all(|header| seen.insert(header.name().to_ascii_lowercase())) {
            Ok(())
        } else {
            Err(Unsupported::new("two headers of the same name"))
        }
    }

    /// For APIs that take one address for answers at the most.
    ///
    /// # Errors
    /// When the mail has several.
    pub fn check_one_reply_to(email: &Email) -> Result<(), Unsupported> {
        if reply_to(email).len() > 1 { Err(Unsupported::new("more than one Reply-To")) } else { Ok(()) }
    }

    /// The parts of an attempt, each recipient in the field in which the mail names them.
    ///
    /// # Errors
    /// When nobody is left, or somebody whom the mail does not name.
    pub fn of(outgoing: &'a Outgoing<Email>) -> Result<Self, Unsupported> {
        // Another program may have written a recipient's domain in another case than the mail, which has it as it is compared.
        let as_compared = |recipient: &Recipient| match recipient.as_str().parse::<Address>() {
            Ok(address) => address.as_str().to_owned(),
            Err(_) => recipient.as_str().to_owned(),
        };
        let mut open: HashSet<String> = outgoing.recipients().iter().map(as_compared).collect();
        if open.is_empty() {
            return Err(Unsupported::new("a mail without recipients"));
        }
        let mut take = |mailboxes: &'a [Mailbox]| -> Vec<&'a Mailbox> {
            mailboxes.iter().filter(|mailbox| open.remove(mailbox.address().as_str())).collect()
        };
        let email = outgoing.message();
        let (to, cc, bcc) = (take(email.to()), take(email.cc()), take(email.bcc()));
        if !open.is_empty() {
            // Only a program that writes deliveries in plain SQL can ask for that.
            return Err(Unsupported::new("a recipient whom the mail does not name"));
        }
        Ok(Self { to, cc, bcc, reply_to: reply_to(email), headers: headers(email) })
    }

    /// As [`of`](Self::of), for APIs that ask for at least one `to`. Where only visible recipients are left in `cc`, the first of them
    /// stands there instead. A hidden recipient does so only when alone, since it would be shown to the others.
    ///
    /// # Errors
    /// As [`of`](Self::of), and when several recipients are left and all are hidden.
    pub fn with_to(outgoing: &'a Outgoing<Email>) -> Result<Self, Unsupported> {
        let mut fields = Self::of(outgoing)?;
        if fields.to.is_empty() {
            match (fields.cc.is_empty(), fields.bcc.len()) {
                (false, _) => fields.to.push(fields.cc.remove(0)),
                (true, 1) => fields.to.append(&mut fields.bcc),
                (true, _) => return Err(Unsupported::new("a mail whose remaining recipients are all hidden")),
            }
        }
        Ok(fields)
    }
}

fn reply_to(email: &Email) -> Vec<&Mailbox> {
    let mut seen = HashSet::new();
    email.reply_to().iter().filter(|mailbox| seen.insert(mailbox.address().as_str().to_lowercase())).collect()
}

/// The mail's own headers, save `List-Unsubscribe`.
pub(crate) fn custom_headers(email: &Email) -> impl Iterator<Item = (&str, String)> {
    email.headers().iter().map(|header| (header.name(), encoded::text(header.value()).into_owned()))
}

fn headers(email: &Email) -> Vec<(&str, String)> {
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

    type Left = Result<[Vec<String>; 3], Unsupported>;
    type Read = for<'a> fn(&'a Outgoing<Email>) -> Result<Fields<'a>, Unsupported>;

    fn left(read: Read, recipients: &[&str]) -> Left {
        let recipients = recipients.iter().map(|name| Recipient::new(format!("{name}@x.example"))).collect();
        let outgoing = outgoing(recipients);
        let Fields { to, cc, bcc, .. } = read(&outgoing)?;
        let names =
            |list: Vec<&Mailbox>| list.iter().map(|mailbox| mailbox.address().local_part().to_owned()).collect();
        Ok([names(to), names(cc), names(bcc)])
    }

    #[test]
    fn who_is_left_is_addressed_and_nobody_hidden_is_shown_to_others() {
        let lists = |to: &[&str], cc: &[&str], bcc: &[&str]| {
            Ok([to, cc, bcc].map(|list| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()))
        };
        for read in [|mail| Fields::of(mail), |mail| Fields::with_to(mail)] as [Read; 2] {
            assert_eq!(left(read, &["to", "to2", "cc", "b1", "b2"]), lists(&["to", "to2"], &["cc"], &["b1", "b2"]));
            assert_eq!(left(read, &["to2", "b1"]), lists(&["to2"], &[], &["b1"]));
            assert!(left(read, &["to", "audit"]).is_err(), "nobody is left out in silence");
            assert!(left(read, &[]).is_err());
        }
        assert_eq!(left(|mail| Fields::of(mail), &["cc", "b1", "b2"]), lists(&[], &["cc"], &["b1", "b2"]));
        assert_eq!(left(|mail| Fields::with_to(mail), &["cc", "b1", "b2"]), lists(&["cc"], &[], &["b1", "b2"]));
        assert_eq!(left(|mail| Fields::of(mail), &["b1", "b2"]), lists(&[], &[], &["b1", "b2"]));
        assert!(left(|mail| Fields::with_to(mail), &["b1", "b2"]).is_err());
        assert_eq!(left(|mail| Fields::with_to(mail), &["b2"]), lists(&["b2"], &[], &[]));
        let shouted = outgoing(vec![Recipient::new("cc@X.Example")]);
        assert_eq!(Fields::of(&shouted).map(|fields| fields.cc.len()), Ok(1), "a domain has no case");
    }
}
