//! Pauses by operators, and the other controls that relays read.

use std::fmt;
use std::time::SystemTime;

use postrider_transport::mask_addresses;

use crate::filter::Filter;

/// What an operator pauses. Relays keep that mail pending, and charge nothing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PauseTarget {
    /// All mail of the outbox.
    Outbox,
    /// All mail of the relays whose transport has this [name](crate::Transport::name). The transports inside of a combined one cannot be
    /// paused by themselves.
    Transport(String),
    /// Mail from this sender: the address of the envelope, or `@example.com` for all addresses at a domain. The case of ASCII letters does
    /// not matter.
    Sender(String),
    /// Mail of this template.
    Template(String),
}

impl PauseTarget {
    /// The largest length of a name in characters.
    pub const MAX_NAME: usize = 700;

    /// The kind as the databases store it: `outbox`, `transport`, `sender` or `template`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::Transport(_) => "transport",
            Self::Sender(_) => "sender",
            Self::Template(_) => "template",
        }
    }

    /// The name of the transport, the sender or the template. Empty for the outbox. A sender is in lower case.
    pub fn name(&self) -> String {
        match self {
            Self::Outbox => String::new(),
            Self::Sender(sender) => sender.to_ascii_lowercase(),
            Self::Transport(name) | Self::Template(name) => name.clone(),
        }
    }

    /// Takes the address of a sender such as `Shop <shop@example.com>`. `None` if a sender is neither an address nor a domain.
    pub(crate) fn normalized(self) -> Option<Self> {
        match self {
            Self::Sender(sender) => Filter::parse_recipient(&sender).ok().map(Self::Sender),
            target => Some(target),
        }
    }

    /// The target with this kind and name, as a database stores it. `None` for a kind that this release does not know.
    pub fn from_stored(kind: &str, name: String) -> Option<Self> {
        match kind {
            "outbox" => Some(Self::Outbox),
            "transport" => Some(Self::Transport(name)),
            "sender" => Some(Self::Sender(name)),
            "template" => Some(Self::Template(name)),
            _ => None,
        }
    }
}

/// `outbox`, or the kind and the name, such as `transport ses`. It shows a sender's address in full.
impl fmt::Display for PauseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbox => f.write_str(self.kind()),
            _ => write!(f, "{} {}", self.kind(), self.name()),
        }
    }
}

/// As `Display`, with a masked address.
impl fmt::Debug for PauseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_addresses(&self.to_string()))
    }
}

/// A pause by an operator. `Debug` masks addresses.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// What is paused.
    pub target: PauseTarget,
    /// Since when, by the database's clock.
    pub since: SystemTime,
    /// Who paused it.
    pub operator: String,
    /// Why, in the operator's words. `None` if the operator gave no note.
    pub note: Option<String>,
}

impl Pause {
    /// Creates a pause, for authors of stores.
    pub fn new(target: PauseTarget, since: SystemTime, operator: String, note: Option<String>) -> Self {
        Self { target, since, operator, note }
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause")
            .field("target", &self.target)
            .field("since", &self.since)
            .field("operator", &mask_addresses(&self.operator))
            .field("note", &self.note.as_deref().map(mask_addresses))
            .finish()
    }
}

/// What is paused, by whom and why: `outbox: paused by ada: wrong price`. It shows addresses in full.
impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: paused by {}", self.target, self.operator)?;
        self.note.as_ref().map_or(Ok(()), |note| write!(f, ": {note}"))
    }
}

/// The pauses and the request for a probe that operators have set. A relay reads them before a claim, at most once a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controls {
    /// The pauses, ordered by target.
    pub pauses: Vec<Pause>,
    /// When an operator last asked for a probe of paused transports. `None`: never.
    pub probe_requested_at: Option<SystemTime>,
}
