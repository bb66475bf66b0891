//! Messages and their stored form.

use std::error::Error;
use std::fmt;

use crate::{Blob, Class, Classify, Recipient, Scope};

/// A message that an outbox can store and a transport can carry: [`Email`](crate::Email), or a type of your own.
///
/// [`decode`](Self::decode) must read what [`encode`](Self::encode) of this and every earlier version wrote, because deliveries stay in
/// the database during an upgrade.
pub trait Message: Clone + Send + Sync + 'static {
    /// Encodes the message for the database.
    ///
    /// # Errors
    /// If the message cannot be encoded. It is not enqueued.
    fn encode(&self) -> Result<Encoded, CodecError>;

    /// Decodes a stored message.
    ///
    /// # Errors
    /// If the format is unknown or the body is malformed. The delivery becomes a dead letter, after retries if the
    /// [format is unknown](CodecError::unknown_format).
    fn decode(encoded: &Encoded) -> Result<Self, CodecError>;

    /// The recipients, each once. Never empty.
    fn recipients(&self) -> Vec<Recipient>;

    /// Checks a recipient from the database, where another program may have written it. Default: any text is valid.
    ///
    /// # Errors
    /// If the recipient is invalid. The delivery becomes a dead letter.
    fn check_recipient(recipient: &Recipient) -> Result<(), CodecError> {
        let _ = recipient;
        Ok(())
    }

    /// The sender: for mail, the From address. After a failure with [`Scope::Sender`], all messages of the sender wait.
    ///
    /// Default: `None`, each message waits separately.
    fn sender(&self) -> Option<&str> {
        None
    }

    /// The subject and the tags, for lists and searches. They are stored apart from the message and stay when it is deleted.
    ///
    /// Default: no subject and no tags.
    fn summary(&self) -> MessageSummary {
        MessageSummary::default()
    }

    /// The id of the template that the message was made from, such as `welcome`. Default: `None`.
    ///
    /// It is stored, listed and logged, so it must not be secret.
    fn template_id(&self) -> Option<&str> {
        None
    }
}

/// A message in its stored form.
///
/// [`Message::decode`] needs nothing else. Lists and searches use the [`MessageSummary`] instead.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// Name and version of the format: `email/1`.
    pub format: String,
    /// The message in that format, without the parts in the other fields. A store may refuse a body with NUL (U+0000), which PostgreSQL
    /// cannot store.
    pub body: String,
    /// The plain text, which a store keeps unescaped in a column of its own. `None` if the message has none, or has it in the body. A text
    /// with NUL belongs in the body, since a store may refuse it here.
    pub text: Option<String>,
    /// The HTML. The same rules as for `text` apply.
    pub html: Option<String>,
    /// Large parts, such as attachments, without duplicates. The body refers to them by hash, and a store keeps each once for all messages.
    pub blobs: Vec<Blob>,
}

impl Encoded {
    /// Creates a stored form from a format, such as `email/1`, and a body in that format.
    pub fn new(format: impl Into<String>, body: impl Into<String>) -> Self {
        Self { format: format.into(), body: body.into(), text: None, html: None, blobs: Vec::new() }
    }

    /// The size in bytes: body, text, HTML and blobs.
    pub fn size(&self) -> usize {
        let texts = [&self.text, &self.html].into_iter().flatten().map(String::len);
        self.body.len() + texts.sum::<usize>() + self.blobs.iter().map(|blob| blob.bytes().len()).sum::<usize>()
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({}, {} bytes)", self.format, self.size())
    }
}

/// The subject and the tags of a message, for lists and searches. They stay when the message is deleted.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageSummary {
    /// The subject. `None` if there is none.
    pub subject: Option<String>,
    /// The tags.
    pub tags: Vec<String>,
}

impl MessageSummary {
    /// An empty summary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the subject.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the tags.
    #[must_use]
    pub fn with_tags(mut self, tags: Vec<String>) -> Self {
        self.tags = tags;
        self
    }
}

/// The subject may name a person, so it is not shown.
impl fmt::Debug for MessageSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageSummary").field("tags", &self.tags).finish_non_exhaustive()
    }
}

/// A message cannot be encoded or decoded.
///
/// It has no source, because the error of a parser usually quotes the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    text: String,
    unknown_format: bool,
}

impl CodecError {
    /// Creates an error. The text is stored and logged, so it must not quote the message.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), unknown_format: false }
    }

    /// The stored format is unknown.
    ///
    /// The delivery is retried before it becomes a dead letter, because a newer version of the program may know the format.
    pub fn unknown_format(format: &str) -> Self {
        Self { unknown_format: true, ..Self::new(format!("the stored format {format:?} is unknown")) }
    }

    /// Whether the stored format is unknown.
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
    /// An unknown format may be known after an upgrade. A malformed message stays malformed.
    fn class(&self) -> Class {
        if self.unknown_format { Class::Transient } else { Class::Permanent }
    }

    fn scope(&self) -> Scope {
        Scope::Message
    }

    fn in_doubt(&self) -> bool {
        false
    }
}
