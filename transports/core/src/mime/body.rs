//! The body of a message (RFC 2046).

use memchr::memmem;

use super::MimeError;
use super::header_text::Field;
use super::parameters::{content_type, parameter};
use super::transfer::{self, Encoding};
use crate::email::media_type::MediaType;
use crate::{Attachment, Email, Outgoing};

/// A part of a message.
enum Part<'a> {
    Text { subtype: &'static str, text: &'a str, encoding: Encoding },
    Attachment { attachment: &'a Attachment, media_type: MediaType<'a>, encoding: Encoding },
    Multi { subtype: &'static str, layer: char, parts: Vec<Part<'a>> },
}

/// The body of a message, and the headers that describe it.
pub(super) struct Body<'a> {
    root: Part<'a>,
    /// The prefix of all boundaries.
    boundary: String,
}

impl<'a> Body<'a> {
    /// Builds the tree of RFC 2387 and RFC 2046: mixed(alternative(text, related(html, inline parts)), attachments). A layer with one
    /// part is omitted.
    pub(super) fn new(outgoing: &'a Outgoing<Email>) -> Result<Self, MimeError> {
        let email = outgoing.message();
        let (mut inline, mut attached) = (Vec::new(), Vec::new());
        for attachment in email.attachments() {
            let shown = attachment.content_id().is_some() && email.html().is_some();
            let list = if shown { &mut inline } else { &mut attached };
            list.push(Part::attachment(attachment)?);
        }
        let alone = email.attachments().is_empty() && email.text().is_none() != email.html().is_none();
        let text_part = |subtype, text| Part::Text { subtype, text, encoding: Encoding::of_text(text, alone) };
        let html = email.html().map(|html| Part::multi("related", 'r', text_part("html", html), inline));
        let text = email.text().map(|text| text_part("plain", text));
        let content = match (text, html) {
            (Some(text), Some(html)) => Part::multi("alternative", 'a', text, vec![html]),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(MimeError::new("it has no body")),
        };
        let root = Part::multi("mixed", 'm', content, attached);
        // An encoded body never contains `=_`. Content that is not encoded could contain this boundary.
        let mut boundary = format!("=_{}", outgoing.id().as_uuid().simple());
        while root.contains(boundary.as_bytes()) {
            boundary.push('_');
        }
        Ok(Self { root, boundary })
    }

    /// The estimated size in octets.
    pub(super) fn size(&self) -> usize {
        self.root.size()
    }

    /// Writes the headers, without the empty line after them.
    pub(super) fn headers(&self, out: &mut String) {
        self.root.headers(&self.boundary, out);
    }

    /// Writes the body. It is empty or ends with CRLF.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.root.write(&self.boundary, true, out);
    }
}

impl<'a> Part<'a> {
    fn multi(subtype: &'static str, layer: char, first: Self, more: Vec<Self>) -> Self {
        if more.is_empty() {
            return first;
        }
        let mut parts = more;
        parts.insert(0, first);
        Self::Multi { subtype, layer, parts }
    }

    fn attachment(attachment: &'a Attachment) -> Result<Self, MimeError> {
        let given = attachment.content_type();
        let media_type =
            MediaType::parse(given).ok_or_else(|| MimeError::new(format!("{given:?} is not a media type")))?;
        let encoding = encoding(&media_type, attachment.content())
            .map_err(|what| MimeError::new(format!("an attachment of type {} {what}", media_type.essence)))?;
        Ok(Self::Attachment { attachment, media_type, encoding })
    }

