//! The words for how it stands with a delivery.

use std::fmt;
use std::str::FromStr;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use postrider_transport::Scope;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// To be sent, now or later.
    Pending,
    /// A relay holds the right to send it.
    Leased,
    /// The next hop accepted it, for one recipient at least.
    Sent,
    /// Given up, with a reason. [`resend`](crate::Outbox::resend) takes it up again.
    Dead,
    /// It may have been accepted, nobody knows, and its sender asked not to risk a second copy.
    InDoubt,
    /// Taken back before it was sent.
    Cancelled,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Pending, State::Leased, State::Sent, State::Dead, State::InDoubt, State::Cancelled];

    /// The word used in the database, in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Leased => "leased",
            State::Sent => "sent",
            State::Dead => "dead",
            State::InDoubt => "in_doubt",
            State::Cancelled => "cancelled",
        }
    }
}

/// What one call of the transport came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Accepted, for one recipient at least.
    Sent,
    /// Not now.
    Transient,
    /// Never.
    Permanent,
    /// Nobody knows.
    InDoubt,
    /// The relay vanished with the delivery in its hands; whether it was sent, nobody knows.
    Lost,
}

impl Outcome {
    /// The word used in the database and in JSON.
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

/// How it stands with one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecipientState {
    /// Still to be mailed.
    Pending,
    /// The next hop took the message for this recipient, who is never mailed again in this cycle.
    Sent,
    /// The next hop refused this recipient.
    Refused,
    /// The next hop may have taken the message for this recipient.
    InDoubt,
    /// Given up with the whole delivery.
    Dead,
    /// Taken back with the whole delivery.
    Cancelled,
}

impl RecipientState {
    /// The word used in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RecipientState::Pending => "pending",
            RecipientState::Sent => "sent",
            RecipientState::Refused => "refused",
            RecipientState::InDoubt => "in_doubt",
            RecipientState::Dead => "dead",
            RecipientState::Cancelled => "cancelled",
        }
    }
}

/// A stored word that is none of those known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(pub(crate) String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a known word here", self.0)
    }
}

impl std::error::Error for ParseError {}

macro_rules! words {
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
                    .find(|word| word.as_str() == text)
                    .ok_or_else(|| ParseError(text.to_owned()))
            }
        }
    };
}

words!(State: Pending, Leased, Sent, Dead, InDoubt, Cancelled);
words!(Outcome: Sent, Transient, Permanent, InDoubt, Lost);
words!(RecipientState: Pending, Sent, Refused, InDoubt, Dead, Cancelled);
words!(WhenInDoubt: Resend, Hold);

/// The scope that a word stands for.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn scope_of(word: &str) -> Result<Scope, ParseError> {
    let scopes = [Scope::Message, Scope::Sender, Scope::Transport];
    let scope = scopes.into_iter().find(|scope| scope.as_str() == word);
    scope.ok_or_else(|| ParseError(word.to_owned()))
}

/// What to do when a message may have been accepted and nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenInDoubt {
    /// Send it again: at least once. Receivers drop a second copy by its Message-ID, if they look.
    #[default]
    Resend,
    /// Do not: at most once. The delivery waits in [`State::InDoubt`] until somebody decides.
    Hold,
}

impl WhenInDoubt {
    /// The word used in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            WhenInDoubt::Resend => "resend",
            WhenInDoubt::Hold => "hold",
        }
    }
}

/// How urgent a delivery is: 0 to 9, higher first, 5 unless said otherwise. Among equals, the one that has been due longest
/// goes first. Nothing of a lower priority is claimed while something higher is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// What people wait for, such as a code to log in: 8.
    pub const URGENT: Priority = Priority(8);
    /// The default: 5.
    pub const NORMAL: Priority = Priority(5);
    /// What may wait behind all else, such as a newsletter: 2.
    pub const BULK: Priority = Priority(2);

    /// A priority from 0 to 9; `None` for any other number.
    pub const fn new(level: u8) -> Option<Self> {
        if level <= 9 { Some(Self(level)) } else { None }
    }

    /// The number.
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}
