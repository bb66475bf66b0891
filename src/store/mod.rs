//! The stores, and what an author of another one needs.
//!
//! An application names a store and gives it to [`Outbox::new`](crate::Outbox::new). All else here passes between a [`Relay`](crate::Relay)
//! and a [`Store`].

#[cfg(any(feature = "mysql", feature = "postgres"))]
mod claim_cursor;
mod error;
mod lease;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
mod new_row;
#[cfg(feature = "postgres")]
mod postgres;
mod recipients;
mod report;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod row;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod session;
mod settlement;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod sqlx_error;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod sticky;

use std::future::Future;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded};

pub use crate::clock::TestClock;
pub use error::{StoreError, StoreErrorKind};
pub use lease::{Claim, ClaimId, LastAttempt, Lease, LeaseKey};
pub use memory::{MemoryStore, MemoryTransaction};
#[cfg(feature = "mysql")]
pub use mysql::MySqlStore;
pub use new_row::{NewRow, When};
#[cfg(feature = "postgres")]
pub use postgres::PgStore;
pub(crate) use report::HEARTBEAT_TTL;
pub use report::{RelayId, RelayReport};
pub use settlement::{Next, RecipientOutcome, Settled, Settlement};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

use crate::admin::{Filter, Prune, Stats, UpdateOutcome};
use crate::delivery::{Delivery, DeliverySummary};

/// Tells every relay of this process, and the next one that begins to wait. One alone might be the one whose transport is paused.
pub(crate) fn notify(notifier: &tokio::sync::Notify) {
    notifier.notify_waiters();
    notifier.notify_one();
}

/// Says that the queue had rows whose mails are gone, by a `TRUNCATE` for instance. There is nothing to be sent, and nobody to be told.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn tell_of_orphans(count: usize) {
    tracing::warn!(count, "removed rows of the queue whose mails somebody has deleted");
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
    fn notified(&self) -> impl Future<Output = ()> + Send;
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
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Vec<DeliverySummary>, StoreError>> + Send;

    /// Takes a dead, held, sent or cancelled delivery back to pending, with a fresh budget and no expiry.
    fn resend(&self, id: DeliveryId) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send;

    /// Cancels a pending delivery.
    fn cancel(&self, id: DeliveryId) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send;

    /// Counts by state, and the relays.
    fn stats(&self) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    /// Deletes finished deliveries, or only their history, and returns how many deliveries were affected.
    fn prune(&self, prune: &Prune) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
