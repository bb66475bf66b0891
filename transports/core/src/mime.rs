//! Renders a mail as a message (RFC 5322, RFC 2045).

use std::fmt;
use std::time::SystemTime;

use memchr::memchr_iter;

use crate::{Class, Classify, DeliveryId, Email, Outgoing, Scope};

mod body;
#[cfg(feature = "dkim")]
mod dkim;
mod header_text;
mod headers;
mod parameters;
mod transfer;
#[cfg(feature = "dkim")]
pub use dkim::{Dkim, DkimError};

use body::Body;

/// Renders mails as RFC 5322 messages.
///
/// A delivery renders to the same bytes each time. Message-ID and boundaries derive from its id. Date and the time of a DKIM signature
/// are [`Outgoing::dated_at`].
///
/// A parser reads back exactly what was set: subjects and names with any characters, texts to the last line end, attachments to the
/// octet. An attachment of type `message/*` or `multipart/*` is not encoded (RFC 2045 section 6.4), and gets CRLF at its line ends.
///
/// Tags and metadata become the headers `X-Tag` and `X-Metadata-KEY`, because mail has no standard headers for them. `bcc` is in no header.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Mime {
    without_labels: bool,
    #[cfg(feature = "dkim")]
    dkim: Option<Dkim>,
}

impl Mime {
    /// Renders without a signature.
    pub fn new() -> Self {
        Self::default()
    }

    /// Omits tags and metadata, for transports that send them outside the message.
    #[must_use]
    pub fn without_labels(mut self) -> Self {
        self.without_labels = true;
        self
    }

    /// Signs each message with DKIM.
    #[cfg(feature = "dkim")]
    #[must_use]
    pub fn with_dkim(mut self, dkim: Dkim) -> Self {
        self.dkim = Some(dkim);
        self
    }

    /// Renders a mail.
    ///
    /// Every line ends with CRLF, and there is no other CR or LF. The message is ASCII, except for addresses and attached messages that
    /// are not.
    ///
    /// # Errors
    /// If a header cannot be folded to lines of 998 octets. If an attached message has a longer line, a NUL, or a CR without LF.
    pub fn render(&self, outgoing: &Outgoing<Email>) -> Result<Vec<u8>, MimeError> {
        let body = Body::new(outgoing)?;
        let mut header = String::with_capacity(1_024);
        headers::write(outgoing, !self.without_labels, &mut header);
        body.headers(&mut header);
        #[cfg(feature = "dkim")]
        if let Some(dkim) = &self.dkim {
            let mut content = Vec::with_capacity(body.size());
            body.write(&mut content);
            let signature = dkim.sign(&header, &content, outgoing.dated_unix())?;
            // 16 more octets, for what a transport appends.
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

    /// Checks whether a mail can be rendered, at a lower cost. Returns the message without the content of encoded attachments.
    ///
    /// Encoded attachments can always be rendered, so they are left empty. The message is not signed.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn check(&self, email: &Email) -> Result<Vec<u8>, MimeError> {
        let email = email.clone().map_attachments(|attachment| {
            if body::is_encoded(&attachment) { attachment.emptied() } else { attachment }
        });
        let unsigned = Self { without_labels: self.without_labels, ..Self::default() };
        unsigned.render(&Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email))
    }
}

/// Checks that lines have at most 998 octets (RFC 5322 section 2.1.1), and that CR and LF occur only together (section 2.2).
///
/// A lone CR or LF ends a line for some parsers only, and so can smuggle a second mail into an SMTP session.
fn check_lines(bytes: &[u8]) -> Result<(), MimeError> {
    let (mut from, mut lines) = (0, 0);
    for end in memchr_iter(b'\n', bytes) {
        check_length(bytes[from..end].strip_suffix(b"\r").ok_or_else(lone_cr_or_lf)?)?;
        (from, lines) = (end + 1, lines + 1);
    }
    check_length(&bytes[from..])?;
    // Each LF has its CR. One CR more is a lone one.
    if memchr_iter(b'\r', bytes).count() == lines { Ok(()) } else { Err(lone_cr_or_lf()) }
}

fn lone_cr_or_lf() -> MimeError {
    MimeError::new("it has a lone CR or LF")
}

fn check_length(line: &[u8]) -> Result<(), MimeError> {
    if line.len() > 998 { Err(MimeError::new("it has a line of more than 998 octets")) } else { Ok(()) }
}

/// A mail cannot be rendered. Permanent, with [`Scope::Message`].
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
        write!(f, "the mail cannot be rendered as a message: {}", self.what)
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

    fn in_doubt(&self) -> bool {
        false
    }

    /// A transport with an API of its own may support what this format does not.
    fn unsupported(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_line_ends_and_long_lines_are_refused() {
        let (longest, longer) = ("a".repeat(998), "a".repeat(999));
        for good in ["", "\r\n", "a\r\n\r\nb", &longest, &format!("{longest}\r\n{longest}\r\n")] {
            assert!(check_lines(good.as_bytes()).is_ok(), "refused {good:?}");
        }
        for bad in ["\r", "\n", "a\r\r\n", "a\n\r\n", "\r\n\n", "a\rb\r\n", "a\r\n\r", "a\r\nb\nc\r\n"] {
            assert!(check_lines(bad.as_bytes()).is_err(), "accepted {bad:?}");
        }
        for long in [&longer, &format!("a\r\n{longer}\r\n"), &format!("{longer}\r\n")] {
            assert!(check_lines(long.as_bytes()).is_err(), "accepted a line of 999 octets");
        }
    }
}
