//! Messages for the providers that accept a whole MIME message.

use postrider_transport::{Email, Failure, Mime, Outgoing, Unsupported};

use super::recipients::check_ascii_addresses;

/// Checks that a mail has a MIME form, and only ASCII addresses, since these providers do not document RFC 6531.
pub(super) fn check(email: &Email) -> Result<(), Unsupported> {
    check_ascii_addresses(email)?;
    if email.sender().is_some_and(|sender| !sender.address().as_str().is_ascii()) {
        return Err(Unsupported::new("an address outside ASCII"));
    }
    let message = Mime::new().check(email).map_err(|error| Unsupported::new(format!("this mail: {error}")))?;
    check_ascii(&message)
}

/// Checks for an attached message outside ASCII, the only part that is not encoded (RFC 2046 section 5.2.1).
///
/// SparkPost accepts messages within JSON, and neither provider documents 8bit.
fn check_ascii(message: &[u8]) -> Result<(), Unsupported> {
    if message.is_ascii() { Ok(()) } else { Err(Unsupported::new("an attached message outside ASCII")) }
}

/// Renders the message, without tags and metadata, which have fields of their own.
pub(super) fn render(outgoing: &Outgoing<Email>) -> Result<Vec<u8>, Failure> {
    if outgoing.recipients().is_empty() {
        return Err(Unsupported::new("a mail without recipients").into());
    }
    let message = Mime::new().without_labels().render(outgoing)?;
    check_ascii(&message)?;
    Ok(message)
}

/// Size of bodies and attachments, in octets, before encoding.
pub(super) fn content_size(email: &Email) -> usize {
    let attached: usize = email.attachments().iter().map(|attachment| attachment.content().len()).sum();
    attached + email.text().map_or(0, str::len) + email.html().map_or(0, str::len)
}
