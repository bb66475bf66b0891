//! Recipients: the addresses that an API accepts, and the recipients that a response names.

use std::collections::HashMap;

use postrider_transport::{Email, Mailbox, Outgoing, Recipient, Unsupported};

/// Checks that all addresses are ASCII, for APIs that do not document RFC 6531.
pub(super) fn check_ascii_addresses(email: &Email) -> Result<(), Unsupported> {
    let all = [email.to(), email.cc(), email.bcc(), email.reply_to()].into_iter().flatten().chain([email.from()]);
    if all.map(Mailbox::address).all(|address| address.as_str().is_ascii()) {
        Ok(())
    } else {
        Err(Unsupported::new("an address outside ASCII"))
    }
}

/// Finds the recipients of an attempt that the texts name, in the order of the attempt.
///
/// Returns each with the index of the first text that names it. Each text is scanned once.
pub(super) fn find_named_recipients<'a, 't>(
    outgoing: &'a Outgoing<Email>,
    texts: impl IntoIterator<Item = &'t str>,
) -> Vec<(&'a str, usize)> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut lower = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.to_ascii_lowercase();
        for address in find_addresses(&text) {
            first.entry(address.to_owned()).or_insert(index);
        }
        lower.push(text);
    }
    let find = |recipient: &str| {
        let recipient = recipient.to_ascii_lowercase();
        // An address that the scan cannot delimit, such as one in quotes, is searched for as a substring.
        match find_addresses(&recipient).next() == Some(recipient.as_str()) {
            true => first.get(&recipient).copied(),
            false => lower.iter().position(|text| text.contains(&recipient)),
        }
    };
    let recipients = outgoing.recipients().iter().map(Recipient::as_str);
    recipients.filter_map(|recipient| Some((recipient, find(recipient)?))).collect()
}

/// Finds the whole addresses in a text, so that `joann@x.example` does not match `ann@x.example`.
fn find_addresses(text: &str) -> impl Iterator<Item = &str> {
    let is_local = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.match_indices('@').flat_map(move |(at, _)| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let start = before.trim_end_matches(is_local).len();
        let domain = after.find(|c| !is_domain(c)).unwrap_or(after.len());
        // A second `@` means that this is no address.
        let whole = !before[..start].ends_with('@') && !after[domain..].starts_with('@');
        // A final dot ends the sentence.
        let domain = after[..domain].trim_end_matches('.').len();
        let address = Some(&text[start..at + 1 + domain]).filter(|_| whole && start < at && domain > 0);
        // An apostrophe is a quotation mark or a part of the address. Both readings are returned.
        let quoted = address.filter(|_| after[domain..].starts_with('\''));
        [address, quoted.and_then(|address| address.strip_prefix('\''))].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_transport::DeliveryId;

    use super::*;

    /// Returns the recipients that the text names.
    fn named_in(text: &str, recipients: &[&str]) -> Vec<String> {
        let email = Email::builder().from("a@x.example").to("b@x.example").text("x").build().expect("a mail");
        let recipients = recipients.iter().map(|address| Recipient::new(*address)).collect();
        let outgoing = Outgoing::for_recipients(DeliveryId::new(), SystemTime::UNIX_EPOCH, email, recipients, false);
        find_named_recipients(&outgoing, ["no address", text])
            .into_iter()
            .map(|(recipient, _)| recipient.to_owned())
            .collect()
    }

    #[test]
    fn only_a_whole_address_names_a_recipient() {
        for text in [
            "ann@x.example",
            "no ANN@X.example.",
            "'ann@x.example' is bad",
            "no \"ann@x.example\"",
            "<ann@x.example>, more",
            "to:ann@x.example;",
            "joann@x.example and ann@x.example",
        ] {
            assert_eq!(named_in(text, &["Ann@x.example"]), ["Ann@x.example"], "{text}");
        }
        for text in [
            "joann@x.example",
            "jo.ann@x.example",
            "jo+ann@x.example",
            "o'ann@x.example",
            "'o'ann@x.example' is bad",
            "ann@x.example.org",
            "ann@x.example-y",
            "b@ann@x.example",
            "ann@x.example@y",
            "",
        ] {
            assert_eq!(named_in(text, &["ann@x.example"]), [""; 0], "{text}");
        }
        let text = "no 'o'hara@x.example', no \"a b\"@x.example, no zoë@x.example";
        let recipients = ["o'hara@x.example", "\"a b\"@x.example", "zoë@x.example"];
        assert_eq!(named_in(text, &recipients), recipients);
    }
}
