//! The methods for operators: list, count, resend, cancel, prune.

use std::time::Duration;

use postrider_transport::DeliveryId;

use crate::Outbox;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::{AdminStore, HEARTBEAT_TTL, StoreError};

/// Selects the deliveries of a list.
///
/// ```
/// use postrider::{Filter, State};
///
/// let dead_letters = Filter::new().state(State::Dead).limit(50);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Filter {
    /// Selects only deliveries in this state. `None` selects all states.
    pub state: Option<State>,
    /// Selects only deliveries with this template id. `None` selects all.
    pub template_id: Option<String>,
    /// Selects only deliveries after this id. `None` starts with the oldest.
    pub after: Option<DeliveryId>,
    /// The largest number of deliveries to return.
    pub limit: u32,
}

impl Filter {
    /// Selects the 100 oldest deliveries.
    pub fn new() -> Self {
        Self { state: None, template_id: None, after: None, limit: 100 }
    }

    /// Selects only deliveries in this state.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Selects only deliveries with this template id.
    #[must_use]
    pub fn template_id(mut self, id: impl Into<String>) -> Self {
        self.template_id = Some(id.into());
        self
    }

    /// Selects only deliveries after this id. Pass the last id of a page to get the next page.
    #[must_use]
    pub fn after(mut self, id: DeliveryId) -> Self {
        self.after = Some(id);
        self
    }

    /// Sets the largest number of deliveries to return.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts by state, and the running relays.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Deliveries to be sent, now or later.
    pub pending: u64,
    /// Deliveries that a relay holds.
    pub leased: u64,
    /// Deliveries that the next hop accepted.
    pub sent: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries that are held because they may have been accepted.
    pub in_doubt: u64,
    /// Cancelled deliveries.
    pub cancelled: u64,
    /// How long the oldest due delivery without a valid lease has waited. `None` if nothing is due. If it keeps growing, no relay sends.
    pub oldest_due: Option<Duration>,
    /// The running relays, by their reports of the last ten minutes. A relay that ended with a paused transport is listed for ten minutes.
    pub relays: Vec<RelayStatus>,
}

impl Stats {
    /// Returns the count of one state, for authors of stores.
    pub fn count_mut(&mut self, state: State) -> &mut u64 {
        match state {
            State::Pending => &mut self.pending,
            State::Leased => &mut self.leased,
            State::Sent => &mut self.sent,
            State::Dead => &mut self.dead,
            State::InDoubt => &mut self.in_doubt,
            State::Cancelled => &mut self.cancelled,
        }
    }
}

/// The last report of a relay.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Id of the relay, new at each start.
    pub id: String,
    /// Age of the report. A running relay reports every 5 seconds.
    pub seen_ago: Duration,
    /// Number of deliveries that it held.
    pub in_flight: u64,
    /// Why the transport is paused. `None` if it is not. If only some transports of a combined one are paused, the text begins with their
    /// path, such as `failover/ses: `.
    pub paused: Option<String>,
}

impl RelayStatus {
    /// Creates a status, for authors of stores.
    pub fn new(id: String, seen_ago: Duration, in_flight: u64, paused: Option<String>) -> Self {
        Self { id, seen_ago, in_flight, paused }
    }
}

/// The result of [`resend`](Outbox::resend) or [`cancel`](Outbox::cancel).
///
/// The enum is exhaustive, so that a `match` covers each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the delivery may have been left as it was"]
pub enum UpdateOutcome {
    /// The delivery was changed.
    Updated,
    /// The delivery's state does not allow it, and nothing was changed.
    Unchanged(State),
    /// There is no such delivery.
    NotFound,
}

/// Selects what [`prune`](Outbox::prune) deletes. Without a state, it deletes nothing.
///
/// ```
/// use std::time::Duration;
/// use postrider::{Prune, State};
///
/// let month = Duration::from_secs(30 * 24 * 3600);
/// let prune = Prune::older_than(month).state(State::Sent).state(State::Cancelled);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prune {
    /// The age since enqueueing, by the database's clock, from which on deliveries are deleted.
    pub older_than: Duration,
    /// The states whose deliveries are deleted. `Pending` and `Leased` are ignored.
    pub states: Vec<State>,
    /// Whether to keep the deliveries and delete only their attempts, except the last one.
    pub history_only: bool,
}

impl Prune {
    /// Selects deliveries that were enqueued longer ago than this. Add the states with [`state`](Self::state).
    pub fn older_than(age: Duration) -> Self {
        Self { older_than: age, states: Vec::new(), history_only: false }
    }

    /// Adds a state. `Pending` and `Leased` are ignored.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Keeps the deliveries, and deletes only their attempts, except the last one.
    #[must_use]
    pub fn history_only(mut self) -> Self {
        self.history_only = true;
        self
    }
}

/// Methods for operators. They need no transport.
impl<S: AdminStore, T> Outbox<S, T> {
    /// Creates or upgrades the outbox's tables. Call it first, at each start. Several processes may call it at once.
    ///
    /// # Errors
    /// If the database fails, or the user has too few rights.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.store().migrate().await
    }

    /// Returns one delivery with its recipients and its history. `None` if there is none with this id.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.store().get(id).await
    }

    /// Returns a page of deliveries, oldest first.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        self.store().list(filter).await
    }

    /// Sends a dead, held, sent or cancelled delivery again, with a fresh budget and no expiry.
    ///
    /// Recipients who have the mail are skipped. If all have it, it is sent to all again. Attempt numbers continue.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().resend(id).await
    }

    /// Cancels a pending delivery. A leased one is not changed, because a relay may be sending it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().cancel(id).await
    }

    /// Counts the deliveries in each state, and lists the running relays.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.store().stats().await?;
        // A store deletes old reports only when another relay reports.
        stats.relays.retain(|relay| relay.seen_ago <= HEARTBEAT_TTL);
        Ok(stats)
    }

    /// Deletes old, finished deliveries, and returns the number of affected deliveries. Their idempotency keys can be used again.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        self.store().prune(prune).await
    }
}
