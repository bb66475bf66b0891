//! Where deliveries are kept.

mod error;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod floor;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod lane;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod recipients;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod session;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod sqlx_error;

use std::fmt;
use std::future::Future;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded};
use uuid::Uuid;

pub use error::{StoreError, StoreErrorKind};
pub use memory::{MemoryStore, MemoryTransaction};
#[cfg(feature = "mysql")]
pub use mysql::MySqlStore;
#[cfg(feature = "postgres")]
pub use postgres::PgStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::admin::{Changed, Delivery, Filter, Prune, Stats, Summary};
use crate::delivery::{Lease, LeaseKey, NewRow, Settled, Settlement};

/// The name of one running relay: new at each start, so that a restarted process is never taken for its former self.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelayId(Uuid);

impl RelayId {
    /// A new name.
    #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells every relay of this process, and the next one that begins to wait. One alone might be the one whose transport is paused.
pub(crate) fn ring(bell: &tokio::sync::Notify) {
    bell.notify_waiters();
    bell.notify_one();
}

/// After so long a silence a relay is forgotten: it tells of itself every few seconds.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);

/// Says that the queue had rows whose mails are gone, by a `TRUNCATE` for instance. There is nothing to be sent, and nobody to be told.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn tell_of_orphans(count: usize) {
    tracing::warn!(count, "removed rows of the queue whose mails somebody has deleted");
}

/// The name of one claim, new for each. The store keeps it with what the claim leases, so that a claim whose answer never came can be
/// taken back ([`Store::take_back`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId(i64);

impl ClaimId {
    /// A new name.
    #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
    pub fn new() -> Self {
        Self(rand::random_range(1..=i64::MAX))
    }

    /// The number that a store keeps: positive, and with some 63 bits of chance unlike any other's.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// What a relay asks for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Claim {
    /// Its name.
    pub id: ClaimId,
    /// How many deliveries at the most.
    pub limit: usize,
    /// How many octets of stored mail ([`Encoded::body`]) at the most, all of them together. One delivery comes in any case, however
    /// large it is. What does not fit stays due.
    pub max_bytes: u64,
    /// How long the lease is to hold.
    pub lease: Duration,
    /// Only what was due by then; what is due now, if not given. A pass that ends asks by the time at which it began, so
    /// that it does not meet again what it has just put off.
    pub due_by: Option<SystemTime>,
}

impl Claim {
    /// Up to `limit` of what is due now, however large.
    pub fn new(limit: usize, lease: Duration) -> Self {
        Self { id: ClaimId::new(), limit, max_bytes: u64::MAX, lease, due_by: None }
    }

    /// Only so many octets of mail, and one mail in any case.
    #[must_use]
    pub fn max_bytes(mut self, octets: u64) -> Self {
        self.max_bytes = octets;
        self
    }

    /// Only what was due by then.
    #[must_use]
    pub fn due_by(mut self, time: SystemTime) -> Self {
        self.due_by = Some(time);
        self
    }
}

/// What a relay tells of itself, kept so that another process can show it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayReport {
    /// Who.
    pub id: RelayId,
    /// How many deliveries it holds.
    pub in_flight: usize,
    /// Why its transport is paused, if it is. Where it is made of several and some of them are paused, while the relay goes on with the
    /// others: `failover/ses: `, and why.
    pub paused: Option<String>,
}

impl RelayReport {
    /// What the relay has to say.
    pub fn new(id: RelayId, in_flight: usize, paused: Option<String>) -> Self {
        Self { id, in_flight, paused }
    }
}

