//! Forms that several providers share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::Mailbox;
use serde::Serialize;

/// A mailbox as `{"email": …, "name": …}`.
#[derive(Serialize)]
pub(super) struct Person<'a> {
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> From<&'a Mailbox> for Person<'a> {
    fn from(mailbox: &'a Mailbox) -> Self {
        Self { email: mailbox.address().as_str(), name: mailbox.name() }
    }
}

/// Content for a text, in the one form that all of them take.
pub(super) fn base64(content: &[u8]) -> String {
    STANDARD.encode(content)
}
