//! A mail as the bytes that travel (RFC 5322, RFC 2045).

use std::fmt;
use std::slice;

use email_encoding::body::Encoding;
use lettre::message::header::{self, ContentTransferEncoding, ContentType, Headers};
use lettre::message::{Attachment as LettreAttachment, Body as Encoded, MultiPart, SinglePart};
use memchr::memchr_iter;

use crate::{Attachment, Class, Classify, Email, Outgoing, Scope};

#[cfg(feature = "dkim")]
mod dkim;
mod headers;
#[cfg(feature = "dkim")]
pub use dkim::{Dkim, DkimError};

/// Renders mails.
///
/// The same delivery renders to the same bytes each time: Message-ID and boundaries come from its id, Date from the time
/// at which it was first to be sent. (A DKIM signature names the second in which it was made, so that one header differs between attempts.)
///
/// Tags and metadata, for which mail has no standard header, travel as `X-Tag` and `X-Metadata-KEY`; `bcc` travels not at all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Mime {
    bare: bool,
    #[cfg(feature = "dkim")]
    dkim: Option<Dkim>,
}

impl Mime {
    /// Renders without signing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves tags and metadata out, for transports that carry them beside the message.
    #[must_use]
    pub fn without_labels(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Signs each mail.
    #[cfg(feature = "dkim")]
    #[must_use]
    pub fn with_dkim(mut self, dkim: Dkim) -> Self {
        self.dkim = Some(dkim);
        self
    }

    /// Renders one mail. Every line ends with CRLF, and no CR or LF stands alone.
    ///
    /// # Errors
    /// When the mail holds something that the message format cannot carry.
    pub fn render(&self, outgoing: &Outgoing<Email>) -> Result<Vec<u8>, MimeError> {
        let email = outgoing.message();
        let beside_from = headers::beside_from(outgoing)?;
        let body = body(email, &boundary(outgoing))?;
        let mut bytes = headers::custom(email, !self.bare)?.into_bytes();
        #[cfg(feature = "dkim")]
        if let Some(dkim) = &self.dkim {
            bytes.extend(dkim.signed(email.from(), beside_from, body)?);
            check_lines(&bytes)?;
            return Ok(bytes);
        }
        let mut header = Headers::new();
        header.insert_raw(headers::addresses("From", slice::from_ref(email.from()))?);
        beside_from.into_iter().for_each(|value| header.insert_raw(value));
        header.set(header::MIME_VERSION_1_0);
        bytes.extend_from_slice(header.to_string().as_bytes());
        body.write(&mut bytes);
        check_lines(&bytes)?;
        Ok(bytes)
    }
}

enum Body {
    Single(SinglePart),
    Multi(MultiPart),
}

impl Body {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            // As lettre's own form of it, without making room again and again. What a transport adds finds room as well.
            Self::Single(part) => {
                let headers = part.headers().to_string();
                out.reserve(headers.len() + part.raw_body().len() + 16);
                for piece in [headers.as_bytes(), b"\r\n", part.raw_body(), b"\r\n"] {
                    out.extend_from_slice(piece);
                }
            }
            Self::Multi(part) => out.extend(part.formatted()),
        }
    }
}

/// The nesting of RFC 2387 and RFC 2046: mixed(alternative(text, related(html, inline parts)), attachments), each layer only
/// where it has something to hold.
fn body(email: &Email, boundary: &str) -> Result<Body, MimeError> {
    let (inline, attached): (Vec<_>, Vec<_>) =
        email.attachments().iter().partition(|a| a.content_id().is_some() && email.html().is_some());

    let html = email.html().map(|html| text(ContentType::TEXT_HTML, html)).transpose()?;
    let html = match html {
        Some(html) if !inline.is_empty() => {
            let mut related = multipart(MultiPart::related(), boundary, "r").singlepart(html);
            for part in inline {
                related = related.singlepart(attachment(part)?);
            }
            Some(Body::Multi(related))
        }
        Some(html) => Some(Body::Single(html)),
        None => None,
    };
    let text = email.text().map(|plain| text(ContentType::TEXT_PLAIN, plain)).transpose()?;
    let content = match (text, html) {
        (Some(text), Some(html)) => {
            let alternative = multipart(MultiPart::alternative(), boundary, "a").singlepart(text);
            Body::Multi(add(alternative, html))
        }
        (Some(text), None) => Body::Single(text),
        (None, Some(html)) => html,
        (None, None) => return Err(MimeError::new("it has no body")),
    };
    if attached.is_empty() {
        return Ok(content);
    }
    let mixed = multipart(MultiPart::mixed(), boundary, "m");
    let mut mixed = match content {
        Body::Single(part) => mixed.singlepart(part),
        Body::Multi(part) => mixed.multipart(part),
    };
    for part in attached {
        mixed = mixed.singlepart(attachment(part)?);
    }
    Ok(Body::Multi(mixed))
}

