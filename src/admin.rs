//! The methods for operators, and the types that they return.

use std::time::{Duration, Instant, SystemTime};

use postrider_transport::{DeliveryId, Recipient};

use crate::Outbox;
use crate::delivery::{Delivery, DeliverySummary};
use crate::filter::Filter;
use crate::prune::Prune;
use crate::state::{Outcome, ParseError, State};
use crate::store::{AdminStore, HEARTBEAT_TTL, StoreError};

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
    /// Deliveries that an operator closed without sending them.
    pub dismissed: u64,
    /// Pending deliveries that are due now.
    pub due: u64,
    /// Pending deliveries that are not due for the first time yet.
    pub scheduled: u64,
    /// Pending deliveries that wait for another attempt.
    pub retrying: u64,
    /// The lag: how long the oldest delivery that should have been sent by now has waited, in its present cycle. Neither a failed attempt
    /// nor a probe resets it. `None` if nothing waits.
    pub oldest_waiting: Option<Duration>,
    /// The same without deferred deliveries: those that the next hop has refused for now, in this cycle, for a reason of their own, such as
    /// greylisting or a full mailbox. What remains waits for a relay, for the transport, or for the end of a pause. `None` if nothing does.
    ///
    /// A deferred delivery has an attempt that is [charged](crate::Attempt::charged), and is neither in doubt nor lost.
    pub oldest_undeferred: Option<Duration>,
    /// How long the oldest due delivery without a valid lease has waited. `None` if nothing is due. If it keeps growing, no relay runs. A
    /// failed attempt moves the due time, so it says nothing of a next hop that refuses.
    pub oldest_due: Option<Duration>,
    /// The relays that reported in the last ten minutes. A relay that stops deletes its report, unless its transport is paused.
    pub relays: Vec<RelayStatus>,
}

impl Stats {
    /// Sets how many of the pending deliveries are due and how many are scheduled, for authors of stores. The rest are retries.
    pub fn set_pending_parts(&mut self, due: u64, scheduled: u64) {
        self.due = due.min(self.pending);
        self.scheduled = scheduled.min(self.pending - self.due);
        self.retrying = self.pending - self.due - self.scheduled;
    }

    /// Returns the count of one state, for authors of stores.
    pub fn count_mut(&mut self, state: State) -> &mut u64 {
        match state {
            State::Pending => &mut self.pending,
            State::Leased => &mut self.leased,
            State::Sent => &mut self.sent,
            State::Dead => &mut self.dead,
            State::InDoubt => &mut self.in_doubt,
            State::Cancelled => &mut self.cancelled,
            State::Dismissed => &mut self.dismissed,
        }
    }
}

/// How often an event happened in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HourlyCount {
    /// The beginning of the hour, in UTC.
    pub hour: SystemTime,
    /// What happened.
    pub event: CountedEvent,
    /// The transport of the attempt. `None` if none was called.
    pub transport: Option<String>,
    /// How often.
    pub count: u64,
}

impl HourlyCount {
    /// Creates a count, for authors of stores.
    pub fn new(hour: SystemTime, event: CountedEvent, transport: Option<String>, count: u64) -> Self {
        Self { hour, event, transport, count }
    }
}

/// What is counted for each hour: the outcome of an attempt, or an end other than sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CountedEvent {
    /// An attempt was accepted, for some recipients at least.
    Sent,
    /// An attempt failed, and a later one may succeed.
    Transient,
    /// An attempt was refused for good.
    Permanent,
    /// An attempt may have been accepted.
    InDoubt,
    /// A delivery became a dead letter.
    Dead,
    /// A delivery is held, because it may have been accepted.
    Held,
    /// A delivery was cancelled.
    Cancelled,
    /// A dead or held delivery was closed by an operator.
    Dismissed,
}

impl CountedEvent {
    /// The event of an attempt. `None` for a lost one, which has no transport.
    pub fn of_attempt(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Sent => Some(Self::Sent),
            Outcome::Transient => Some(Self::Transient),
            Outcome::Permanent => Some(Self::Permanent),
            Outcome::InDoubt => Some(Self::InDoubt),
            Outcome::Lost => None,
        }
    }

    /// The event of a delivery that ends in a state. `None` for a sent delivery, which its attempt counts, and for an unfinished one.
    pub fn of_end(state: State) -> Option<Self> {
        match state {
            State::Dead => Some(Self::Dead),
            State::InDoubt => Some(Self::Held),
            State::Cancelled => Some(Self::Cancelled),
            State::Dismissed => Some(Self::Dismissed),
            State::Pending | State::Leased | State::Sent => None,
        }
    }

    /// The event as the databases store it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::InDoubt => "in_doubt",
            Self::Dead => "dead",
            Self::Held => "held",
            Self::Cancelled => "cancelled",
            Self::Dismissed => "dismissed",
        }
    }
}

