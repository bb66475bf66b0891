//! JSON formats that several providers share.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::{Email, Mailbox, Outgoing, Receipt};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer, Serialize};
use serde_json::Value;

use crate::Request;
use crate::encoded_word::quote;

/// A mailbox as `{"email": …, "name": …}`.
#[derive(Serialize)]
pub(super) struct JsonMailbox<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
}

impl<'a> JsonMailbox<'a> {
    /// Converts a mailbox, with its name changed by `name`.
    pub(super) fn with_name(mailbox: &'a Mailbox, name: impl FnOnce(&'a str) -> Cow<'a, str>) -> Self {
        Self { email: mailbox.address().as_str(), name: mailbox.name().map(name) }
    }
}

impl<'a> From<&'a Mailbox> for JsonMailbox<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self::with_name(mailbox, Cow::Borrowed)
    }
}

pub(super) fn base64(content: &[u8]) -> String {
    STANDARD.encode(content)
}

/// Formats a mailbox as `Name <address>`, with the name in quotes if necessary (RFC 5322 section 3.2.4).
pub(super) fn format_mailbox(mailbox: &Mailbox) -> String {
    let address = mailbox.address().as_str();
    let plain = |c: char| c.is_alphanumeric() || " -_'".contains(c);
    match mailbox.name() {
        None => address.to_owned(),
        Some(name) if name.chars().all(plain) => format!("{name} <{address}>"),
        Some(name) => format!("{} <{address}>", quote(name)),
    }
}

/// Joins JSON values with commas, and puts `before` and `after` around them.
pub(super) fn join_values<'a>(before: &str, values: impl Iterator<Item = &'a [u8]> + Clone, after: &str) -> Vec<u8> {
    let length = values.clone().map(|value| value.len() + 1).sum::<usize>();
    let mut json = Vec::with_capacity(before.len() + length + after.len());
    json.extend_from_slice(before.as_bytes());
    for (index, value) in values.enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(value);
    }
    json.extend_from_slice(after.as_bytes());
    json
}

/// Joins the bodies of a batch into one array.
pub(super) fn join_bodies(batch: &[(&Outgoing<Email>, Request)]) -> Vec<u8> {
    join_values("[", batch.iter().map(|(_, request)| request.body().as_ref()), "]")
}

/// Size of the bodies, and of the attachments in base64, in octets. The request is at least this large.
pub(super) fn encoded_size(email: &Email) -> usize {
    let bodies = email.text().map_or(0, str::len) + email.html().map_or(0, str::len);
    bodies + email.attachments().iter().map(|file| file.content().len().div_ceil(3) * 4).sum::<usize>()
}

/// Deserializes a string or a number as a string, and any other type as an empty one.
///
/// For fields that acceptance does not depend on: an unexpected type in them must not fail the response.
pub(super) fn lenient_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// Deserializes the valid values of an array, and any other type as an empty list.
pub(super) fn lenient_list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let Value::Array(values) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(values.into_iter().filter_map(|value| serde_json::from_value(value).ok()).collect())
}

/// Creates a receipt with a provider id, if the id is not empty.
pub(super) fn receipt_with_id(id: &str) -> Receipt {
    let mut receipt = Receipt::new();
    receipt.provider_id = Some(id.to_owned()).filter(|id| !id.is_empty());
    receipt
}

#[cfg(test)]
mod tests {
    use postrider_transport::AddressError;

    use super::*;

    #[test]
    fn lenient_fields_accept_any_json_type() -> Result<(), serde_json::Error> {
        #[derive(Debug, serde::Deserialize, PartialEq)]
        struct Lenient {
            #[serde(default, deserialize_with = "lenient_string")]
            id: String,
            #[serde(default, deserialize_with = "lenient_list")]
            all: Vec<String>,
        }
        for (json, id) in [
            ("\"1\"", "1"),
            ("1", "1"),
            ("12345678901234567890123", "1.2345678901234568e+22"),
            ("null", ""),
            ("{}", ""),
        ] {
            assert_eq!(serde_json::from_str::<Lenient>(&format!("{{\"id\":{json}}}"))?.id, id, "{json}");
        }
        let all = serde_json::from_str::<Lenient>(r#"{"all":["a",1,"b",null]}"#)?.all;
        assert_eq!(all, ["a", "b"]);
        assert_eq!(serde_json::from_str::<Lenient>(r#"{"all":null}"#)?, Lenient { id: String::new(), all: Vec::new() });
        Ok(())
    }

    #[test]
    fn format_mailbox_round_trips_names() -> Result<(), AddressError> {
        for (name, expected) in [
            ("", "a@x.example"),
            ("Ada Lovelace", "Ada Lovelace <a@x.example>"),
            ("Zoë O'Hara-Li", "Zoë O'Hara-Li <a@x.example>"),
            ("Lovelace, Ada", r#""Lovelace, Ada" <a@x.example>"#),
            (r#"The "\" of <x>"#, r#""The \"\\\" of <x>" <a@x.example>"#),
            ("=?utf-8?q?x?=", r#""=?utf-8?q?x?=" <a@x.example>"#),
        ] {
            let mailbox = Mailbox::new(name, "a@x.example".parse()?)?;
            assert_eq!(format_mailbox(&mailbox), expected);
            assert_eq!(format_mailbox(&mailbox).parse::<Mailbox>()?, mailbox);
        }
        Ok(())
    }
}
