//! The states of a delivery and of its recipients, the outcomes of an attempt, and the priority.

use std::fmt;
use std::str::FromStr;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use postrider_transport::Scope;

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Waits to be sent, now or later.
    Pending,
    /// A relay holds a lease on it and may be sending it.
    Leased,
    /// The next hop accepted it for at least one recipient.
    Sent,
    /// Given up, with a reason. [`resend`](crate::Outbox::resend) makes it pending again.
    Dead,
    /// It may have been accepted. It is held because its sender chose [`WhenInDoubt::Hold`].
    InDoubt,
    /// Cancelled before it was sent.
    Cancelled,
    /// A dead or held delivery that an operator closed without sending it.
    Dismissed,
}

impl State {
    /// All states.
    pub const ALL: [State; 7] =
        [State::Pending, State::Leased, State::Sent, State::Dead, State::InDoubt, State::Cancelled, State::Dismissed];

    /// Whether no relay will send it: neither pending nor leased.
    pub fn is_finished(self) -> bool {
        !matches!(self, State::Pending | State::Leased)
    }

    /// The name in the database, in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Leased => "leased",
            State::Sent => "sent",
            State::Dead => "dead",
            State::InDoubt => "in_doubt",
            State::Cancelled => "cancelled",
            State::Dismissed => "dismissed",
        }
    }
}

/// The outcome of one call of the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The next hop accepted the message for at least one recipient.
    Sent,
    /// A temporary failure: a later attempt may succeed.
    Transient,
    /// A permanent failure.
    Permanent,
    /// The next hop may have accepted the message: its answer is missing.
    InDoubt,
    /// The relay stopped without a result, for instance in a crash. The next hop may have accepted the message.
    Lost,
}

impl Outcome {
    /// The name in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Sent => "sent",
            Outcome::Transient => "transient",
            Outcome::Permanent => "permanent",
            Outcome::InDoubt => "in_doubt",
            Outcome::Lost => "lost",
        }
    }
}

/// The state of one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecipientState {
    /// The message is still to be sent to this recipient.
    Pending,
    /// The next hop accepted the message for this recipient. Later attempts of this cycle skip the recipient.
    Sent,
    /// The next hop refused this recipient.
    Refused,
    /// The next hop may have accepted the message for this recipient.
    InDoubt,
    /// Given up with the whole delivery.
    Dead,
    /// Cancelled with the whole delivery.
    Cancelled,
    /// Closed with the whole delivery by an operator.
    Dismissed,
}

impl RecipientState {
    /// The name in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RecipientState::Pending => "pending",
            RecipientState::Sent => "sent",
            RecipientState::Refused => "refused",
            RecipientState::InDoubt => "in_doubt",
            RecipientState::Dead => "dead",
            RecipientState::Cancelled => "cancelled",
            RecipientState::Dismissed => "dismissed",
        }
    }
}

/// The error of `from_str` of [`State`], [`Outcome`] and the like: the text is not the name of a known value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(pub(crate) String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a known value", self.0)
    }
}

impl std::error::Error for ParseError {}

macro_rules! impl_display_and_from_str {
    ($type:ident: $($variant:ident),*) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                [$($type::$variant),*]
                    .into_iter()
                    .find(|value| value.as_str() == text)
                    .ok_or_else(|| ParseError(text.to_owned()))
            }
        }
    };
}

impl_display_and_from_str!(State: Pending, Leased, Sent, Dead, InDoubt, Cancelled, Dismissed);
impl_display_and_from_str!(Outcome: Sent, Transient, Permanent, InDoubt, Lost);
impl_display_and_from_str!(RecipientState: Pending, Sent, Refused, InDoubt, Dead, Cancelled, Dismissed);
impl_display_and_from_str!(WhenInDoubt: Resend, Hold);

/// Parses the stored name of a scope.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn parse_scope(name: &str) -> Result<Scope, ParseError> {
    let scopes = [Scope::Message, Scope::Sender, Scope::Transport];
    let scope = scopes.into_iter().find(|scope| scope.as_str() == name);
    scope.ok_or_else(|| ParseError(name.to_owned()))
}

/// What to do with a message that may have been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenInDoubt {
    /// Send it again: delivery at least once. Receivers can recognise a second copy by its Message-ID.
    #[default]
    Resend,
    /// Do not send it again: delivery at most once. The delivery stays in [`State::InDoubt`] until somebody resends or dismisses it.
    Hold,
}

impl WhenInDoubt {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            WhenInDoubt::Resend => "resend",
            WhenInDoubt::Hold => "hold",
        }
    }
}

/// The priority of a delivery, from 0 to 9. Higher goes first, and the default is 5.
///
/// Deliveries of the same priority go in the order of their due times. A claim takes nothing of a lower priority while something of a
/// higher one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// For mail that people wait for, such as a login code: 8.
    pub const URGENT: Priority = Priority(8);
    /// The default: 5.
    pub const NORMAL: Priority = Priority(5);
    /// For mail that may wait behind all other mail, such as a newsletter: 2.
    pub const BULK: Priority = Priority(2);

    /// A priority from 0 to 9. `None` for a larger number.
    pub const fn new(level: u8) -> Option<Self> {
        if level <= 9 { Some(Self(level)) } else { None }
    }

    /// The priority as a number.
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}