/// `Display` and [`FromStr`](std::str::FromStr) use [`as_str`](CountedEvent::as_str).
impl std::fmt::Display for CountedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for CountedEvent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [
            Self::Sent,
            Self::Transient,
            Self::Permanent,
            Self::InDoubt,
            Self::Dead,
            Self::Held,
            Self::Cancelled,
            Self::Dismissed,
        ];
        all.into_iter().find(|event| event.as_str() == text).ok_or_else(|| ParseError(text.to_owned()))
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
    /// What is paused, and why: by an operator, or the transport or senders after failures. `None` if nothing is. A transport within a
    /// combined one has its path, such as `failover/ses: `.
    pub paused: Option<String>,
    /// The name of the host on which it runs ([`Relay::host`](crate::Relay::host)). `None` if it is unknown.
    pub host: Option<String>,
    /// How long failures have kept the transport or a sender paused without a break, accurate to a few seconds. `None` if neither
    /// is. A pause by an operator does not count: [`Outbox::controls`] says since when there is one.
    pub paused_for: Option<Duration>,
}

impl RelayStatus {
    /// Whether it reported within the last 30 seconds. A relay that did not has stopped, or cannot reach the database.
    pub fn is_running(&self) -> bool {
        self.seen_ago <= Duration::from_secs(30)
    }

    /// Creates a status of a relay on an unknown host, for authors of stores. Set the fields for more.
    pub fn new(id: String, seen_ago: Duration, in_flight: u64, paused: Option<String>) -> Self {
        Self { id, seen_ago, in_flight, paused, host: None, paused_for: None }
    }
}

/// The result of [`resend`](Outbox::resend), [`cancel`](Outbox::cancel), [`dismiss`](Outbox::dismiss) or
/// [`erase`](crate::store::AdminStore::erase).
///
/// The enum is exhaustive, so that a `match` covers each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the delivery may have been left as it was"]
pub enum UpdateOutcome {
    /// The delivery was changed.
    Updated,
    /// The delivery's state does not allow it, and nothing was changed.
    Unchanged(State),
    /// The message is deleted, so the delivery cannot be sent again. Nothing was changed.
    MessageDeleted,
    /// There is no such delivery.
    NotFound,
}

/// What [`erase`](Outbox::erase) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Erased {
    /// The deliveries from which the recipient was removed.
    pub deliveries: u64,
    /// The deliveries to the recipient that are not finished. They were left as they are: cancel them, or erase again when they are sent.
    pub unfinished: u64,
}

/// A page of [`Outbox::search`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SearchPage {
    /// The deliveries that were found, in the filter's order. A page that is not full need not be the last one.
    pub deliveries: Vec<DeliverySummary>,
    /// Where to continue: set it as [`Filter::after`]. It is the last delivery that was looked at, found or not. `None` after the last
    /// page; after a full page there may be nothing more.
    pub next: Option<DeliveryId>,
}

/// Methods for operators. They need no transport.
impl<S: AdminStore, T> Outbox<S, T> {
    /// Creates or upgrades the outbox's tables. Call it first, at each start. Several processes may call it at once, beside programs that
    /// enqueue and relays that send (`docs/upgrading.md`).
    ///
    /// # Errors
    /// If the database fails, or the user has too few rights. If a newer release has upgraded the tables: nothing is changed, and the error
    /// has the kind [`NewerTables`](crate::StoreErrorKind::NewerTables). The program can continue; during a rolling upgrade it should:
    ///
    /// ```no_run
    /// # async fn demo<S: postrider::AdminStore>(outbox: postrider::Outbox<S>) -> Result<(), postrider::StoreError> {
    /// use postrider::StoreErrorKind;
    ///
    /// match outbox.migrate().await {
    ///     Err(error) if error.kind() == StoreErrorKind::NewerTables => eprintln!("{error}"),
    ///     migrated => migrated?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped, a part of the upgrade may have been applied. The next call applies the rest.
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

