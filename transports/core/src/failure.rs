//! What went wrong, and what it means.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{Refusal, mask_addresses};

/// Will the same call ever succeed?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Never, as things are: do not try again.
    Permanent,
    /// It may, later.
    Transient,
}

/// Whose fault is it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// This message, or its recipients. Other messages may well go through.
    Message,
    /// The transport: its credentials, its configuration, its network, the server behind it. No other message would fare
    /// better now, so no message is charged for it.
    Transport,
}

/// The shared trait: every transport's own error type says what it means, and so becomes a [`Failure`] with `?`.
///
/// ```
/// use postrider_transport::{Blame, Class, Classify, Failure};
///
/// #[derive(Debug)]
/// enum PagerError { WrongPin, LineBusy }
///
/// impl std::fmt::Display for PagerError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str(match self { Self::WrongPin => "the pin was refused", Self::LineBusy => "the line was busy" })
///     }
/// }
/// impl std::error::Error for PagerError {}
///
/// impl Classify for PagerError {
///     fn class(&self) -> Class {
///         match self { Self::WrongPin => Class::Permanent, Self::LineBusy => Class::Transient }
///     }
///     fn blame(&self) -> Blame { Blame::Transport }
/// }
///
/// fn page() -> Result<(), Failure> { Err(PagerError::WrongPin)? }
/// let failure = page().unwrap_err();
/// assert_eq!((failure.class(), failure.blame(), failure.in_doubt()), (Class::Permanent, Blame::Transport, false));
/// ```
pub trait Classify: Error + Send + Sync + 'static {
    /// Whether trying again can help.
    fn class(&self) -> Class;

    /// Whose fault it is. The message's, unless said otherwise.
    fn blame(&self) -> Blame {
        Blame::Message
    }

    /// How long the next hop asks to wait, where it says so. A relay waits a day at the most.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Whether the message may have been accepted all the same: the request went out, and no complete answer came back.
    fn in_doubt(&self) -> bool {
        false
    }

    /// Whether it is this transport that cannot express the message, or this next hop that does not take its kind, so that
    /// another may well carry it. Nothing was sent.
    fn unsupported(&self) -> bool {
        false
    }

    /// What the next hop answered, to the letter. Kept in the history for the operator; never logged.
    fn reply(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// One failed attempt: the transport's own error, with what it means.
///
/// `Display` is the error's text, with mail addresses masked. `Debug` shows the classification and that same text.
pub struct Failure(Box<Inner>);

struct Inner {
    class: Class,
    blame: Blame,
    in_doubt: bool,
    unsupported: bool,
    retry_after: Option<Duration>,
    reply: Option<String>,
    refused: Vec<Refusal>,
    via: Option<String>,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    fn new(class: Class, source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Box::new(Inner {
            class,
            blame: Blame::Message,
            in_doubt: false,
            unsupported: false,
            retry_after: None,
            reply: None,
            refused: Vec::new(),
            via: None,
            source,
        }))
    }

    /// This message can never be sent, and it is its own fault. For more, chain the `with_` methods.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, error.into())
    }

    /// This message may go through later. For more, chain the `with_` methods.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, error.into())
    }

    /// Says whose fault it is.
    #[must_use]
    pub fn with_blame(mut self, blame: Blame) -> Self {
        self.0.blame = blame;
        self
    }

    /// Says that the message may have been accepted.
    #[must_use]
    pub fn with_doubt(mut self) -> Self {
        self.0.in_doubt = true;
        self
    }

    /// Says how long to wait before the next attempt.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps what the next hop answered.
    #[must_use]
    pub fn with_reply(mut self, reply: impl Into<String>) -> Self {
        self.0.reply = Some(reply.into());
        self
    }

    /// Says which recipients were refused, each with its own class. Recipients not named share the failure's own class.
    #[must_use]
    pub fn with_refused(mut self, refused: Vec<Refusal>) -> Self {
        self.0.refused = refused;
        self
    }

    /// Names the transport that the message went to, where one among several was chosen.
    #[must_use]
    pub fn with_via(mut self, transport: impl Into<String>) -> Self {
        self.0.via = Some(transport.into());
        self
    }

    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.0.blame
    }

    /// Whether the message may have been accepted all the same.
    pub fn in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// Whether another transport may well carry the message, since this one cannot express it: see
    /// [`Classify::unsupported`].
    pub fn is_unsupported(&self) -> bool {
        self.0.unsupported
    }

    /// How long the next hop asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What the next hop answered, to the letter.
    pub fn reply(&self) -> Option<&str> {
        self.0.reply.as_deref()
    }

    /// The recipients that were refused one by one.
    pub fn refused(&self) -> &[Refusal] {
        &self.0.refused
    }

    /// The transport that the message went to, where one among several was chosen: see [`Receipt::via`](crate::Receipt::via).
    /// Several, divided by commas, if each of them failed.
    pub fn via(&self) -> Option<&str> {
        self.0.via.as_deref()
    }

    /// The transport's own error, when it is an `E`.
    ///
    /// ```
    /// use postrider_transport::{Failure, Unsupported};
    ///
    /// let failure = Failure::from(Unsupported::new("inline images"));
    /// assert!(failure.downcast_ref::<Unsupported>().is_some());
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.source.downcast_ref()
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(Inner {
            class: error.class(),
            blame: error.blame(),
            in_doubt: error.in_doubt(),
            unsupported: error.unsupported(),
            retry_after: error.retry_after(),
            reply: error.reply().map(Cow::into_owned),
            refused: Vec::new(),
            via: None,
            source: Box::new(error),
        }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_addresses(&self.0.source.to_string()))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("class", &self.0.class)
            .field("blame", &self.0.blame)
            .field("in_doubt", &self.0.in_doubt)
            .field("retry_after", &self.0.retry_after)
            .field("unsupported", &self.0.unsupported)
            .field("refused", &self.0.refused)
            .field("via", &self.0.via)
            .field("error", &self.to_string())
            .finish()
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.source()
    }
}

/// The transport cannot express something that the message asks for, such as an inline image over an API that has none.
/// Permanent, and the message's fault as far as this transport goes; another transport may take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    what: Cow<'static, str>,
}

impl Unsupported {
    /// Names what cannot be expressed, as a noun: `"inline images"`.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into() }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this transport does not support {}", self.what)
    }
}

impl Error for Unsupported {}

impl Classify for Unsupported {
    fn class(&self) -> Class {
        Class::Permanent
    }

    fn unsupported(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_display_nor_debug_shows_an_address() {
        let failure = Failure::permanent("550 <ada@example.com> unknown")
            .with_reply("550 <ada@example.com> unknown")
            .with_refused(vec![Refusal::new("ada@example.com", Class::Permanent, "550 <ada@example.com> unknown")]);
        let shown = format!("{failure} {failure:?}");
        assert!(!shown.contains("ada@"), "{shown}");
        assert_eq!(failure.reply(), Some("550 <ada@example.com> unknown"));
    }
}