/// A text as lettre would write it. Left to itself, lettre makes the line ends one by one and moves the rest of the text at each, so
/// that its time grows with the square of the length.
fn text(content_type: ContentType, text: &str) -> Result<SinglePart, MimeError> {
    let encoding = match Encoding::choose(text, false) {
        Encoding::SevenBit => ContentTransferEncoding::SevenBit,
        Encoding::EightBit => ContentTransferEncoding::EightBit,
        Encoding::QuotedPrintable => ContentTransferEncoding::QuotedPrintable,
        Encoding::Base64 => ContentTransferEncoding::Base64,
    };
    // A mail's texts hold no CR.
    let mut lines = String::with_capacity(text.len() + memchr_iter(b'\n', text.as_bytes()).count());
    let mut from = 0;
    for end in memchr_iter(b'\n', text.as_bytes()) {
        lines.extend([&text[from..end], "\r\n"]);
        from = end + 1;
    }
    lines.push_str(&text[from..]);
    let body = match encoding {
        // The choice was made for lines without their CR.
        ContentTransferEncoding::SevenBit => Ok(Encoded::dangerous_pre_encoded(lines.into_bytes(), encoding)),
        _ => Encoded::new_with_encoding(lines, encoding),
    };
    let body = body.map_err(|_| MimeError::new("a text of it cannot be encoded"))?;
    Ok(SinglePart::builder().header(content_type).body(body))
}

fn add(multi: MultiPart, body: Body) -> MultiPart {
    match body {
        Body::Single(part) => multi.singlepart(part),
        Body::Multi(part) => multi.multipart(part),
    }
}

/// Unlike any line of a body: lines of encoded bodies hold no `=_`, and a plain one would have to name this delivery.
fn boundary(outgoing: &Outgoing<Email>) -> String {
    format!("=_{}", outgoing.id().as_uuid().simple())
}

fn multipart(
    builder: lettre::message::MultiPartBuilder,
    boundary: &str,
    layer: &str,
) -> lettre::message::MultiPartBuilder {
    builder.boundary(format!("{boundary}_{layer}"))
}

fn attachment(part: &Attachment) -> Result<SinglePart, MimeError> {
    let content_type = ContentType::parse(part.content_type())
        .map_err(|_| MimeError::new(format!("{:?} is no media type", part.content_type())))?;
    let name = part.file_name().to_owned();
    let attachment = match part.content_id() {
        Some(id) => LettreAttachment::new_inline_with_name(id.to_owned(), name),
        None => LettreAttachment::new(name),
    };
    // Left to itself, lettre lets plain text through as it is, whose line ends are then nobody's.
    let content = Encoded::new_with_encoding(part.content().to_vec(), ContentTransferEncoding::Base64)
        .map_err(|_| MimeError::new("an attachment cannot be encoded"))?;
    Ok(attachment.body(content, content_type))
}

/// RFC 5322 section 2.1.1: at most 998 octets to a line; section 2.2: CR and LF only together. A bare one could end a line for
/// one parser and not for another, and so smuggle a second mail into the dialogue.
fn check_lines(bytes: &[u8]) -> Result<(), MimeError> {
    let (mut from, mut lines) = (0, 0);
    for end in memchr_iter(b'\n', bytes) {
        check_length(bytes[from..end].strip_suffix(b"\r").ok_or_else(lone)?)?;
        (from, lines) = (end + 1, lines + 1);
    }
    check_length(&bytes[from..])?;
    // Each LF has its CR; one more would be alone.
    if memchr_iter(b'\r', bytes).count() == lines { Ok(()) } else { Err(lone()) }
}

