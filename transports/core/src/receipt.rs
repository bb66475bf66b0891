//! What an accepted message comes back with.

use std::fmt;

use crate::{Class, mask_addresses};

/// Whom a message is for: for mail, a text that is an [`Address`](crate::Address). Its domain is in ASCII, unless a program that writes
/// deliveries in plain SQL has written it otherwise.
///
/// `Debug` masks it; [`as_str`](Self::as_str) is the one way to read it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recipient(String);

impl Recipient {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_addresses(&self.0))
    }
}

/// The next hop accepted the message, for at least one recipient. From here on it answers for it.
///
/// `Debug` masks the addresses that the answer may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The name by which the next hop knows the message, to ask it or its support about it.
    pub provider_id: Option<String>,
    /// What the next hop answered, to the letter.
    pub reply: Option<String>,
    /// The recipients that were not accepted. Who is not named here was.
    pub refused: Vec<Refusal>,
    /// Which transport carried the message, where one among several was chosen: its name. If that chose among others in turn,
    /// theirs follows after a slash: `round-robin/smtp`. The history keeps it behind the name of the transport that chose.
    pub via: Option<String>,
}

impl Receipt {
    /// Everyone accepted, nothing else known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next hop's name for the message.
    #[must_use]
    pub fn with_provider_id(mut self, id: impl Into<String>) -> Self {
        self.provider_id = Some(id.into());
        self
    }

    /// Adds the next hop's answer.
    #[must_use]
    pub fn with_reply(mut self, reply: impl Into<String>) -> Self {
        self.reply = Some(reply.into());
        self
    }

    /// Names the transport that carried the message, where one among several was chosen.
    #[must_use]
    pub fn with_via(mut self, transport: impl Into<String>) -> Self {
        self.via = Some(transport.into());
        self
    }

    /// Adds the recipients that were refused.
    #[must_use]
    pub fn with_refused(mut self, refused: Vec<Refusal>) -> Self {
        self.refused = refused;
        self
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("provider_id", &self.provider_id)
            .field("reply", &self.reply.as_deref().map(mask_addresses))
            .field("refused", &self.refused)
            .field("via", &self.via)
            .finish()
    }
}

/// One recipient that the next hop did not take.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Who.
    pub recipient: Recipient,
    /// For good, or for now: a transient refusal is retried, alone.
    pub class: Class,
    /// Whether a rule, or the transport's author, stands behind the class: see [`Classify::sure`](crate::Classify::sure).
    pub sure: bool,
    /// What the next hop answered for this recipient, to the letter.
    pub reply: String,
}

impl Refusal {
    /// A recipient with the answer it got.
    pub fn new(recipient: impl Into<String>, class: Class, reply: impl Into<String>) -> Self {
        Self { recipient: Recipient::new(recipient), class, sure: true, reply: reply.into() }
    }

    /// Says that no rule knows the answer, so that it is not believed at first sight.
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.sure = false;
        self
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("recipient", &self.recipient)
            .field("class", &self.class)
            .field("sure", &self.sure)
            .field("reply", &mask_addresses(&self.reply))
            .finish()
    }
}
