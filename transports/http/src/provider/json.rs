//! Forms that several providers share.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::{Email, Mailbox, Outgoing, Unsupported};
use serde::Serialize;

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

/// For APIs that promise to carry addresses of RFC 5321 only, and not those of RFC 6531.
pub(super) fn check_addresses(email: &Email) -> Result<(), Unsupported> {
    let all = [email.to(), email.cc(), email.bcc(), email.reply_to()].into_iter().flatten().chain([email.from()]);
    if all.map(Mailbox::address).all(|address| address.as_str().is_ascii()) {
        Ok(())
    } else {
        Err(Unsupported::new("an address outside ASCII"))
    }
}

/// Whether prose names this address, as a whole and in whatever case: `joann@x.example` does not name `ann@x.example`.
pub(super) fn is_named(text: &str, address: &str) -> bool {
    let (text, address) = (text.to_ascii_lowercase(), address.to_ascii_lowercase());
    text.match_indices(&address).any(|(start, found)| {
        let (mut before, mut after) = (&text[..start], &text[start + found.len()..]);
        // Marks of quotation, which an address may have as letters.
        if let (Some(outside), Some(rest)) = (before.strip_suffix('\''), after.strip_prefix('\'')) {
            (before, after) = (outside, rest);
        }
        let ends = match after.strip_prefix('.') {
            // The end of a sentence.
            Some(rest) => !rest.starts_with(|c: char| c.is_alphanumeric()),
            None => !after.starts_with(|c: char| c.is_alphanumeric() || "-_@".contains(c)),
        };
        ends && !before.ends_with(|c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.@".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use postrider_transport::AddressError;

    use super::*;

    #[test]
    fn an_address_is_named_as_a_whole() {
        for text in [
            "ann@x.example",
            "no ANN@X.example.",
            "'ann@x.example' is bad",
            "no \"ann@x.example\"",
            "<ann@x.example>, more",
            "to:ann@x.example;",
        ] {
            assert!(is_named(text, "Ann@x.example"), "{text}");
        }
        for text in [
            "joann@x.example",
            "jo.ann@x.example",
            "jo+ann@x.example",
            "o'ann@x.example",
            "'o'ann@x.example' is bad",
            "ann@x.example.org",
            "ann@x.example-y",
            "",
        ] {
            assert!(!is_named(text, "ann@x.example"), "{text}");
        }
        // Of several mentions, any.
        assert!(is_named("joann@x.example and ann@x.example", "ann@x.example"));
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
