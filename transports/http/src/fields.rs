//! What the providers' requests have in common: who stands in which field, and the headers beside the fields.

use std::collections::HashSet;

use postrider_transport::{Address, Email, Mailbox, Outgoing, Recipient, Unsupported};

/// A mail for the recipients of one attempt, in the parts that most APIs have a field for.
///
/// The fields of an API are the envelope and the visible headers in one, so that an attempt for fewer recipients than the mail names
/// shows fewer. Most APIs ask for at least one `to`: where only visible recipients are left in `cc`, the first of them stands
/// there instead. A hidden recipient does so only when alone, since it would be shown to the others.
#[derive(Debug)]
pub struct Fields<'a> {
    /// The `to` field; never empty.
    pub to: Vec<&'a Mailbox>,
    /// The `cc` field.
    pub cc: Vec<&'a Mailbox>,
    /// The `bcc` field.
    pub bcc: Vec<&'a Mailbox>,
    /// The mail's own headers, `List-Unsubscribe` with its companion (RFC 8058) among them, in their order.
    pub headers: Vec<(&'a str, String)>,
}

impl<'a> Fields<'a> {
    /// What no API with such fields expresses: a mail without a `to`, a `Sender`, an envelope sender of its own.
    ///
    /// # Errors
    /// The first of these that the mail has.
    pub fn check(email: &Email) -> Result<(), Unsupported> {
        if email.to().is_empty() {
            return Err(Unsupported::new("a mail without a To recipient"));
        }
        if email.sender().is_some() {
            return Err(Unsupported::new("a Sender"));
        }
        if email.envelope_from().is_some() {
            return Err(Unsupported::new("an envelope sender of its own"));
        }
        Ok(())
    }

    /// As [`check`](Self::check), for APIs that take headers as a JSON object: two of the same name have no place in it.
    ///
    /// # Errors
    /// As [`check`](Self::check), and when a header's name comes twice.
    pub fn check_with_unique_headers(email: &Email) -> Result<(), Unsupported> {
        Self::check(email)?;
        let mut seen = HashSet::new();
        if email.headers().iter().all(|header| seen.insert(header.name().to_ascii_lowercase())) {
            Ok(())
        } else {
            Err(Unsupported::new("two headers of the same name"))
        }
    }

    /// The parts of an attempt.
    ///
    /// # Errors
    /// When several recipients are left and all are hidden, or one is left whom the mail does not name.
    pub fn of(outgoing: &'a Outgoing<Email>) -> Result<Self, Unsupported> {
        // Another program may have written a recipient's domain in another case than the mail, which has it as it is compared.
        let as_compared = |recipient: &Recipient| match recipient.as_str().parse::<Address>() {
            Ok(address) => address.as_str().to_owned(),
            Err(_) => recipient.as_str().to_owned(),
        };
        let mut open: HashSet<String> = outgoing.recipients().iter().map(as_compared).collect();
        let mut take = |mailboxes: &'a [Mailbox]| -> Vec<&'a Mailbox> {
            mailboxes.iter().filter(|mailbox| open.remove(mailbox.address().as_str())).collect()
        };
        let email = outgoing.message();
        let (mut to, mut cc, mut bcc) = (take(email.to()), take(email.cc()), take(email.bcc()));
        if !open.is_empty() {
            // Only a program that writes deliveries in plain SQL can ask for that.
            return Err(Unsupported::new("a recipient whom the mail does not name"));
        }
        if to.is_empty() {
            match (cc.is_empty(), bcc.len()) {
                (false, _) => to.push(cc.remove(0)),
                (true, 0) => return Err(Unsupported::new("a mail without recipients")),
                (true, 1) => to.append(&mut bcc),
                (true, _) => return Err(Unsupported::new("a mail whose remaining recipients are all hidden")),
            }
        }
        Ok(Self { to, cc, bcc, headers: headers(email) })
    }
}

fn headers(email: &Email) -> Vec<(&str, String)> {
    let mut headers: Vec<_> = email.headers().iter().map(|header| (header.name(), header.value().to_owned())).collect();
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

    fn left(recipients: &[&str]) -> Result<[Vec<String>; 3], Unsupported> {
        let recipients = recipients.iter().map(|name| Recipient::new(format!("{name}@x.example"))).collect();
        let outgoing = outgoing(recipients);
        let Fields { to, cc, bcc, .. } = Fields::of(&outgoing)?;
        let names =
            |list: Vec<&Mailbox>| list.iter().map(|mailbox| mailbox.address().local_part().to_owned()).collect();
        Ok([names(to), names(cc), names(bcc)])
    }

    #[test]
    fn who_is_left_is_addressed_and_nobody_hidden_is_shown_to_others() {
        let lists = |to: &[&str], cc: &[&str], bcc: &[&str]| {
            Ok([to, cc, bcc].map(|list| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()))
        };
        assert_eq!(left(&["to", "to2", "cc", "b1", "b2"]), lists(&["to", "to2"], &["cc"], &["b1", "b2"]));
        assert_eq!(left(&["to2", "b1"]), lists(&["to2"], &[], &["b1"]));
        assert_eq!(left(&["cc", "b1", "b2"]), lists(&["cc"], &[], &["b1", "b2"]));
        assert_eq!(left(&["b2"]), lists(&["b2"], &[], &[]));
        let shouted = outgoing(vec![Recipient::new("cc@X.Example")]);
        assert_eq!(Fields::of(&shouted).map(|fields| fields.to.len()), Ok(1), "a domain has no case");
        assert!(left(&["b1", "b2"]).is_err());
        assert!(left(&["to", "audit"]).is_err(), "nobody is left out in silence");
        assert!(left(&[]).is_err());
    }
}