    /// Whether content that is not encoded contains these octets.
    fn contains(&self, octets: &[u8]) -> bool {
        match self {
            Self::Text { text, .. } => memmem::find(text.as_bytes(), octets).is_some(),
            Self::Attachment { encoding: Encoding::Base64, .. } => false,
            Self::Attachment { attachment, .. } => memmem::find(attachment.content(), octets).is_some(),
            Self::Multi { parts, .. } => parts.iter().any(|part| part.contains(octets)),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Text { text, .. } => 150 + text.len() + text.len() / 8,
            Self::Attachment { attachment, .. } => 500 + attachment.content().len() / 57 * 78 + 78,
            Self::Multi { parts, .. } => 300 + parts.iter().map(Self::size).sum::<usize>(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Text { encoding, .. } | Self::Attachment { encoding, .. } => *encoding,
            // RFC 2045 section 6.4: the encoding of a multipart is the strongest that its parts need.
            Self::Multi { parts, .. } => {
                let eight_bit = parts.iter().any(|part| matches!(part.encoding(), Encoding::EightBit));
                if eight_bit { Encoding::EightBit } else { Encoding::SevenBit }
            }
        }
    }

    fn headers(&self, boundary: &str, out: &mut String) {
        let encoding = self.encoding();
        match self {
            Self::Text { subtype, .. } => {
                out.extend(["Content-Type: text/", subtype, "; charset=utf-8\r\n"]);
            }
            Self::Attachment { attachment, media_type, .. } => {
                content_type(media_type, out);
                let mut field = Field::new(out, "Content-Disposition");
                field.raw(if attachment.content_id().is_some() { "inline" } else { "attachment" });
                parameter(&mut field, "filename", attachment.file_name());
                field.end();
                if let Some(id) = attachment.content_id() {
                    out.extend(["Content-ID: <", id, ">\r\n"]);
                }
            }
            Self::Multi { subtype, layer, .. } => {
                out.extend(["Content-Type: multipart/", subtype, ";"]);
                if *layer == 'r' {
                    // Required by RFC 2387 section 3.1.
                    out.push_str(" type=\"text/html\";");
                }
                out.extend(["\r\n boundary=\"", boundary, "_"]);
                out.push(*layer);
                out.push_str("\"\r\n");
                if encoding == Encoding::SevenBit {
                    return;
                }
            }
        }
        out.extend(["Content-Transfer-Encoding: ", encoding.name(), "\r\n"]);
    }

    fn write(&self, boundary: &str, last: bool, out: &mut Vec<u8>) {
        match self {
            Self::Text { text, encoding, .. } => transfer::text(text, *encoding, last, out),
            Self::Attachment { attachment, encoding: Encoding::Base64, .. } => {
                transfer::base64(attachment.content(), out);
            }
            Self::Attachment { attachment, .. } => transfer::crlf(attachment.content(), out),
            Self::Multi { layer, parts, .. } => {
                let mut headers = String::new();
                for (index, part) in parts.iter().enumerate() {
                    headers.clear();
                    // RFC 2046 section 5.1.1: the line end before a boundary is part of the boundary.
                    headers.extend([if index > 0 { "\r\n--" } else { "--" }, boundary, "_"]);
                    headers.push(*layer);
                    headers.push_str("\r\n");
                    part.headers(boundary, &mut headers);
                    headers.push_str("\r\n");
                    out.extend_from_slice(headers.as_bytes());
                    part.write(boundary, false, out);
                }
                out.extend_from_slice(format!("\r\n--{boundary}_{layer}--").as_bytes());
                if last {
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
}

/// The encoding of an attachment.
///
/// RFC 2045 section 6.4 forbids base64 and quoted-printable for `multipart/*` and `message/*`, whose parts have encodings of their own.
/// They are sent as they are. Content that needs the `binary` encoding is an error, because few servers support it (RFC 3030), and
/// encoding the inner parts would rewrite somebody else's message.
///
/// RFC 6532 section 3.7 and RFC 6533 section 6 allow base64 for types that start with `message/global`, so that a next hop without
/// 8BITMIME accepts them.
fn encoding(media_type: &MediaType<'_>, content: &[u8]) -> Result<Encoding, &'static str> {
    let essence = media_type.essence.to_ascii_lowercase();
    if essence.starts_with("message/global") {
        let plain = matches!(transfer::unencoded(content), Ok(Encoding::SevenBit)) && ends_lines_by_crlf(content);
        return Ok(if plain { Encoding::SevenBit } else { Encoding::Base64 });
    }
    if !media_type.is("message") && !media_type.is("multipart") {
        return Ok(Encoding::Base64);
    }
    if media_type.is("multipart") && !media_type.has("boundary") {
        return Err("has no parameter `boundary` (RFC 2046 section 5.1.1)");
    }
    let encoding = transfer::unencoded(content)?;
    // RFC 2046 sections 5.2.2 and 5.2.3.
    if encoding == Encoding::EightBit && matches!(&*essence, "message/partial" | "message/external-body") {
        return Err("is not in ASCII, which this type requires");
    }
    Ok(encoding)
}

/// Whether an attachment is sent in base64. Its content is then never an error.
pub(super) fn is_encoded(attachment: &Attachment) -> bool {
    MediaType::parse(attachment.content_type())
        .is_some_and(|media_type| !media_type.is("message") && !media_type.is("multipart"))
}

fn ends_lines_by_crlf(content: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', content).all(|end| content[..end].ends_with(b"\r"))
}
