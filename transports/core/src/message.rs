//! What can be put into an outbox.

use std::error::Error;
use std::fmt;

use crate::{Class, Classify, Recipient, Scope};

/// Something that an outbox can keep and a transport can carry. [`Email`](crate::Email) is one; any type of your own may be
/// another.
///
/// What [`encode`](Self::encode) writes, [`decode`](Self::decode) of this and of every later version of the type must
/// read: a delivery may lie in the database while the program is upgraded.
pub trait Message: Clone + Send + Sync + 'static {
    /// Writes the message down.
    ///
    /// # Errors
    /// When the message has no stored form. It is then not enqueued.
    fn encode(&self) -> Result<Encoded, CodecError>;

    /// Reads a stored message back.
    ///
    /// # Errors
    /// When the text is not of a format known here, or damaged. Such a delivery ends as a dead letter.
    fn decode(encoded: &Encoded) -> Result<Self, CodecError>;

    /// Everyone the message is for, each once. Never empty.
    fn recipients(&self) -> Vec<Recipient>;

    /// Looks at a recipient that was read back from the database, before a transport is given it. Another program may have
    /// written it there. By default, any text will do.
    ///
    /// # Errors
    /// When nobody can be reached by such a text. The delivery ends as a dead letter.
    fn check_recipient(recipient: &Recipient) -> Result<(), CodecError> {
        let _ = recipient;
        Ok(())
    }

    /// Who sends it: the name by which failures of the sender's condition ([`Scope::Sender`]) are kept apart, for mail the From
    /// address. Messages of the same sender wait together while the next hop refuses it. `None`, the default, leaves such a
    /// message to wait for itself.
    fn sender(&self) -> Option<&str> {
        None
    }

    /// The name of what the message was made from, such as `welcome`. It is stored, listed and logged, so it must not be
    /// secret.
    fn template_id(&self) -> Option<&str> {
        None
    }
}

/// A message as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The name and version of the format, such as `email/1`.
    pub format: String,
    /// The message in that format. Without NUL (U+0000), for which PostgreSQL has no place: a store may refuse such a body.
    pub body: String,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({}, {} bytes)", self.format, self.body.len())
    }
}

/// A message could not be written down, or not be read back.
///
/// It keeps no error underneath: what a parser says of a message usually quotes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    text: String,
    unknown_format: bool,
}

impl CodecError {
    /// Says what is wrong. The text is stored and logged: leave the message's own words out of it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), unknown_format: false }
    }

    /// The stored format is not known here. During an upgrade a newer program may know it, so such a delivery is tried again
    /// before it is given up.
    pub fn unknown_format(format: &str) -> Self {
        Self { unknown_format: true, ..Self::new(format!("the stored format {format:?} is not known here")) }
    }

    /// Whether the text is of a format that is not known here, rather than damaged.
    pub fn is_unknown_format(&self) -> bool {
        self.unknown_format
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for CodecError {}

impl Classify for CodecError {
    /// A format that is not known here may be known after an upgrade; a damaged text stays so.
    fn class(&self) -> Class {
        if self.unknown_format { Class::Transient } else { Class::Permanent }
    }

    fn scope(&self) -> Scope {
        Scope::Message
    }

    /// Nothing was sent.
    fn in_doubt(&self) -> bool {
        false
    }
}
