//! Attachments, custom headers, unsubscribing and the envelope sender.

use std::fmt;

use crate::{Address, Blob};

use super::EmailError;
use super::media_type::MediaType;

/// An attached file, or a part that the HTML shows inline.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    file_name: String,
    content_type: String,
    content: Blob,
    content_id: Option<String>,
}

impl Attachment {
    /// Creates an attached file. `content_type` is a media type such as `application/pdf`.
    ///
    /// An attachment of type `message/*` or `multipart/*` is never encoded (RFC 2045 section 6.4). It arrives with CRLF at its line ends,
    /// and transports refuse content that is not lines of text.
    ///
    /// # Errors
    /// If the file name is empty or has a control character, or the media type is malformed.
    pub fn new(
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Blob>,
    ) -> Result<Self, EmailError> {
        let (file_name, content_type) = (file_name.into(), content_type.into());
        if file_name.is_empty() || file_name.chars().any(char::is_control) {
            return Err(EmailError::FileName);
        }
        if !is_media_type(&content_type) {
            return Err(EmailError::ContentType { given: content_type });
        }
        Ok(Self { file_name, content_type, content: content.into(), content_id: None })
    }

    /// Creates a part that the HTML shows as `<img src="cid:CONTENT_ID">` (RFC 2392).
    ///
    /// # Errors
    /// As [`new`](Self::new), or if the content id is not printable ASCII without `<`, `>` and spaces.
    pub fn inline(
        content_id: impl Into<String>,
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Blob>,
    ) -> Result<Self, EmailError> {
        let content_id = content_id.into();
        let plain = |b: u8| b.is_ascii_graphic() && b != b'<' && b != b'>';
        if content_id.is_empty() || !content_id.bytes().all(plain) {
            return Err(EmailError::ContentId);
        }
        Ok(Self { content_id: Some(content_id), ..Self::new(file_name, content_type, content)? })
    }

    /// Removes the content.
    #[cfg(feature = "mime")]
    pub(crate) fn emptied(self) -> Self {
        Self { content: Blob::new([]), ..self }
    }

    /// The file name.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The media type.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The content.
    pub fn content(&self) -> &[u8] {
        self.content.bytes()
    }

    pub(super) fn shared_content(&self) -> &Blob {
        &self.content
    }

    /// The content id by which the HTML refers to it. `None` if it is not an inline part.
    pub fn content_id(&self) -> Option<&str> {
        self.content_id.as_deref()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.content_id.is_some() { "inline" } else { "attached" };
        write!(f, "Attachment({place}, {}, {} bytes)", self.content_type, self.content().len())
    }
}

/// `type/subtype` with optional parameters (RFC 2045 section 5.1), in printable ASCII.
fn is_media_type(text: &str) -> bool {
    text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) && MediaType::parse(text).is_some()
}

/// A custom header.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: String,
    value: String,
}

/// Headers that are generated from the mail or the delivery. A custom one would contradict them.
const GENERATED_HEADERS: [&str; 14] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "return-path",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "dkim-signature",
];

impl Header {
    /// Creates a header with any name that is not generated from the mail or the delivery.
    ///
    /// # Errors
    /// If the name is not 1 to 76 characters of printable ASCII without a colon (RFC 5322 section 3.6.8), or is that of a generated
    /// header. If the value has a control character other than a tab, or a word that is too long for a line.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Result<Self, EmailError> {
        let (name, value) = (name.into(), value.into());
        // RFC 5322 section 2.1.1 limits a line to 998 octets, and a name cannot be folded.
        if name.is_empty() || name.len() > 76 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return Err(EmailError::HeaderName);
        }
        let lower = name.to_ascii_lowercase();
        if GENERATED_HEADERS.contains(&lower.as_str()) || lower.starts_with("content-") {
            return Err(EmailError::ReservedHeader { name });
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(EmailError::HeaderValue { name });
        }
        if !can_be_folded(&value) {
            return Err(EmailError::LongWord { name });
        }
        Ok(Self { name, value })
    }

    /// The name, in the case that was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, not encoded.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({}, {} bytes)", self.name, self.value.len())
    }
}

/// Whether a header's value can be folded to lines of 998 octets (RFC 5322 section 2.1.1). ASCII is folded at spaces only. Other words
/// are encoded, and can be folded anywhere.
fn can_be_folded(value: &str) -> bool {
    value.split([' ', '\t']).all(|word| word.len() <= 900 || !word.is_ascii())
}

/// How to unsubscribe from a mailing list: the header `List-Unsubscribe` (RFC 2369 section 3.2), with or without one click (RFC 8058).
#[derive(Clone, PartialEq, Eq)]
pub struct ListUnsubscribe {
    uris: Vec<String>,
    one_click: bool,
}

impl ListUnsubscribe {
    /// Creates a header with a link or a `mailto:` URI that the reader opens.
    ///
    /// # Errors
    /// If it is not an `http:`, `https:` or `mailto:` URI in printable ASCII.
    pub fn uri(uri: impl Into<String>) -> Result<Self, EmailError> {
        let uri = uri.into();
        let clean = uri.bytes().all(|b| b.is_ascii_graphic() && !b"<>,".contains(&b));
        let clean = clean && can_be_folded(&uri);
        let scheme = ["https://", "http://", "mailto:"].iter().any(|scheme| starts_with_ignore_case(&uri, scheme));
        if !clean || !scheme {
            return Err(EmailError::ListUnsubscribe);
        }
        Ok(Self { uris: vec![uri], one_click: false })
    }

    /// Creates a header with a URI to which the mail program posts `List-Unsubscribe=One-Click`.
    ///
    /// RFC 8058 section 3.1 requires HTTPS, and a DKIM signature over both headers.
    ///
    /// # Errors
    /// If it is not an `https:` URI in printable ASCII.
    pub fn one_click(uri: impl Into<String>) -> Result<Self, EmailError> {
        let unsubscribe = Self::uri(uri)?;
        if !starts_with_ignore_case(&unsubscribe.uris[0], "https://") {
            return Err(EmailError::ListUnsubscribe);
        }
        Ok(Self { one_click: true, ..unsubscribe })
    }

    /// Adds another URI, for mail programs that cannot use the first.
    ///
    /// # Errors
    /// As [`uri`](Self::uri).
    pub fn or(mut self, uri: impl Into<String>) -> Result<Self, EmailError> {
        self.uris.extend(Self::uri(uri)?.uris);
        Ok(self)
    }

    /// The URIs, in order of preference.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Whether the first URI accepts the one-click post.
    pub fn is_one_click(&self) -> bool {
        self.one_click
    }

    /// The value of the `List-Unsubscribe` header.
    pub fn header_value(&self) -> String {
        self.uris.iter().map(|uri| format!("<{uri}>")).collect::<Vec<_>>().join(", ")
    }
}

fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl fmt::Debug for ListUnsubscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListUnsubscribe({} URIs, one_click: {})", self.uris.len(), self.one_click)
    }
}

/// The envelope sender, which receives bounces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReversePath {
    /// Nobody receives bounces. For automatic reports and replies, to prevent loops (RFC 5321 section 4.5.5).
    Null,
    /// This address receives bounces.
    Address(Address),
}
