//! The parts of a mail (RFC 2046).

use memchr::memmem;

use super::MimeError;
use super::parameters::{content_type, parameter};
use super::transfer::{self, Encoding};
use super::words::Field;
use crate::email::media_type::MediaType;
use crate::{Attachment, Email, Outgoing};

/// What a message or one of its parts is made of.
enum Part<'a> {
    Text { subtype: &'static str, text: &'a str, encoding: Encoding },
    Attachment { attachment: &'a Attachment, media_type: MediaType<'a>, encoding: Encoding },
    Multi { subtype: &'static str, layer: char, parts: Vec<Part<'a>> },
}

/// The headers that describe the body, the empty line behind the header, and the body.
pub(super) struct Body<'a> {
    whole: Part<'a>,
    boundary: String,
}

impl<'a> Body<'a> {
    /// The nesting of RFC 2387 and RFC 2046: mixed(alternative(text, related(html, inline parts)), attachments), each layer only
    /// where it has something to hold.
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
        let html = email.html().map(|html| Part::several("related", 'r', text_part("html", html), inline));
        let text = email.text().map(|text| text_part("plain", text));
        let content = match (text, html) {
            (Some(text), Some(html)) => Part::several("alternative", 'a', text, vec![html]),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return Err(MimeError::new("it has no body")),
        };
        let whole = Part::several("mixed", 'm', content, attached);
        // A line of an encoded body holds no `=_`. What travels as it is would have to name this delivery.
        let mut boundary = format!("=_{}", outgoing.id().as_uuid().simple());
        while whole.holds(boundary.as_bytes()) {
            boundary.push('_');
        }
        Ok(Self { whole, boundary })
    }

    /// About how large it will be, in octets.
    pub(super) fn size(&self) -> usize {
        self.whole.size()
    }

    /// Writes the headers. The empty line is for the caller.
    pub(super) fn headers(&self, out: &mut String) {
        self.whole.headers(&self.boundary, out);
    }

    /// Writes what follows the empty line. It is empty, or ends with CRLF.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.whole.write(&self.boundary, true, out);
    }
}

impl<'a> Part<'a> {
    fn several(subtype: &'static str, layer: char, first: Self, more: Vec<Self>) -> Self {
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
            MediaType::parse(given).ok_or_else(|| MimeError::new(format!("{given:?} is no media type")))?;
        let encoding = encoding(&media_type, attachment.content())
            .map_err(|what| MimeError::new(format!("an attachment of type {} {what}", media_type.essence)))?;
        Ok(Self::Attachment { attachment, media_type, encoding })
    }

    /// Whether something in it that travels as it is holds these octets.
    fn holds(&self, octets: &[u8]) -> bool {
        match self {
            Self::Text { text, .. } => memmem::find(text.as_bytes(), octets).is_some(),
            Self::Attachment { encoding: Encoding::Base64, .. } => false,
            Self::Attachment { attachment, .. } => memmem::find(attachment.content(), octets).is_some(),
            Self::Multi { parts, .. } => parts.iter().any(|part| part.holds(octets)),
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
            // RFC 2045 section 6.4: of a multipart it says only what the parts in it need.
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
                    // RFC 2387 section 3.1 requires it.
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
                    // RFC 2046 section 5.1.1: the line end in front of a boundary belongs to it.
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

/// How an attachment travels.
///
/// RFC 2045 section 6.4 forbids base64 and quoted-printable for `multipart/*` and `message/*`, whose parts say for
/// themselves how they are encoded. They travel as they are, and what cannot is an error: nobody on the way speaks binary (RFC 3030), and to
/// encode what is within would be to write somebody else's message anew. RFC 6532 section 3.7 and RFC 6533 section 6 allow it for
/// the types whose names begin with `message/global`, so that a next hop without 8BITMIME takes them.
fn encoding(media_type: &MediaType<'_>, content: &[u8]) -> Result<Encoding, &'static str> {
    let essence = media_type.essence.to_ascii_lowercase();
    if essence.starts_with("message/global") {
        let plain = matches!(transfer::as_lines(content), Ok(Encoding::SevenBit)) && ends_lines_by_crlf(content);
        return Ok(if plain { Encoding::SevenBit } else { Encoding::Base64 });
    }
    if !media_type.is("message") && !media_type.is("multipart") {
        return Ok(Encoding::Base64);
    }
    if media_type.is("multipart") && !media_type.has("boundary") {
        return Err("has no parameter `boundary` (RFC 2046 section 5.1.1)");
    }
    let encoding = transfer::as_lines(content)?;
    // RFC 2046 sections 5.2.2 and 5.2.3.
    if encoding == Encoding::EightBit && matches!(&*essence, "message/partial" | "message/external-body") {
        return Err("is not in ASCII, as this type has to be");
    }
    Ok(encoding)
}

/// Whether an attachment travels in base64. Nothing in it can then be a reason that a mail cannot be rendered.
pub(super) fn is_encoded(attachment: &Attachment) -> bool {
    MediaType::parse(attachment.content_type())
        .is_some_and(|media_type| !media_type.is("message") && !media_type.is("multipart"))
}

fn ends_lines_by_crlf(content: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', content).all(|end| content[..end].ends_with(b"\r"))
}