/// A database that keeps deliveries: the side that enqueues and the side that sends.
///
/// The stores of this crate are [`MemoryStore`], and behind features, `SqliteStore`, `PgStore` and `MySqlStore`. A store of your own
/// implements this trait and [`AdminStore`], and runs the suite in [`testkit`](crate::testkit) to know that it keeps the
/// promises below.
///
/// - What is inserted through a connection's transaction exists if and only if that transaction commits.
/// - A delivery is leased to one holder at a time. The token grows with each claim; a settlement or renewal with any other
///   token changes nothing and says so.
/// - Claiming a delivery whose lease ran out records the vanished holder's attempt as `lost`, and charges it, in the same
///   transaction.
/// - No transaction stays open between two calls.
/// - Times that decide are taken from the database's clock.
///
/// # Cancel safety
/// Each call is one transaction, or joins the caller's: dropped before it returns, it has happened wholly or not at all. A
/// claim that was dropped after it committed leaves its deliveries leased until the lease runs out.
pub trait Store: Clone + Send + Sync + 'static {
    /// The connection that an open transaction of the caller's derefs to.
    type Connection: ?Sized + Send;

    /// Inserts all rows, or none, in a transaction of its own, and wakes relays of this process. Returns the id of each row, in
    /// their order: where a row's key is taken, that of the delivery that has it.
    fn insert(&self, rows: Vec<NewRow>) -> impl Future<Output = Result<Vec<DeliveryId>, StoreError>> + Send;

    /// Inserts through the caller's connection and so in its transaction.
    fn insert_in(
        &self,
        connection: &mut Self::Connection,
        rows: Vec<NewRow>,
    ) -> impl Future<Output = Result<Vec<DeliveryId>, StoreError>> + Send;

    /// Leases what is due, most urgent first. It may lease somewhat less than was asked for while more is due, but not less than half.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Vec<Lease>, StoreError>> + Send;

    /// Gives back, uncharged and without an attempt, what was leased by claims whose answers never came, and returns how many there were:
    /// nobody was going to send them. What a claim leases later is not met: call it when the claim is over
    /// ([`with_call_limit`](Self::with_call_limit)).
    fn take_back(&self, claims: &[ClaimId]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes what became of leased deliveries. The result has one entry for each settlement, in their order.
    fn settle(&self, settlements: &[Settlement]) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// Extends leases to `lease` from now. The result has one entry for each key, in their order. A delivery that is being settled at
    /// this moment may be passed by, and then counts as lost.
    fn renew(
        &self,
        keys: &[LeaseKey],
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// How long until something is due, expired leases included: zero if something is already; `None` if nothing waits.
    fn next_due(&self) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<SystemTime, StoreError>> + Send;

    /// Keeps what a relay tells of itself, in place of what it told before, and forgets relays that have been silent for ten
    /// minutes.
    fn report(&self, report: &RelayReport) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets a relay that has stopped.
    fn retire(&self, id: RelayId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The same store, whose server ends by itself what takes longer than `limit`, be it a statement or the wait for a lock, with an
    /// error and nothing written. A relay asks for it, with less than it waits for an answer: otherwise a claim that it has given up may
    /// commit later. A store without such a limit returns itself.
    #[must_use]
    fn with_call_limit(self, limit: Duration) -> Self {
        let _ = limit;
        self
    }

    /// Says to relays of this process that something may be due.
    fn wake(&self);

    /// Returns when something may have become due since the last call: by [`wake`](Self::wake), or by whatever signal the
    /// database gives. It may return for nothing, and it may miss: relays poll as well.
    fn woken(&self) -> impl Future<Output = ()> + Send;
}

/// The side of a store for operators.
pub trait AdminStore: Store {
    /// Creates or upgrades the tables. Safe to call at each start and from several processes at once.
    fn migrate(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// One delivery with its recipients and its history.
    fn get(&self, id: DeliveryId) -> impl Future<Output = Result<Option<Delivery>, StoreError>> + Send;

    /// The stored message of one delivery.
    fn message(&self, id: DeliveryId) -> impl Future<Output = Result<Option<Encoded>, StoreError>> + Send;

    /// A page of deliveries, in the order of their ids, which is that of enqueueing.
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Vec<Summary>, StoreError>> + Send;

    /// Takes a dead, held, sent or cancelled delivery back to pending, with a fresh budget and no expiry.
    fn resend(&self, id: DeliveryId) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Cancels a pending delivery.
    fn cancel(&self, id: DeliveryId) -> impl Future<Output = Result<Changed, StoreError>> + Send;

    /// Counts by state, and the relays.
    fn stats(&self) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    /// Deletes finished deliveries, or only their history, and returns how many deliveries were affected.
    fn prune(&self, prune: &Prune) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