    /// Returns a page of deliveries, in the order of their ids, which is that of enqueueing.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        self.store().list(filter).await
    }

    /// Returns a page of deliveries as [`list`](Self::list) does, but stops after some `time`.
    ///
    /// A condition without an index ([`Filter`]) is checked on each delivery, which can take a minute over millions of them. This call
    /// searches in parts of some thousand deliveries, each a statement of its own. It returns what it found when the page is full, when all
    /// are searched, or at the first end of a part after `time`, usually within 0.05 s. With a `time` of zero it searches one part.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use postrider::{Filter, MemoryStore, Outbox};
    ///
    /// let outbox = Outbox::enqueue_only(MemoryStore::new());
    /// let mut filter = Filter::new().tag("invoice").newest_first().limit(20);
    /// loop {
    ///     let page = outbox.search(&filter, Duration::from_millis(100)).await?;
    ///     page.deliveries.iter().for_each(|delivery| println!("{}: {}", delivery.id, delivery.state));
    ///     let Some(next) = page.next else { break };
    ///     filter.after = Some(next);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the database fails.
    pub async fn search(&self, filter: &Filter, time: Duration) -> Result<SearchPage, StoreError> {
        search(self.store(), filter, time, SEARCH_PART).await
    }

    /// Counts the deliveries that a filter finds, up to [`Filter::limit`]. A count of that size means "as many or more".
    ///
    /// # Errors
    /// If the database fails.
    pub async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        self.store().count(filter).await
    }

    /// Counts the deliveries in each state, and lists the running relays.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let mut stats = self.store().stats().await?;
        // A store deletes old reports only when another relay reports.
        stats.relays.retain(|relay| relay.seen_ago <= HEARTBEAT_TTL);
        // A relay that has stopped is not paused any longer.
        for relay in stats.relays.iter_mut().filter(|relay| !relay.is_running()) {
            relay.paused_for = relay.paused_for.map(|lasted| lasted.saturating_sub(relay.seen_ago));
        }
        Ok(stats)
    }

    /// Returns what happened in each hour from `since` on, oldest first. The counts stay when the deliveries are deleted.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        self.store().hourly(since).await
    }

    /// Deletes old data of finished deliveries, step by step. Returns the number of deliveries that lost data.
    ///
    /// # Errors
    /// If the database fails. What was deleted until then stays deleted.
    ///
    /// # Cancel safety
    /// If the future is dropped, what was deleted until then stays deleted.
    pub async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        self.store().prune(prune).await
    }

    /// Removes a person's address from the outbox, whatever the case of its ASCII letters.
    ///
    /// In every finished delivery to this recipient, a placeholder such as `erased-1@erased.invalid` takes the place of the address. The
    /// message is deleted, also for its other recipients, and so are the subject, the texts of all errors and replies, and an idempotency
    /// key that contains the address, which is then free. State, times, attempts, template, tags, and the next hop's ids stay. Attachments
    /// that no other message carries are deleted.
    ///
    /// Deliveries are found by their recipients alone. An address that stands only in a message to somebody else is not found. Each
    /// delivery is changed in a transaction of its own.
    ///
    /// # Errors
    /// If the database fails. Some deliveries may have been changed: call it again to erase the rest.
    ///
    /// # Cancel safety
    /// If the future is dropped, some deliveries may have been changed. Call it again to erase the rest.
    pub async fn erase(&self, recipient: &Recipient) -> Result<Erased, StoreError> {
        erase(self.store(), recipient).await
    }
}

/// The number of deliveries in the first part of a search. A server checks a condition on 100,000 to 10,000,000 deliveries each second. The
/// next part has twice as many, if this one took less than `SHORT_PART`.
pub(crate) const SEARCH_PART: u32 = 4_000;
const SHORT_PART: Duration = Duration::from_millis(15);

pub(crate) async fn search<S: AdminStore>(
    store: &S,
    filter: &Filter,
    time: Duration,
    mut rows: u32,
) -> Result<SearchPage, StoreError> {
    let start = Instant::now();
    let mut part = filter.clone();
    let mut deliveries = Vec::new();
    loop {
        let part_start = Instant::now();
        let end = store.search_end(&part, rows).await?;
        part.through = end.or(filter.through);
        let found = store.list(&part).await?;
        let full = found.len() >= usize::try_from(part.limit).unwrap_or(usize::MAX);
        part.limit = part.limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        deliveries.extend(found);
        if full {
            let next = deliveries.last().map(|last: &DeliverySummary| last.id);
            return Ok(SearchPage { deliveries, next });
        }
        if end.is_none() || start.elapsed() >= time {
            return Ok(SearchPage { deliveries, next: end });
        }
        part.after = end;
        part.through = filter.through;
        if part_start.elapsed() < SHORT_PART {
            rows = rows.saturating_mul(2);
        }
    }
}

pub(crate) async fn erase<S: AdminStore>(store: &S, recipient: &Recipient) -> Result<Erased, StoreError> {
    const PAGE: u32 = 500;
    let mut erased = Erased::default();
    // A filter would take it for a domain.
    if recipient.as_str().starts_with('@') {
        return Ok(erased);
    }
    let mut filter = Filter::new().recipient(recipient.as_str()).limit(PAGE);
    loop {
        let page = store.list(&filter).await?;
        for found in &page {
            match store.erase(found.id, recipient).await? {
                UpdateOutcome::Updated => erased.deliveries += 1,
                UpdateOutcome::Unchanged(state) if !state.is_finished() => erased.unfinished += 1,
                UpdateOutcome::Unchanged(_) | UpdateOutcome::MessageDeleted | UpdateOutcome::NotFound => {}
            }
        }
        match page.last() {
            Some(last) => filter = filter.after(last.id),
            None => break,
        }
    }
    while erased.deliveries > 0 && store.sweep_blobs(PAGE).await? == u64::from(PAGE) {}
    Ok(erased)
}
