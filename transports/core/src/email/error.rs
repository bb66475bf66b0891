//! Why a mail is invalid.

use std::fmt;

use crate::AddressError;

/// A mail is invalid. `Display` says how to fix it, and does not quote the mail's text.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EmailError {
    /// An address is malformed.
    Address {
        /// The field with the address.
        field: &'static str,
        /// Why the address is malformed.
        source: AddressError,
    },
    /// `from` is missing.
    NoSender,
    /// `to`, `cc` and `bcc` are all missing.
    NoRecipient,
    /// Both bodies, text and HTML, are missing.
    NoBody,
    /// The subject has a line break or another control character.
    Subject,
    /// A header's name is empty, too long, or has a colon or a character that is not printable ASCII.
    HeaderName,
    /// A header's value has a line break or another control character.
    HeaderValue {
        /// The name of the header.
        name: String,
    },
    /// A custom header has a word that is too long for a line of a message.
    LongWord {
        /// The name of the header.
        name: String,
    },
    /// A custom header has the name of a header that is generated from the mail or the delivery.
    ReservedHeader {
        /// The name of the header.
        name: String,
    },
    /// A tag or template id is empty, longer than 128 characters, or not printable ASCII.
    Label,
    /// A metadata key or value is malformed.
    Metadata,
    /// An attachment's file name is empty or has a control character.
    FileName,
    /// An attachment's media type is malformed.
    ContentType {
        /// The malformed media type.
        given: String,
    },
    /// A stored attachment has neither valid Base64 nor the hash of a stored blob.
    AttachmentContent,
    /// A content id is empty or not printable ASCII.
    ContentId,
    /// An unsubscribe URI is malformed or has a scheme that is not allowed.
    ListUnsubscribe,
    /// The mail is larger than the limit.
    TooLarge {
        /// The estimated size as sent, in octets.
        size: usize,
        /// The limit, in octets.
        limit: usize,
    },
}

impl fmt::Display for EmailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { field, source } => write!(f, "{field}: {source}"),
            Self::NoSender => f.write_str("the mail has no sender: set from"),
            Self::NoRecipient => f.write_str("the mail has no recipient: add to, cc or bcc"),
            Self::NoBody => f.write_str("the mail has no body: set text or html"),
            Self::Subject => f.write_str("the subject has a line break or another control character"),
            Self::HeaderName => f.write_str("a header name must be 1 to 76 printable ASCII characters without a colon"),
            Self::HeaderValue { name } => {
                write!(f, "header {name}: the value has a line break or another control character")
            }
            Self::LongWord { name } => {
                write!(f, "header {name}: a word is longer than 900 octets and does not fit into a line")
            }
            Self::ReservedHeader { name } => {
                write!(f, "header {name} is generated and cannot be set as a custom header")
            }
            Self::Label => f.write_str("a tag or template id must be 1 to 128 printable ASCII characters"),
            Self::Metadata => f.write_str(
                "a metadata key must be 1 to 64 letters, digits, - or _, and its value must have no control characters",
            ),
            Self::FileName => f.write_str("an attachment needs a file name without control characters"),
            Self::ContentType { given } => write!(f, "{given:?} is not a media type"),
            Self::AttachmentContent => {
                f.write_str("an attachment needs its content as base64, or the hash of a stored blob")
            }
            Self::ContentId => f.write_str("a content id must be printable ASCII without spaces, < and >"),
            Self::ListUnsubscribe => f.write_str(
                "an unsubscribe URI must be https:, http: or mailto: in printable ASCII; for one click, https:",
            ),
            Self::TooLarge { size, limit } => write!(f, "the mail has about {size} octets, and the limit is {limit}"),
        }
    }
}

impl std::error::Error for EmailError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { source, .. } => Some(source),
            _ => None,
        }
    }
}
