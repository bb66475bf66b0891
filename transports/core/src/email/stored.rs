//! The stored form of a mail, `email/1`: a JSON object that other languages can write as well.
//!
//! Reading goes through the builder, so that a mail put into the database by other means obeys the same rules. Fields that are
//! not known are an error: to ignore one would send a mail other than the one that was asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{CodecError, Encoded, Mailbox};

use super::{Attachment, Email, ListUnsubscribe, ReversePath};

const FORMAT: &str = "email/1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<'a> {
    #[serde(borrow)]
    from: StoredMailbox<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    sender: Option<StoredMailbox<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    reply_to: Vec<StoredMailbox<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    to: Vec<StoredMailbox<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    cc: Vec<StoredMailbox<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<StoredMailbox<'a>>,
    #[serde(default)]
    subject: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "long_text", skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "long_text", skip_serializing_if = "Option::is_none")]
    html: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<StoredAttachment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list_unsubscribe: Option<StoredUnsubscribe>,
    /// The empty string is the null reverse-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envelope_from: Option<Cow<'a, str>>,
}

/// A text of many lines, each of whose ends is an escape. serde's own way puts it together in a buffer that grows with it, and copies
/// that.
fn long_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let Some(raw) = Option::<&RawValue>::deserialize(deserializer)? else { return Ok(None) };
    let Some(inner) = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Err(D::Error::invalid_type(Unexpected::Other("something else"), &"a string"));
    };
    let text = match unescape(inner) {
        Some(text) => text,
        None => Cow::Owned(serde_json::from_str(raw.get()).map_err(D::Error::custom)?),
    };
    Ok(Some(text))
}

/// What stands for itself after a backslash, and what each of the other letters stands for (RFC 8259 section 7). `None` where a code
/// point is spelt out.
fn unescape(json: &str) -> Option<Cow<'_, str>> {
    let Some(mut end) = memchr(b'\\', json.as_bytes()) else { return Some(Cow::Borrowed(json)) };
    let (mut text, mut rest) = (String::with_capacity(json.len()), json);
    loop {
        text.push_str(&rest[..end]);
        text.push(match rest.as_bytes().get(end + 1)? {
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            mark @ (b'"' | b'\\' | b'/') => char::from(*mark),
            _ => return None,
        });
        rest = &rest[end + 2..];
        match memchr(b'\\', rest.as_bytes()) {
            Some(next) => end = next,
            None => break,
        }
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// A mailbox without a name is a plain string, which may also be read in the form `Name <address>`.
#[derive(Serialize)]
#[serde(untagged)]
enum StoredMailbox<'a> {
    Text(Cow<'a, str>),
    Named(NamedMailbox<'a>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedMailbox<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    address: Cow<'a, str>,
}

/// By hand, because serde's own way to tell the two forms apart takes a copy of everything first.
impl<'de: 'a, 'a> Deserialize<'de> for StoredMailbox<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = StoredMailbox<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mailbox")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(StoredMailbox::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(StoredMailbox::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
                NamedMailbox::deserialize(MapAccessDeserializer::new(map)).map(StoredMailbox::Named)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAttachment {
    file_name: String,
    content_type: String,
    /// Base64 (RFC 4648 section 4).
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_id: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredUnsubscribe {
    uris: Vec<String>,
    #[serde(default)]
    one_click: bool,
}

impl<'a> From<&'a Mailbox> for StoredMailbox<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        let address = Cow::Borrowed(mailbox.address().as_str());
        match mailbox.name() {
            None => Self::Text(address),
            Some(name) => Self::Named(NamedMailbox { name: Cow::Borrowed(name), address }),
        }
    }
}

impl crate::IntoMailbox for StoredMailbox<'_> {
    fn into_mailbox(self) -> Result<Mailbox, crate::AddressError> {
        match self {
            Self::Text(text) => text.parse(),
            Self::Named(NamedMailbox { name, address }) => Mailbox::new(name, address.parse()?),
        }
    }
}

pub(super) fn encode(email: &Email) -> Result<Encoded, CodecError> {
    fn mailboxes(list: &[Mailbox]) -> Vec<StoredMailbox<'_>> {
        list.iter().map(StoredMailbox::from).collect()
    }
    fn borrowed(text: &Option<String>) -> Option<Cow<'_, str>> {
        text.as_deref().map(Cow::Borrowed)
    }
    let parts = &email.parts;
    let stored = Stored {
        from: StoredMailbox::from(&email.from),
        sender: parts.sender.as_ref().map(StoredMailbox::from),
        reply_to: mailboxes(&parts.reply_to),
        to: mailboxes(&parts.to),
        cc: mailboxes(&parts.cc),
        bcc: mailboxes(&parts.bcc),
        subject: Cow::Borrowed(&parts.subject),
        text: borrowed(&parts.text),
        html: borrowed(&parts.html),
        attachments: parts.attachments.iter().map(encode_attachment).collect(),
        headers: parts.headers.iter().map(|h| (h.name().to_owned(), h.value().to_owned())).collect(),
        tags: parts.tags.clone(),
        metadata: parts.metadata.clone(),
        template_id: borrowed(&parts.template_id),
        list_unsubscribe: parts
            .list_unsubscribe
            .as_ref()
            .map(|list| StoredUnsubscribe { uris: list.uris().to_vec(), one_click: list.is_one_click() }),
        envelope_from: parts.envelope_from.as_ref().map(|path| match path {
            ReversePath::Null => Cow::Borrowed(""),
            ReversePath::Address(address) => Cow::Borrowed(address.as_str()),
        }),
    };
    let body = serde_json::to_string(&stored).map_err(|_| CodecError::new("the mail could not be written as JSON"))?;
    Ok(Encoded { format: FORMAT.to_owned(), body })
}

