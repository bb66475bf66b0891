//! What to delete, and when.

use std::time::Duration;

use postrider_transport::DeliveryId;

use crate::state::State;

/// Which data of finished deliveries to delete. Without a state, nothing is deleted.
///
/// The age counts from the time at which a delivery finished, by the database's clock. A mail that was scheduled long ahead is therefore
/// kept as long as any other. Pending and leased deliveries are never touched.
///
/// ```
/// use std::time::Duration;
/// use postrider::{Prune, State};
///
/// let day = Duration::from_secs(24 * 3600);
/// let messages = Prune::messages(7 * day).state(State::Sent).state(State::Cancelled);
/// let deliveries = Prune::deliveries(90 * day).state(State::Sent).keep_keys(365 * day);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prune {
    /// What to delete.
    pub part: PrunedPart,
    /// Only deliveries that finished longer ago than this.
    pub older_than: Duration,
    /// Only deliveries in these states.
    pub states: Vec<State>,
    /// How long an idempotency key stays taken, counted from the time of enqueueing. A deleted delivery leaves its key behind, and a later
    /// deletion of deliveries frees the key. `None`: the key is free when the delivery is deleted.
    pub keep_keys: Option<Duration>,
}

/// The data that a [`Prune`] deletes. The enum is exhaustive, since a store must be able to delete each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrunedPart {
    /// The messages. Recipients, subject and history stay, and the delivery cannot be sent again.
    Messages,
    /// The attempts, except the last of each delivery, which tells how it finished.
    History,
    /// The deliveries with all that belongs to them.
    Deliveries,
}

impl Prune {
    fn new(part: PrunedPart, older_than: Duration) -> Self {
        Self { part, older_than, states: Vec::new(), keep_keys: None }
    }

    /// Deletes the messages of deliveries that finished longer ago than this. Add the states with [`state`](Self::state).
    pub fn messages(older_than: Duration) -> Self {
        Self::new(PrunedPart::Messages, older_than)
    }

    /// Deletes the attempts of deliveries that finished longer ago than this, except the last of each.
    pub fn history(older_than: Duration) -> Self {
        Self::new(PrunedPart::History, older_than)
    }

    /// Deletes the deliveries that finished longer ago than this.
    pub fn deliveries(older_than: Duration) -> Self {
        Self::new(PrunedPart::Deliveries, older_than)
    }

    /// Adds a state. `Pending` and `Leased` are ignored.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Sets how long a key stays taken, from the time of enqueueing.
    #[must_use]
    pub fn keep_keys(mut self, age: Duration) -> Self {
        self.keep_keys = Some(age);
        self
    }

    /// The states of finished deliveries among those that are set.
    #[cfg_attr(
        not(any(feature = "mysql", feature = "postgres", feature = "sqlite")),
        allow(dead_code, reason = "for the databases")
    )]
    pub(crate) fn finished_states(&self) -> Vec<&'static str> {
        let finished = self.states.iter().filter(|state| !matches!(state, State::Pending | State::Leased));
        finished.map(|state| state.as_str()).collect()
    }
}

/// The result of one step of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneStep {
    /// The number of deliveries that lost data.
    pub affected: u64,
    /// The last delivery that the step looked at. `None` if there are no more.
    pub last: Option<DeliveryId>,
}

impl PruneStep {
    /// Creates a result, for authors of stores.
    pub fn new(affected: u64, last: Option<DeliveryId>) -> Self {
        Self { affected, last }
    }
}
