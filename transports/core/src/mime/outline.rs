//! The parts of a message, for people.

/// A part of a message, as [`Mime::parts`](super::Mime::parts) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MimePart {
    /// The number of multiparts around it.
    pub depth: usize,
    /// The media type without parameters, such as `text/plain`.
    pub content_type: String,
    /// The transfer encoding: `7bit`, `8bit`, `quoted-printable` or `base64`.
    pub encoding: &'static str,
    /// The file name of an attachment. `None` for other parts.
    pub file_name: Option<String>,
    /// The Content-ID of an inline attachment, without angle brackets. `None` for other parts.
    pub content_id: Option<String>,
    /// The size of the content in octets, before the transfer encoding. `None` for a multipart.
    pub octets: Option<usize>,
}
