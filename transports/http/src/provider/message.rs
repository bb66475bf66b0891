//! What is shared by the providers that take a whole message.

use postrider_transport::{Email, Failure, Mime, Outgoing, Unsupported};

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
