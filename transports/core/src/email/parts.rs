//! What a mail is made of besides its addresses and bodies.

use std::fmt;
use std::sync::Arc;

use crate::Address;

use super::EmailError;
use super::media_type::MediaType;

/// A file that goes with a mail, or a part that its HTML shows inline.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    file_name: String,
    content_type: String,
    content: Arc<[u8]>,
    content_id: Option<String>,
}

impl Attachment {
    /// A file to be saved by the reader.
    ///
    /// `content_type` is a media type such as `application/pdf`. What is attached as `message/*` or `multipart/*` is never encoded
    /// (RFC 2045 section 6.4): it arrives with CRLF at the ends of its lines, and transports refuse what cannot travel as lines of text.
    ///
    /// # Errors
    /// When the name is empty or holds a control character, or the media type is malformed.
    pub fn new(
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Arc<[u8]>>,
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

    /// A part that the HTML shows as `<img src="cid:CONTENT_ID">` (RFC 2392).
    ///
    /// # Errors
    /// As [`new`](Self::new), or when the content id is empty or holds anything but printable ASCII without `<`, `>` and
    /// spaces.
    pub fn inline(
        content_id: impl Into<String>,
        file_name: impl Into<String>,
        content_type: impl Into<String>,
        content: impl Into<Arc<[u8]>>,
    ) -> Result<Self, EmailError> {
        let content_id = content_id.into();
        let plain = |b: u8| b.is_ascii_graphic() && b != b'<' && b != b'>';
        if content_id.is_empty() || !content_id.bytes().all(plain) {
            return Err(EmailError::ContentId);
        }
        Ok(Self { content_id: Some(content_id), ..Self::new(file_name, content_type, content)? })
    }

    /// The same attachment with nothing in it.
    #[cfg(feature = "mime")]
    pub(crate) fn emptied(self) -> Self {
        Self { content: Arc::new([]), ..self }
    }

    /// The name under which the reader would save it.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Its media type.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The bytes.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The id under which the HTML refers to it; only inline parts have one.
    pub fn content_id(&self) -> Option<&str> {
        self.content_id.as_deref()
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.content_id.is_some() { "inline" } else { "attached" };
        write!(f, "Attachment({place}, {}, {} bytes)", self.content_type, self.content.len())
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

/// Headers that the mail's own fields write, or that identify it: a custom one would contradict them.
const OWN_HEADERS: [&str; 14] = [
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
    /// A header of any name that the mail's own fields do not already stand for.
    ///
    /// # Errors
    /// When the name holds anything but printable ASCII without a colon (RFC 5322 section 3.6.8) or is one of the mail's own,
    /// or when the value holds a control character other than a tab.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Result<Self, EmailError> {
        let (name, value) = (name.into(), value.into());
        // RFC 5322 section 2.1.1 bounds a line to 998 octets, and a name cannot be folded.
        if name.is_empty() || name.len() > 76 || !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            return Err(EmailError::HeaderName);
        }
        let lower = name.to_ascii_lowercase();
        if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("content-") {
            return Err(EmailError::OwnHeader { name });
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(EmailError::HeaderValue { name });
        }
        if !can_be_folded(&value) {
            return Err(EmailError::LongWord { field: name });
        }
        Ok(Self { name, value })
    }

    /// The name, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, not yet encoded for the wire.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({}, {} bytes)", self.name, self.value.len())
    }
}

/// Whether a header's value fits into lines of 998 octets (RFC 5322 section 2.1.1), which can be broken at spaces only. Words beyond
/// ASCII are encoded, and so can be broken anywhere.
fn can_be_folded(value: &str) -> bool {
    value.split([' ', '\t']).all(|word| word.len() <= 900 || !word.is_ascii())
}

/// How a reader leaves a mailing list: the `List-Unsubscribe` header (RFC 2369 section 3.2), and with one click where the
/// mail program offers it (RFC 8058).
#[derive(Clone, PartialEq, Eq)]
pub struct ListUnsubscribe {
    uris: Vec<String>,
    one_click: bool,
}

impl ListUnsubscribe {
    /// A link or a `mailto:` that the reader opens.
    ///
    /// # Errors
    /// When it is not an `http:`, `https:` or `mailto:` URI in printable ASCII.
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

    /// An address to which the mail program itself posts `List-Unsubscribe=One-Click`, without asking further. RFC 8058
    /// section 3.1 wants HTTPS here, and a DKIM signature over both headers.
    ///
    /// # Errors
    /// When it is not an `https:` URI in printable ASCII.
    pub fn one_click(uri: impl Into<String>) -> Result<Self, EmailError> {
        let unsubscribe = Self::uri(uri)?;
        if !starts_with_ignore_case(&unsubscribe.uris[0], "https://") {
            return Err(EmailError::ListUnsubscribe);
        }
        Ok(Self { one_click: true, ..unsubscribe })
    }

    /// Adds another way, for mail programs that cannot use the first.
    ///
    /// # Errors
    /// As [`uri`](Self::uri).
    pub fn or(mut self, uri: impl Into<String>) -> Result<Self, EmailError> {
        self.uris.extend(Self::uri(uri)?.uris);
        Ok(self)
    }

    /// The ways, in order of preference.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Whether the first of them takes the one-click post.
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
        write!(f, "ListUnsubscribe({} ways, one_click: {})", self.uris.len(), self.one_click)
    }
}

/// The sender in the envelope, to whom the next hop reports failures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReversePath {
    /// Nobody: for mail that itself reports or answers automatically, so that no loop can form (RFC 5321 section 4.5.5).
    Null,
    /// This address.
    Address(Address),
}
