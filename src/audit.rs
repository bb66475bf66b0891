//! The audit trail: what operators did, when, and why.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, mask_addresses};

use crate::state::ParseError;

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Sent a delivery again.
    Resend,
    /// Cancelled a pending delivery.
    Cancel,
    /// Closed a dead or held delivery without sending it.
    Dismiss,
    /// Paused mail.
    Pause,
    /// Ended a pause.
    Resume,
    /// Asked relays to probe a paused transport at once.
    Probe,
    /// Erased a person's address.
    Erase,
    /// Deleted old data.
    Prune,
}

impl Action {
    /// All actions.
    pub(crate) const ALL: [Self; 8] =
        [Self::Resend, Self::Cancel, Self::Dismiss, Self::Pause, Self::Resume, Self::Probe, Self::Erase, Self::Prune];

    /// The name in the database, in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Cancel => "cancel",
            Self::Dismiss => "dismiss",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Probe => "probe",
            Self::Erase => "erase",
            Self::Prune => "prune",
        }
    }
}

/// `Display` and [`FromStr`] use [`as_str`](Action::as_str).
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Action {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| ParseError(text.to_owned()))
    }
}

/// One action of an operator. A bulk action has one entry for each delivery that it changed.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEntry {
    /// Number of the entry. It grows with time.
    pub number: i64,
    /// When the operator acted, by the database's clock.
    pub at: SystemTime,
    /// The operator's name.
    pub operator: String,
    /// What the operator did.
    pub action: Action,
    /// The delivery. `None` if the action concerns no single one.
    pub delivery: Option<DeliveryId>,
    /// What else the action concerns: what is paused, or the filter of a bulk action, with masked addresses. `None` if nothing.
    pub target: Option<String>,
    /// Why, in the operator's words. `None` if the operator gave no note.
    pub note: Option<String>,
}

impl fmt::Debug for AuditEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditEntry")
            .field("number", &self.number)
            .field("at", &self.at)
            .field("operator", &mask_addresses(&self.operator))
            .field("action", &self.action)
            .field("delivery", &self.delivery)
            .field("target", &self.target.as_deref().map(mask_addresses))
            .finish_non_exhaustive()
    }
}

impl AuditEntry {
    /// Creates an entry without a delivery, a target or a note, for authors of stores.
    pub fn new(number: i64, at: SystemTime, operator: String, action: Action) -> Self {
        Self { number, at, operator, action, delivery: None, target: None, note: None }
    }
}

/// Which entries of the audit trail to list, the newest first. An entry must meet every condition that is set.
///
/// An index finds the entries of a delivery. For an operator or an action, entries are read from the newest on until the page is full.
#[derive(Clone)]
#[non_exhaustive]
pub struct AuditFilter {
    /// Only those of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Only those of the operator with exactly this name.
    pub operator: Option<String>,
    /// Only those of this kind.
    pub action: Option<Action>,
    /// Only those before this [number](AuditEntry::number), for the next page.
    pub before: Option<i64>,
    /// The largest number of entries.
    pub limit: u32,
}

impl AuditFilter {
    /// The 100 newest entries.
    pub fn new() -> Self {
        Self { delivery: None, operator: None, action: None, before: None, limit: 100 }
    }

    /// Sets the delivery.
    #[must_use]
    pub fn delivery(mut self, id: DeliveryId) -> Self {
        self.delivery = Some(id);
        self
    }

    /// Sets the operator's name.
    #[must_use]
    pub fn operator(mut self, name: impl Into<String>) -> Self {
        self.operator = Some(name.into());
        self
    }

    /// Sets the action.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.action = Some(action);
        self
    }

    /// Sets the number of the last entry of the page before.
    #[must_use]
    pub fn before(mut self, number: i64) -> Self {
        self.before = Some(number);
        self
    }

    /// Sets the largest number of entries.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// The actions to find.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn actions(&self) -> &[Action] {
        self.action.as_ref().map_or(Action::ALL.as_slice(), std::slice::from_ref)
    }
}

impl fmt::Debug for AuditFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivery, operator, action, before, limit } = self;
        f.debug_struct("AuditFilter")
            .field("delivery", delivery)
            .field("operator", &operator.as_deref().map(mask_addresses))
            .field("action", action)
            .field("before", before)
            .field("limit", limit)
            .finish()
    }
}

impl Default for AuditFilter {
    fn default() -> Self {
        Self::new()
    }
}

/// Who acts and why, for a store to record.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditContext {
    /// The operator's name: at most [`MAX_OPERATOR`](Self::MAX_OPERATOR) characters.
    pub operator: String,
    /// What else the action concerns: at most [`MAX_TEXT`](Self::MAX_TEXT) characters. `None` if nothing.
    pub target: Option<String>,
    /// Why: at most [`MAX_TEXT`](Self::MAX_TEXT) characters. `None` without a note.
    pub note: Option<String>,
}

impl fmt::Debug for AuditContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditContext").field("operator", &mask_addresses(&self.operator)).finish_non_exhaustive()
    }
}

impl AuditContext {
    /// The largest length of an operator's name in characters. A longer one is cut.
    pub const MAX_OPERATOR: usize = 255;
    /// The largest length of a note or a target in characters. A longer one is cut.
    pub const MAX_TEXT: usize = 1_000;

    /// An action by this operator, or by `unknown` if the name is empty. NUL, which PostgreSQL cannot store, is left out of all texts.
    pub fn by(operator: &str) -> Self {
        let operator = storable(operator.trim(), Self::MAX_OPERATOR);
        let operator = if operator.is_empty() { "unknown".to_owned() } else { operator };
        Self { operator, target: None, note: None }
    }

    /// Sets what else it concerns.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = Some(storable(target, Self::MAX_TEXT));
        self
    }

    /// Sets why.
    #[must_use]
    pub fn note(mut self, note: &str) -> Self {
        self.note = Some(storable(note, Self::MAX_TEXT)).filter(|note| !note.is_empty());
        self
    }
}

fn storable(text: &str, most: usize) -> String {
    text.chars().filter(|character| *character != '\0').take(most).collect()
}
