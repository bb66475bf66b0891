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

/// Whose condition is it? What follows from a failure follows for everything in its scope, and for nothing else.
///
/// All three are meant to be matched: there is no fourth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This message: its content or its recipients. Other messages may well go through, so only this one is charged.
    Message,
    /// The sender: the From or envelope sender, or its domain. It is not verified, may not be used by this account, or is
    /// throttled. Other senders may well go through; other messages of this one would fare no better now, so they wait, and
    /// none of them is charged.
    Sender,
    /// The transport: the account, its credentials, quota or rate, the address it sends from, the network, the next hop itself.
    /// No message would fare better now, so all of them wait, and none is charged.
    Transport,
}

impl Scope {
    /// The word used in the database and in JSON: `message`, `sender`, `transport`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Message => "message",
            Scope::Sender => "sender",
            Scope::Transport => "transport",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The shared trait: every transport's own error type says what it means, and so becomes a [`Failure`] with `?`.
///
/// An author must answer three questions, since a wrong answer to any of them loses mail, sends it twice or stops others: can
/// trying again help, whose condition is it, and may the message have been accepted all the same.
///
/// ```
/// use postrider_transport::{Class, Classify, Failure, Scope};
///
/// #[derive(Debug)]
/// enum PagerError { WrongPin, LineBusy, HungUp }
///
/// impl std::fmt::Display for PagerError {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str(match self {
///             Self::WrongPin => "the pin was refused",
///             Self::LineBusy => "the line was busy",
///             Self::HungUp => "the line went dead after the last word",
///         })
///     }
/// }
/// impl std::error::Error for PagerError {}
///
/// impl Classify for PagerError {
///     fn class(&self) -> Class {
///         match self { Self::WrongPin => Class::Permanent, Self::LineBusy | Self::HungUp => Class::Transient }
///     }
///     fn scope(&self) -> Scope { Scope::Transport }
///     fn in_doubt(&self) -> bool { matches!(self, Self::HungUp) }
/// }
///
/// fn page() -> Result<(), Failure> { Err(PagerError::WrongPin)? }
/// let failure = page().unwrap_err();
/// assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Permanent, Scope::Transport, false));
/// ```
pub trait Classify: Error + Send + Sync + 'static {
    /// Whether trying again can help.
    fn class(&self) -> Class;

    /// Whose condition it is.
    fn scope(&self) -> Scope;

    /// Whether the message may have been accepted all the same: the request went out, and no complete answer came back. `false`
    /// is a promise that nobody got it.
    fn in_doubt(&self) -> bool;

    /// Whether class and scope are known from a rule with a source, or from this program itself. `false` says that they are the
    /// best guess about an answer that no rule knows: before a relay believes a permanent refusal of that kind, it waits for
    /// evidence.
    fn sure(&self) -> bool {
        true
    }

    /// How long the next hop asks to wait, where it says so. A lower bound of the wait: a relay waits at least as long as its own
    /// backoff, and at most a day.
    fn retry_after(&self) -> Option<Duration> {
        None
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
    scope: Scope,
    in_doubt: bool,
    sure: bool,
    unsupported: bool,
    retry_after: Option<Duration>,
    reply: Option<String>,
    refused: Vec<Refusal>,
    via: Option<String>,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    fn new(class: Class, scope: Scope, in_doubt: bool, source: Box<dyn Error + Send + Sync>) -> Self {
        Self(Box::new(Inner {
            class,
            scope,
            in_doubt,
            sure: true,
            unsupported: false,
            retry_after: None,
            reply: None,
            refused: Vec::new(),
            via: None,
            source,
        }))
    }

    /// Refused for good, and certainly not accepted. With [`Scope::Message`], this message can never be sent; with the other
    /// scopes, somebody has to mend something first, and no message is given up for it.
    ///
    /// For more, chain the `with_` methods.
    pub fn permanent(scope: Scope, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, scope, false, error.into())
    }

    /// Not now, perhaps later, and certainly not accepted. For more, chain the `with_` methods.
    pub fn transient(scope: Scope, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, scope, false, error.into())
    }

    /// In doubt: the request went out and no complete answer came back, so the message may have been accepted. Transient, and
    /// the transport's condition, whichever transport it is: a next hop that answers nobody must not be sent the whole backlog.
    /// The message is charged all the same, since only its budget bounds how many copies there can be.
    pub fn maybe_accepted(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, Scope::Transport, true, error.into())
    }

    /// Says whose condition it is, in place of what was said before.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    /// Says that no rule knows the next hop's answer: see [`Classify::sure`].
    #[must_use]
    pub fn unsure(mut self) -> Self {
        self.0.sure = false;
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

    /// Whose condition it is.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// Whether the message may have been accepted all the same.
    pub fn in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// Whether a rule, or the transport's author, stands behind class and scope: see [`Classify::sure`].
    pub fn is_sure(&self) -> bool {
        self.0.sure
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

    /// The next hop's answer, or else the error's text, without its [variable parts](crate::pattern): failures of different messages
    /// that say the same have the same pattern.
    pub fn pattern(&self) -> String {
        self.reply().map_or_else(|| crate::pattern(&self.0.source.to_string()), crate::pattern)
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
            scope: error.scope(),
            in_doubt: error.in_doubt(),
            sure: error.sure(),
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
            .field("scope", &self.0.scope)
            .field("in_doubt", &self.0.in_doubt)
            .field("sure", &self.0.sure)
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
/// Permanent, and the message's own condition as far as this transport goes; another transport may take it.
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

    fn scope(&self) -> Scope {
        Scope::Message
    }

    /// Nothing was sent.
    fn in_doubt(&self) -> bool {
        false
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
        let failure = Failure::permanent(Scope::Message, "550 <ada@example.com> unknown")
            .with_reply("550 <ada@example.com> unknown")
            .with_refused(vec![Refusal::new("ada@example.com", Class::Permanent, "550 <ada@example.com> unknown")]);
        let shown = format!("{failure} {failure:?}");
        assert!(!shown.contains("ada@"), "{shown}");
        assert_eq!(failure.reply(), Some("550 <ada@example.com> unknown"));
    }
}
