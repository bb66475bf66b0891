//! The stored form of a mail, `email/1`: a JSON object, with the text and the HTML beside it. Programs in other languages write it too.
//!
//! A mail is decoded by the builder, so the same rules hold for a mail that another program wrote. An unknown field is an error:
//! without it, the mail sent would differ from the mail requested.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Blob, BlobHash, CodecError, Encoded, Mailbox};

use super::{Attachment, Email, EmailError, ListUnsubscribe, ReversePath};

const FORMAT: &str = "email/1";

/// The minimum size in bytes of an attachment that a store keeps once for all mails that carry it. A smaller one stays in the body, since a
/// row of its own would cost more than it saves.
const SHARED_SIZE: usize = 4096;

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
    /// `None` if the mail has no text, or has it beside the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    /// `None` if the mail has no HTML, or has it beside the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    html: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<StoredAttachment<'a>>,
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
    /// `Some("")` is the null reverse-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envelope_from: Option<Cow<'a, str>>,
}

/// A mailbox: a string, or an object if it has a name. A string in the form `Name <address>` is read as well.
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

/// Written by hand, because serde's untagged enums copy the input first.
impl<'de: 'a, 'a> Deserialize<'de> for StoredMailbox<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MailboxVisitor;

        impl<'de> Visitor<'de> for MailboxVisitor {
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

        deserializer.deserialize_any(MailboxVisitor)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAttachment<'a> {
    file_name: String,
    content_type: String,
    /// The content in Base64 (RFC 4648 section 4), with or without line ends. `None` if `sha256` refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    /// The hash of the blob, which is stored apart. `None` if `content` holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_id: Option<String>,
}

/// Decodes Base64. Line ends may be in it (RFC 2045 section 6.8): PostgreSQL's `encode` and MySQL's `TO_BASE64` put one after each 76
/// characters.
fn decode_base64(content: &str) -> Option<Vec<u8>> {
    if content.contains(['\r', '\n']) {
        let mut one_line = content.as_bytes().to_vec();
        one_line.retain(|octet| !matches!(octet, b'\r' | b'\n'));
        return STANDARD.decode(one_line).ok();
    }
    STANDARD.decode(content).ok()
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
    /// Returns the text for the object and the text beside it, of which at most one is `Some`. A text with NUL goes into the object, where
    /// JSON escapes it: PostgreSQL cannot store NUL.
    fn place(text: &Option<String>) -> (Option<Cow<'_, str>>, Option<String>) {
        match text {
            Some(text) if memchr(0, text.as_bytes()).is_some() => (Some(Cow::Borrowed(text)), None),
            text => (None, text.clone()),
        }
    }
    let parts = &email.parts;
    let (inner_text, text) = place(&parts.text);
    let (inner_html, html) = place(&parts.html);
    let mut blobs: Vec<Blob> = Vec::new();
    for content in parts.attachments.iter().map(Attachment::shared_content).filter(|content| is_shared(content)) {
        if !blobs.contains(content) {
            blobs.push(content.clone());
        }
    }
    let stored = Stored {
        from: StoredMailbox::from(&email.from),
        sender: parts.sender.as_ref().map(StoredMailbox::from),
        reply_to: mailboxes(&parts.reply_to),
        to: mailboxes(&parts.to),
        cc: mailboxes(&parts.cc),
        bcc: mailboxes(&parts.bcc),
        subject: Cow::Borrowed(&parts.subject),
        text: inner_text,
        html: inner_html,
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
    let body = serde_json::to_string(&stored);
    let body = body.map_err(|_| CodecError::new("the mail cannot be encoded as JSON"))?;
    Ok(Encoded { text, html, blobs, ..Encoded::new(FORMAT, body) })
}

fn is_shared(content: &Blob) -> bool {
    content.bytes().len() >= SHARED_SIZE
}

fn encode_attachment(attachment: &Attachment) -> StoredAttachment<'_> {
    let content = attachment.shared_content();
    let shared = is_shared(content);
    StoredAttachment {
        file_name: attachment.file_name().to_owned(),
        content_type: attachment.content_type().to_owned(),
        content: (!shared).then(|| STANDARD.encode(content.bytes()).into()),
        sha256: shared.then(|| content.hash().to_string().into()),
        content_id: attachment.content_id().map(str::to_owned),
    }
}

pub(super) fn decode(encoded: &Encoded) -> Result<Email, CodecError> {
    if encoded.format != FORMAT {
        return Err(CodecError::unknown_format(&encoded.format));
    }
    // serde would accept an array as well.
    if !encoded.body.trim_ascii_start().starts_with('{') {
        return Err(CodecError::new("the stored mail is not a JSON object"));
    }
    // serde's message may quote the mail, so the error has only the position.
    let mut stored: Stored<'_> = serde_json::from_str(&encoded.body).map_err(|error| {
        let place = format!("the stored mail is malformed at line {}, column {}", error.line(), error.column());
        CodecError::new(place)
    })?;
    for (inner, beside, name) in [(&mut stored.text, &encoded.text, "text"), (&mut stored.html, &encoded.html, "HTML")]
    {
        match (&inner, beside) {
            (_, None) => {}
            (None, Some(text)) => *inner = Some(Cow::Borrowed(text)),
            (Some(_), Some(_)) => {
                return Err(CodecError::new(format!(
                    "the stored mail has its {name} twice: in the object and beside it"
                )));
            }
        }
    }
    build(stored, &encoded.blobs).map_err(|error| CodecError::new(format!("the stored mail is invalid: {error}")))
}

fn build(stored: Stored<'_>, blobs: &[Blob]) -> Result<Email, EmailError> {
    // The size was checked when the mail was built. A lower limit set later must not block it.
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
        builder = builder.attach(decode_attachment(attachment, blobs)?);
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
        Some(text) => {
            let address = text.parse().map_err(|source| EmailError::Address { field: "envelope_from", source });
            builder.envelope_from(address?)
        }
    };
    builder.build()
}

fn decode_attachment(stored: StoredAttachment<'_>, blobs: &[Blob]) -> Result<Attachment, EmailError> {
    let content = match (stored.content, stored.sha256) {
        (Some(content), None) => {
            let bytes = decode_base64(&content).ok_or(EmailError::AttachmentContent)?;
            Blob::new(bytes)
        }
        (None, Some(hash)) => {
            let hash: BlobHash = hash.parse().map_err(|_| EmailError::AttachmentContent)?;
            let content = blobs.iter().find(|content| content.hash() == hash);
            content.cloned().ok_or(EmailError::AttachmentContent)?
        }
        _ => return Err(EmailError::AttachmentContent),
    };
    match stored.content_id {
        Some(id) => Attachment::inline(id, stored.file_name, stored.content_type, content),
        None => Attachment::new(stored.file_name, stored.content_type, content),
    }
}

fn decode_unsubscribe(stored: StoredUnsubscribe) -> Result<ListUnsubscribe, EmailError> {
    let mut uris = stored.uris.into_iter();
    let first = uris.next().ok_or(EmailError::ListUnsubscribe)?;
    let list = if stored.one_click { ListUnsubscribe::one_click(first)? } else { ListUnsubscribe::uri(first)? };
    uris.try_fold(list, |list, uri| list.or(uri))
}
