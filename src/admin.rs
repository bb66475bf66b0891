//! The operator's side: list, count, resend, cancel, prune.

use std::time::Duration;

use postrider_transport::DeliveryId;

use crate::Outbox;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::{AdminStore, HEARTBEAT_TTL, StoreError};

/// Which deliveries to list.
///
/// ```
/// use postrider::{Filter, State};
///
/// let dead_letters = Filter::new().state(State::Dead).limit(50);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<State>,
    /// Only those of this template.
    pub template_id: Option<String>,
    /// Only those after this id, for pages.
    pub after: Option<DeliveryId>,
    /// The most to return.
    pub limit: u32,
}

impl Filter {
    /// The 100 oldest deliveries.
    pub fn new() -> Self {
        Self { state: None, template_id: None, after: None, limit: 100 }
    }

    /// Only those in this state.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Only those of this template.
    #[must_use]
    pub fn template_id(mut self, id: impl Into<String>) -> Self {
        self.template_id = Some(id.into());
        self
    }

    /// Only those after this id. Pass the last id of a page to get the next page.
    #[must_use]
    pub fn after(mut self, id: DeliveryId) -> Self {
        self.after = Some(id);
        self
    }

    /// The most to return.
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
    /// How long the oldest due delivery has waited that no relay holds; `None` if nothing is due. If it grows, nobody sends.
    pub oldest_due: Option<Duration>,
    /// The relays that reported in the last ten minutes and did not end since. A relay that ended with a paused transport stays for ten
    /// minutes.
    pub relays: Vec<RelayStatus>,
}

impl Stats {
    /// The count of one state, for authors of stores.
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
    /// Why its transport is paused, if it is. Where it is made of several and some of them are paused, while the relay goes on with the
    /// others: `failover/ses: `, and why.
    pub paused: Option<String>,
}

impl RelayStatus {
    /// For authors of stores.
    pub fn new(id: String, seen_ago: Duration, in_flight: u64, paused: Option<String>) -> Self {
        Self { id, seen_ago, in_flight, paused }
    }
}

/// Result of [`resend`](Outbox::resend) or [`cancel`](Outbox::cancel). Exhaustive, so that a program handles each case.
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

/// What to delete. Without a state, nothing.
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
    /// Only deliveries enqueued longer ago than this, by the database's clock.
    pub older_than: Duration,
    /// Only finished deliveries in these states; pending and leased ones are never deleted.
    pub states: Vec<State>,
    /// Delete only attempts, except the last of each delivery, and keep the deliveries.
    pub history_only: bool,
}

impl Prune {
    /// Deliveries that were enqueued longer ago than this. Add the states with [`state`](Self::state).
    pub fn older_than(age: Duration) -> Self {
        Self { older_than: age, states: Vec::new(), history_only: false }
    }

    /// Adds a state. `Pending` and `Leased` are ignored.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.states.push(state);
        self
    }

    /// Deletes the attempts, all but the last of each delivery, and keeps the deliveries.
    #[must_use]
    pub fn history_only(mut self) -> Self {
        self.history_only = true;
        self
    }
}

/// The operator's side. It needs no transport.
impl<S: AdminStore, T> Outbox<S, T> {
    /// Creates or upgrades the outbox's tables. Call it at each start, before all else; several processes may do so at once.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.store().migrate().await
    }

    /// One delivery with its recipients and its history; `None` if there is none with this id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.store().get(id).await
    }

    /// A page of deliveries, oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        self.store().list(filter).await
    }

    /// Sends a dead, held, sent or cancelled delivery again, with a fresh budget and without its expiry. Attempts go on
    /// counting. Who already has the mail is not mailed again, unless everybody has it: then all are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().resend(id).await
    }

    /// Cancels a pending delivery. A leased one may be on its way, and is not changed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store().cancel(id).await
    }

    /// Counts by state, and the running relays.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.store().stats().await?;
        // The store deletes old reports only when another relay reports.
        stats.relays.retain(|relay| relay.seen_ago <= HEARTBEAT_TTL);
        Ok(stats)
    }

    /// Deletes what is finished and old, and returns how many deliveries were affected. A deleted delivery's idempotency key
    /// is free again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        self.store().prune(prune).await
    }
}
