//! Forms that several providers share.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::{Email, Mailbox, Outgoing, Receipt, Recipient, Unsupported};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer, Serialize};
use serde_json::Value;

use crate::Request;
use crate::encoded::quoted;

/// A mailbox as `{"email": …, "name": …}`.
#[derive(Serialize)]
pub(super) struct Person<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
}

impl<'a> Person<'a> {
    /// With another name in place of the mailbox's own, where it has one.
    pub(super) fn named(mailbox: &'a Mailbox, name: impl FnOnce(&'a str) -> Cow<'a, str>) -> Self {
        Self { email: mailbox.address().as_str(), name: mailbox.name().map(name) }
    }
}

impl<'a> From<&'a Mailbox> for Person<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self::named(mailbox, Cow::Borrowed)
    }
}

/// Content for a text, in the one form that all of them take.
pub(super) fn base64(content: &[u8]) -> String {
    STANDARD.encode(content)
}

/// A mailbox as one text, `Name <address>`. A name that could be read as something else is in quotes (RFC 5322 section 3.2.4).
pub(super) fn written(mailbox: &Mailbox) -> String {
    let address = mailbox.address().as_str();
    let plain = |c: char| c.is_alphanumeric() || " -_'".contains(c);
    match mailbox.name() {
        None => address.to_owned(),
        Some(name) if name.chars().all(plain) => format!("{name} <{address}>"),
        Some(name) => format!("{} <{address}>", quoted(name)),
    }
}

/// Several values, each already JSON, between what comes before and after them.
pub(super) fn join<'a>(before: &str, values: impl Iterator<Item = &'a [u8]> + Clone, after: &str) -> Vec<u8> {
    let length = values.clone().map(|value| value.len() + 1).sum::<usize>();
    let mut all = Vec::with_capacity(before.len() + length + after.len());
    all.extend_from_slice(before.as_bytes());
    for (place, value) in values.enumerate() {
        if place > 0 {
            all.push(b',');
        }
        all.extend_from_slice(value);
    }
    all.extend_from_slice(after.as_bytes());
    all
}

/// The bodies of a batch as one array.
pub(super) fn array(batch: &[(&Outgoing<Email>, Request)]) -> Vec<u8> {
    join("[", batch.iter().map(|(_, request)| request.body().as_ref()), "]")
}

/// How long the bodies and the attachments of a mail are together, these in base64: the least that a request has.
pub(super) fn size(email: &Email) -> usize {
    let bodies = email.text().map_or(0, str::len) + email.html().map_or(0, str::len);
    bodies + email.attachments().iter().map(|file| file.content().len().div_ceil(3) * 4).sum::<usize>()
}

/// A text, or a number as text; anything else, `null` among it, is no text. For what is not needed to know that a mail was accepted, so that
/// no other type of it makes an answer unreadable.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// The values of a list that can be read; anything but a list has none.
pub(super) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let Value::Array(values) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(values.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect())
}

/// Accepted, under this id where it is not empty.
pub(super) fn receipt(id: &str) -> Receipt {
    let mut receipt = Receipt::new();
    receipt.provider_id = Some(id.to_owned()).filter(|id| !id.is_empty());
    receipt
}

/// For APIs that promise to carry addresses of RFC 5321 only, and not those of RFC 6531.
pub(super) fn check_addresses(email: &Email) -> Result<(), Unsupported> {
    let all = [email.to(), email.cc(), email.bcc(), email.reply_to()].into_iter().flatten().chain([email.from()]);
    if all.map(Mailbox::address).all(|address| address.as_str().is_ascii()) {
        Ok(())
    } else {
        Err(Unsupported::new("an address outside ASCII"))
    }
}