fn lone() -> MimeError {
    MimeError::new("a line of it ends with a lone CR or LF")
}

fn check_length(line: &[u8]) -> Result<(), MimeError> {
    if line.len() > 998 { Err(MimeError::new("a line of it is longer than 998 octets")) } else { Ok(()) }
}

/// The mail cannot be rendered. Permanent, and the mail's own fault.
#[derive(Debug)]
pub struct MimeError {
    what: String,
}

impl MimeError {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    fn because(error: impl std::error::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for MimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mail cannot be written as a message: {}", self.what)
    }
}

impl std::error::Error for MimeError {}

impl Classify for MimeError {
    fn class(&self) -> Class {
        Class::Permanent
    }

    fn scope(&self) -> Scope {
        Scope::Message
    }

    /// Nothing was sent.
    fn in_doubt(&self) -> bool {
        false
    }

    /// A transport that takes the parts of a mail one by one may carry what this format cannot.
    fn unsupported(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_end_with_both_and_are_not_too_long() {
        let (longest, longer) = ("a".repeat(998), "a".repeat(999));
        for good in ["", "\r\n", "a\r\n\r\nb", &longest, &format!("{longest}\r\n{longest}\r\n")] {
            assert!(check_lines(good.as_bytes()).is_ok(), "refused {good:?}");
        }
        for bad in ["\r", "\n", "a\r\r\n", "a\n\r\n", "\r\n\n", "a\rb\r\n", "a\r\n\r", "a\r\nb\nc\r\n"] {
            assert!(check_lines(bad.as_bytes()).is_err(), "took {bad:?}");
        }
        for long in [&longer, &format!("a\r\n{longer}\r\n"), &format!("{longer}\r\n")] {
            assert!(check_lines(long.as_bytes()).is_err(), "took a line of 999");
        }
    }

    /// The same bytes as from the builder of the library whose parts these are.
    #[test]
    fn a_mail_is_written_as_lettre_would() {
        let email = Email::builder()
            .from("Ada <ada@example.com>")
            .sender("office@example.com")
            .reply_to("Zoë <zoe@example.com>")
            .to("bob@example.com")
            .subject("Grüße")
            .text("One.\nTwo.\n");
        let id = crate::DeliveryId::new();
        for html in [None, Some("<p>One.</p>")] {
            let email = html.into_iter().fold(email.clone(), |email, html| email.html(html)).build().unwrap();
            let outgoing = Outgoing::new(id, std::time::SystemTime::UNIX_EPOCH, email);
            let builder = lettre::Message::builder()
                .from("Ada <ada@example.com>".parse().unwrap())
                .date(std::time::SystemTime::UNIX_EPOCH)
                .message_id(Some(outgoing.message_id()))
                .subject("Grüße")
                .sender("office@example.com".parse().unwrap())
                .reply_to("Zoë <zoe@example.com>".parse().unwrap())
                .to("bob@example.com".parse().unwrap());
            let theirs = match body(outgoing.message(), &boundary(&outgoing)).unwrap() {
                Body::Single(part) => builder.singlepart(part),
                Body::Multi(part) => builder.multipart(part),
            };
            assert_eq!(
                String::from_utf8(Mime::new().render(&outgoing).unwrap()).unwrap(),
                String::from_utf8(theirs.unwrap().formatted()).unwrap()
            );
        }
    }

    proptest! {
        #[test]
        fn a_text_is_written_as_lettre_would(
            pieces in prop::collection::vec(prop::sample::select(vec!["\n", "a", ".", " ", "=", "é", "📬", "seventy"]), 0..400)
        ) {
            let plain = pieces.concat();
            let theirs = SinglePart::plain(plain.clone());
            prop_assert_eq!(text(ContentType::TEXT_PLAIN, &plain).unwrap().formatted(), theirs.formatted());
        }
    }
}
