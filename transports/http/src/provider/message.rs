//! What is shared by the providers that take a whole message.

use postrider_transport::{Email, Failure, Mime, Outgoing, Unsupported};

use super::json::check_addresses;

/// What no message can hold, or these providers do not promise to carry (an address outside ASCII, RFC 6531).
pub(super) fn check(email: &Email) -> Result<(), Unsupported> {
    check_addresses(email)?;
    if email.sender().is_some_and(|sender| !sender.address().as_str().is_ascii()) {
        return Err(Unsupported::new("an address outside ASCII"));
    }
    let message = Mime::new().check(email).map_err(|error| Unsupported::new(format!("this mail: {error}")))?;
    in_ascii(&message)
}

/// An attached message travels as it is (RFC 2046 section 5.2.1). SparkPost takes it within JSON, and neither says that it carries 8bit.
fn in_ascii(message: &[u8]) -> Result<(), Unsupported> {
    if message.is_ascii() { Ok(()) } else { Err(Unsupported::new("an attached message outside ASCII")) }
}

/// The message as it travels. Tags and metadata have fields of their own beside it.
pub(super) fn render(outgoing: &Outgoing<Email>) -> Result<Vec<u8>, Failure> {
    if outgoing.recipients().is_empty() {
        return Err(Unsupported::new("a mail without recipients").into());
    }
    let message = Mime::new().without_labels().render(outgoing)?;
    in_ascii(&message)?;
    Ok(message)
}

/// How large the bodies and attachments are, in octets, before anything is encoded.
pub(super) fn octets(email: &Email) -> usize {
    let attached: usize = email.attachments().iter().map(|attachment| attachment.content().len()).sum();
    attached + email.text().map_or(0, str::len) + email.html().map_or(0, str::len)
}