/// Those recipients of an attempt whom a text names, in the attempt's order, each with the place of the first text that does. Each text is
/// read once, however many recipients there are.
pub(super) fn named<'a, 't>(
    outgoing: &'a Outgoing<Email>,
    texts: impl IntoIterator<Item = &'t str>,
) -> Vec<(&'a str, usize)> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut lower = Vec::new();
    for (place, text) in texts.into_iter().enumerate() {
        let text = text.to_ascii_lowercase();
        for address in addresses(&text) {
            first.entry(address.to_owned()).or_insert(place);
        }
        lower.push(text);
    }
    let place = |recipient: &str| {
        let recipient = recipient.to_ascii_lowercase();
        // What has marks of its own, and so no sure end in prose, is looked for as it is.
        match addresses(&recipient).next() == Some(recipient.as_str()) {
            true => first.get(&recipient).copied(),
            false => lower.iter().position(|text| text.contains(&recipient)),
        }
    };
    let recipients = outgoing.recipients().iter().map(Recipient::as_str);
    recipients.filter_map(|recipient| Some((recipient, place(recipient)?))).collect()
}

/// The addresses in a text: as a whole, so that `joann@x.example` does not name `ann@x.example`.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    let is_local = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    text.match_indices('@').flat_map(move |(at, _)| {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let start = before.trim_end_matches(is_local).len();
        let domain = after.find(|c| !is_domain(c)).unwrap_or(after.len());
        // Two of them make no address.
        let whole = !before[..start].ends_with('@') && !after[domain..].starts_with('@');
        // The end of a sentence.
        let domain = after[..domain].trim_end_matches('.').len();
        let address = Some(&text[start..at + 1 + domain]).filter(|_| whole && start < at && domain > 0);
        // Marks of quotation, which an address may have as letters.
        let quoted = address.filter(|_| after[domain..].starts_with('\''));
        [address, quoted.and_then(|address| address.strip_prefix('\''))].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_transport::{AddressError, DeliveryId};

    use super::*;

    /// Which of these a text names.
    fn named_in(text: &str, recipients: &[&str]) -> Vec<String> {
        let email = Email::builder().from("a@x.example").to("b@x.example").text("x").build().expect("a mail");
        let recipients = recipients.iter().map(|address| Recipient::new(*address)).collect();
        let outgoing = Outgoing::for_recipients(DeliveryId::new(), SystemTime::UNIX_EPOCH, email, recipients, false);
        named(&outgoing, ["nobody", text]).into_iter().map(|(recipient, _)| recipient.to_owned()).collect()
    }

    #[test]
    fn an_address_is_named_as_a_whole() {
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
        let all = ["o'hara@x.example", "\"a b\"@x.example", "zoë@x.example"];
        assert_eq!(named_in(text, &all), all);
    }

    #[test]
    fn what_is_accepted_has_any_form_that_json_has() -> Result<(), serde_json::Error> {
        #[derive(Debug, serde::Deserialize, PartialEq)]
        struct Loose {
            #[serde(default, deserialize_with = "text")]
            id: String,
            #[serde(default, deserialize_with = "list")]
            all: Vec<String>,
        }
        for (json, id) in [
            ("\"1\"", "1"),
            ("1", "1"),
            ("12345678901234567890123", "1.2345678901234568e+22"),
            ("null", ""),
            ("{}", ""),
        ] {
            assert_eq!(serde_json::from_str::<Loose>(&format!("{{\"id\":{json}}}"))?.id, id, "{json}");
        }
        let all = serde_json::from_str::<Loose>(r#"{"all":["a",1,"b",null]}"#)?.all;
        assert_eq!(all, ["a", "b"]);
        assert_eq!(serde_json::from_str::<Loose>(r#"{"all":null}"#)?, Loose { id: String::new(), all: Vec::new() });
        Ok(())
    }

    #[test]
    fn a_name_stays_one_name() -> Result<(), AddressError> {
        for (name, expected) in [
            ("", "a@x.example"),
            ("Ada Lovelace", "Ada Lovelace <a@x.example>"),
            ("Zoë O'Hara-Li", "Zoë O'Hara-Li <a@x.example>"),
            ("Lovelace, Ada", r#""Lovelace, Ada" <a@x.example>"#),
            (r#"The "\" of <x>"#, r#""The \"\\\" of <x>" <a@x.example>"#),
            ("=?utf-8?q?x?=", r#""=?utf-8?q?x?=" <a@x.example>"#),
        ] {
            let mailbox = Mailbox::new(name, "a@x.example".parse()?)?;
            assert_eq!(written(&mailbox), expected);
            assert_eq!(written(&mailbox).parse::<Mailbox>()?, mailbox);
        }
        Ok(())
    }
}
