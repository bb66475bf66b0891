//! Why a message was not sent.

use postrider_transport::{Failure, Refusal};

/// The message was not accepted, or its outcome is not known.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) failure: Failure,
    /// Whether the connection ended before the server replied to any command of this message.
    pub(crate) stale_connection: bool,
}

impl SendError {
    /// Adds the recipients that the server refused before.
    pub(crate) fn with_refused(mut self, refused: Vec<Refusal>) -> Self {
        self.failure = self.failure.with_refused(refused);
        self
    }
}

impl<F: Into<Failure>> From<F> for SendError {
    fn from(failure: F) -> Self {
        Self { failure: failure.into(), stale_connection: false }
    }
}