fn encode_attachment(attachment: &Attachment) -> StoredAttachment {
    StoredAttachment {
        file_name: attachment.file_name().to_owned(),
        content_type: attachment.content_type().to_owned(),
        content: STANDARD.encode(attachment.content()),
        content_id: attachment.content_id().map(str::to_owned),
    }
}

pub(super) fn decode(encoded: &Encoded) -> Result<Email, CodecError> {
    if encoded.format != FORMAT {
        return Err(CodecError::unknown_format(&encoded.format));
    }
    // serde's own message may quote the mail, so that only the place is told.
    let stored: Stored<'_> = serde_json::from_str(&encoded.body).map_err(|error| {
        let place = format!("the stored mail is damaged at line {}, column {}", error.line(), error.column());
        CodecError::new(place)
    })?;
    build(stored).map_err(|error| CodecError::new(format!("the stored mail is not valid: {error}")))
}

fn build(stored: Stored<'_>) -> Result<Email, super::EmailError> {
    // The size was checked when the mail was made; a limit that was lowered since must not strand it.
    let mut builder = Email::builder().size_limit(usize::MAX).from(stored.from).subject(stored.subject);
    if let Some(sender) = stored.sender {
        builder = builder.sender(sender);
    }
    builder = stored.reply_to.into_iter().fold(builder, |b, mailbox| b.reply_to(mailbox));
    builder = stored.to.into_iter().fold(builder, |b, mailbox| b.to(mailbox));
    builder = stored.cc.into_iter().fold(builder, |b, mailbox| b.cc(mailbox));
    builder = stored.bcc.into_iter().fold(builder, |b, mailbox| b.bcc(mailbox));
    if let Some(text) = stored.text {
        builder = builder.text(text);
    }
    if let Some(html) = stored.html {
        builder = builder.html(html);
    }
    for attachment in stored.attachments {
        builder = builder.attach(decode_attachment(attachment)?);
    }
    builder = stored.headers.into_iter().fold(builder, |b, (name, value)| b.header(name, value));
    builder = stored.tags.into_iter().fold(builder, |b, tag| b.tag(tag));
    builder = stored.metadata.into_iter().fold(builder, |b, (key, value)| b.metadata(key, value));
    if let Some(id) = stored.template_id {
        builder = builder.template_id(id);
    }
    if let Some(list) = stored.list_unsubscribe {
        builder = builder.list_unsubscribe(decode_unsubscribe(list)?);
    }
    builder = match stored.envelope_from.as_deref() {
        None => builder,
        Some("") => builder.null_envelope_from(),
        Some(text) => builder.envelope_from(
            text.parse().map_err(|source| super::EmailError::Address { field: "envelope_from", source })?,
        ),
    };
    builder.build()
}

fn decode_attachment(stored: StoredAttachment) -> Result<Attachment, super::EmailError> {
    let content = STANDARD.decode(&stored.content).map_err(|_| super::EmailError::AttachmentContent)?;
    match stored.content_id {
        Some(id) => Attachment::inline(id, stored.file_name, stored.content_type, content),
        None => Attachment::new(stored.file_name, stored.content_type, content),
    }
}

fn decode_unsubscribe(stored: StoredUnsubscribe) -> Result<ListUnsubscribe, super::EmailError> {
    let mut uris = stored.uris.into_iter();
    let first = uris.next().ok_or(super::EmailError::ListUnsubscribe)?;
    let list = if stored.one_click { ListUnsubscribe::one_click(first)? } else { ListUnsubscribe::uri(first)? };
    uris.try_fold(list, |list, uri| list.or(uri))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct Texts<'a> {
        #[serde(borrow, default, deserialize_with = "long_text")]
        text: Option<Cow<'a, str>>,
    }

    fn read(json: &str) -> Option<Option<String>> {
        let texts: Result<Texts<'_>, _> = serde_json::from_str(json);
        texts.ok().map(|texts| texts.text.map(Cow::into_owned))
    }

    proptest! {
        #[test]
        fn a_long_text_is_read_as_serde_would(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["a", "é", "📬", "\\n", "\\r", "\\t", "\\b", "\\f", "\\/", "\\\"", "\\\\", "\\u00e9",
                    "\\ud83d\\udcec", "\\ud83d", "\\x", "\\", "\n", "\"", " "]),
                0..12,
            )
        ) {
            let string = format!("\"{}\"", pieces.concat());
            let theirs: Option<String> = serde_json::from_str(&string).ok();
            let ours = read(&format!("{{\"text\":{string}}}"));
            prop_assert_eq!(ours, theirs.map(Some), "{}", string);
        }
    }

    #[test]
    fn a_long_text_is_a_string_or_left_out() {
        assert_eq!(read("{}"), Some(None));
        assert_eq!(read(r#"{"text": null}"#), Some(None));
        for other in ["7", "true", "[]", "{}", r#"["a"]"#] {
            assert_eq!(read(&format!("{{\"text\": {other}}}")), None, "{other}");
        }
    }
}
