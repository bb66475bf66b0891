//! One recipient of a message.

use std::fmt;

use crate::{Address, mask_addresses};

/// One recipient of a message: for mail, the text of an [`Address`].
///
/// The domain is in ASCII, unless a program that inserts deliveries by SQL wrote it in another form.
///
/// `Debug` masks the text; only [`as_str`](Self::as_str) shows it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recipient(String);

impl Recipient {
    /// Creates a recipient from any text, unchecked.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Address> for Recipient {
    fn from(address: &Address) -> Self {
        Self::new(address.as_str())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_addresses(&self.0))
    }
}
