//! The questions that a failure answers.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Whether a retry can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A retry of the same message fails again.
    Permanent,
    /// A later attempt may succeed.
    Transient,
}

/// What a failure affects. The relay acts on everything in the scope, and on nothing else.
///
/// The enum is exhaustive, so that a `match` covers all scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This message: its content or its recipients.
    ///
    /// Other messages may succeed. The attempt counts against this message's budget.
    Message,
    /// The sender: the From address, the envelope sender, or their domain. Examples: not verified, not allowed for this account,
    /// throttled.
    ///
    /// Other senders may succeed. All messages of this sender wait, and no attempt counts.
    Sender,
    /// The transport: the account, its credentials, quota or rate limit, the network, or the next hop itself.
    ///
    /// No message can succeed now. All messages wait, and no attempt counts.
    Transport,
}

impl Scope {
    /// The name in the database and in JSON: `message`, `sender` or `transport`.
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

/// Converts a transport's error type into a [`Failure`](crate::Failure) with `?`.
///
/// Three methods have no default, because a wrong answer loses mail, sends it twice, or stops other mail.
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
    /// Whether a retry can succeed.
    fn class(&self) -> Class;

    /// What the failure affects.
    fn scope(&self) -> Scope;

    /// Whether the next hop may have accepted the message: the request was sent, and no complete answer arrived.
    ///
    /// `false` promises that no recipient gets the message from this attempt.
    fn in_doubt(&self) -> bool;

    /// Whether class and scope follow from a documented rule. Default: `true`.
    ///
    /// `false` means that no rule knows the answer, and class and scope are a guess. The relay then looks for evidence before it
    /// gives a message up.
    fn sure(&self) -> bool {
        true
    }

    /// How long the next hop asks to wait. Default: `None`, it does not ask.
    ///
    /// The relay waits at least this long and at least as long as its own backoff. It waits at most a day.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// Whether this transport or its next hop does not support the message, and another transport may. Default: `false`.
    ///
    /// `true` promises that nothing was sent.
    fn unsupported(&self) -> bool {
        false
    }

    /// The verbatim answer of the next hop. Default: `None`, there is none.
    ///
    /// The history stores it for the operator. It is never logged.
    fn reply(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// The message has a feature that this transport does not support, such as an inline image over an API that has none.
///
/// Permanent, with [`Scope::Message`]. Another transport may carry the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    what: Cow<'static, str>,
}

impl Unsupported {
    /// Creates the error. `what` is the feature, as a noun: `"inline images"`.
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

    fn in_doubt(&self) -> bool {
        false
    }

    fn unsupported(&self) -> bool {
        true
    }
}
