//! What is shared by the providers that take a whole message.

use std::time::SystemTime;

use postrider_transport::{DeliveryId, Email, Failure, Mime, Outgoing, Unsupported};

use super::json::check_addresses;

/// Above this, in octets, a mail is too large to write it out only to see whether it can be done. Attachments are encoded, so that what
/// they hold is never the reason that it cannot.
const TRIED: usize = 256 * 1024;

/// What no message can hold, or these providers do not promise to carry (an address outside ASCII, RFC 6531).
pub(super) fn check(email: &Email) -> Result<(), Unsupported> {
    check_addresses(email)?;
    if email.sender().is_some_and(|sender| !sender.address().as_str().is_ascii()) {
        return Err(Unsupported::new("an address outside ASCII"));
    }
    if octets(email) <= TRIED {
        Mime::new()
            .render(&Outgoing::new(DeliveryId::new(), SystemTime::UNIX_EPOCH, email.clone()))
            .map_err(|error| Unsupported::new(format!("this mail: {error}")))?;
    }
    Ok(())
}

/// The message as it travels. Tags and metadata have fields of their own beside it.
pub(super) fn render(outgoing: &Outgoing<Email>) -> Result<Vec<u8>, Failure> {
    if outgoing.recipients().is_empty() {
        return Err(Unsupported::new("a mail without recipients").into());
    }
    Ok(Mime::new().without_labels().render(outgoing)?)
}

/// How large the bodies and attachments are, in octets, before anything is encoded.
pub(super) fn octets(email: &Email) -> usize {
    let attached: usize = email.attachments().iter().map(|attachment| attachment.content().len()).sum();
    attached + email.text().map_or(0, str::len) + email.html().map_or(0, str::len)
}
