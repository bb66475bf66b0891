//! A mail as the bytes that travel (RFC 5322, RFC 2045).

use std::fmt;
use std::time::SystemTime;

use memchr::memchr_iter;

use crate::{Class, Classify, DeliveryId, Email, Outgoing, Scope};

mod body;
#[cfg(feature = "dkim")]
mod dkim;
mod headers;
mod parameters;
mod transfer;
mod words;
#[cfg(feature = "dkim")]
pub use dkim::{Dkim, DkimError};

use body::Body;

/// Renders mails.
///
/// The same delivery renders to the same bytes each time: Message-ID and boundaries come from its id, Date from the time
/// at which it was first to be sent, and so does the time that a DKIM signature names.
///
/// What is written can be read back as it was given: subjects and names whatever is in them, texts to their last line end,
/// attachments to the octet. An attachment of the type `message/*` or `multipart/*` travels as it is (RFC 2045 section 6.4), with CRLF
/// at the ends of its lines.
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

    /// Renders one mail. Every line ends with CRLF, and no CR or LF stands alone. It is ASCII, save where an address or an attached
    /// message is not.
    ///
    /// # Errors
    /// When the mail holds something that the message format cannot carry: a header that cannot be folded to lines of 998 octets, or
    /// an attached message with such lines, a NUL, or a CR that ends no line.
    pub fn render(&self, outgoing: &Outgoing<Email>) -> Result<Vec<u8>, MimeError> {
        let body = Body::new(outgoing)?;
        let mut header = String::with_capacity(1_024);
        headers::write(outgoing, !self.bare, &mut header);
        body.headers(&mut header);
        #[cfg(feature = "dkim")]
        if let Some(dkim) = &self.dkim {
            let mut content = Vec::with_capacity(body.size());
            body.write(&mut content);
            let signature = dkim.sign(&header, &content, outgoing.dated_unix())?;
            // What a transport adds finds room as well.
            let mut message = Vec::with_capacity(signature.len() + header.len() + content.len() + 16);
            for piece in [signature.as_bytes(), header.as_bytes(), b"\r\n", &content] {
                message.extend_from_slice(piece);
            }
            check_lines(&message)?;
            return Ok(message);
        }
        let mut message = header.into_bytes();
        message.extend_from_slice(b"\r\n");
        message.reserve(body.size());
        body.write(&mut message);
        check_lines(&message)?;
        Ok(message)
    }

    /// Whether a mail can be rendered, at less cost: attachments that are encoded, which is never a reason why not, are left out. It
    /// returns what is left of the message.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn check(&self, email: &Email) -> Result<Vec<u8>, MimeError> {
        let email = email.clone().map_attachments(|attachment| {
            if body::is_encoded(&attachment) { attachment.emptied() } else { attachment }
        });
        let unsigned = Self { bare: self.bare, ..Self::default() };
        unsigned.render(&Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email))
    }
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
}
