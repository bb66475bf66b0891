//! The stores, and the types for authors of other stores.
//!
//! An application passes a store to [`Outbox::new`](crate::Outbox::new). The other types here connect a [`Relay`](crate::Relay) to a
//! [`Store`].

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod blobs;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod claim_cursor;
mod counters;
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
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod versions;

use std::future::Future;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient};

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

use crate::admin::{HourlyCount, Stats, UpdateOutcome};
pub use crate::audit::AuditContext;
use crate::audit::{Action, AuditEntry, AuditFilter};
use crate::delivery::{Delivery, DeliverySummary};
use crate::filter::Filter;
use crate::operator::Change;
use crate::pause::{Controls, PauseTarget};
use crate::prune::{Prune, PruneStep, PrunedPart};
use crate::state::State;

/// How many deliveries that wait for another attempt a request for a probe makes due, so that relays have something to probe with.
pub(crate) const PROBE_CANDIDATES: i64 = 32;

/// Notifies every waiting relay of this process, and the next one that waits. One relay alone is not enough: its transport may be paused.
pub(crate) fn notify(notifier: &tokio::sync::Notify) {
    notifier.notify_waiters();
    notifier.notify_one();
}

/// Warns about queue rows without a delivery. A `TRUNCATE` can leave such rows, for example.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn warn_of_orphans(count: usize) {
    tracing::warn!(count, "removed queue rows whose mails were deleted");
}

/// A database for deliveries, with methods to enqueue and methods for the relay.
///
/// The stores of this crate are [`MemoryStore`], and behind features, `SqliteStore`, `PgStore` and `MySqlStore`.
///
/// The trait is open: a store of your own implements it and [`AdminStore`], and runs the suite in `postrider::testkit`, which tests
/// the promises below. A new method has a default, or comes with a new major version. There is no boxed store: the type of an open
/// transaction, [`Connection`](Self::Connection), differs between stores, and an application that enqueues must name it.
///
/// - A row that is inserted through a connection's transaction exists if and only if that transaction commits.
/// - A delivery is leased to one holder at a time. The token grows with each claim. A settlement or renewal with any other token changes
///   nothing, and returns [`Settled::LeaseLost`].
/// - A claim of a delivery with an expired lease records the last holder's attempt as `lost`, and charges it, in the same transaction.
/// - No transaction stays open between two calls.
/// - Due times, leases and ages follow the database's clock.
///
/// # Cancel safety
/// Each call is one transaction, or joins the caller's. If it is dropped before it returns, all of it is committed or nothing is. A claim
/// that is dropped after its commit leaves its deliveries leased until the lease expires, or until they are
/// [released](Self::release_claims).
///
/// # Errors
///
/// Every method fails with the [`StoreErrorKind`] of the problem. [`StoreErrorKind::is_final`] says when a retry cannot help.
pub trait Store: Clone + Send + Sync + 'static {
    /// The connection that an open transaction of the caller's derefs to.
    type Connection: ?Sized + Send;

    /// Inserts all rows or none, in a transaction of its own, and wakes relays of this process. Returns the id of each row, in their order.
    /// If the key of a row exists, it returns the id of the delivery with that key.
    fn insert(&self, rows: Vec<NewRow>) -> impl Future<Output = Result<Vec<DeliveryId>, StoreError>> + Send;

    /// Inserts through the caller's connection, in the caller's transaction.
    fn insert_in(
        &self,
        connection: &mut Self::Connection,
        rows: Vec<NewRow>,
    ) -> impl Future<Output = Result<Vec<DeliveryId>, StoreError>> + Send;

    /// Leases due deliveries, the most urgent first. If more are due, it leases at least half of the limit, unless they exceed
    /// [`Claim::max_bytes`].
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<Vec<Lease>, StoreError>> + Send;

    /// Releases deliveries that were leased by claims without an answer, and returns their number. It charges nothing and records no
    /// attempt, since no relay sends them. Call it when the claim can no longer commit ([`with_call_limit`](Self::with_call_limit)).
    fn release_claims(&self, claims: &[ClaimId]) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Writes the results of leased deliveries. Returns one entry for each settlement, in their order.
    fn settle(&self, settlements: &[Settlement]) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// Extends leases to `lease` from now. Returns one entry for each key, in their order. A delivery that is being settled at this moment
    /// may be skipped, and then counts as lost.
    fn renew(
        &self,
        keys: &[LeaseKey],
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// The time until the next delivery is due or its lease expires: zero if one is due, `None` if the queue is empty.
    fn next_due(&self) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;

    /// The database's clock.
    fn now(&self) -> impl Future<Output = Result<SystemTime, StoreError>> + Send;

    /// Stores a relay's report in place of its last one, and deletes reports that are older than ten minutes.
    fn report(&self, report: &RelayReport) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The pauses and the request for a probe that operators have set.
    fn controls(&self) -> impl Future<Output = Result<Controls, StoreError>> + Send;

    /// Deletes the report of a relay that has stopped.
    fn retire(&self, id: RelayId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The same store with a time limit on the server: a statement or a wait for a lock that takes longer than `limit` ends with an error,
    /// and nothing is written. A relay sets it below its own time limit, so that a claim it has given up cannot commit later. A store
    /// without such limits returns itself.
    #[must_use]
    fn with_call_limit(self, limit: Duration) -> Self {
        let _ = limit;
        self
    }

    /// Notifies the relays of this process that something may be due.
    fn wake(&self);

    /// Returns when something may have become due since the last call: after [`wake`](Self::wake), or after a notification of the database.
    /// It may return too often, and it may miss something: relays poll as well.
    fn notified(&self) -> impl Future<Output = ()> + Send;
}

/// The operator's methods of a store.
///
/// # Errors
///
/// As those of [`Store`]. An invalid argument is [`StoreErrorKind::Rejected`].
///
/// # Cancel safety
///
/// A call that is dropped before it returns may have committed or not. [`migrate`](Self::migrate) and [`prune`](Self::prune) commit in
/// steps: call them again.
pub trait AdminStore: Store {
    /// Creates or upgrades the tables. Safe to call at each start and from several processes at once. If a newer program has upgraded them,
    /// it changes nothing and fails with [`StoreErrorKind::NewerTables`].
    fn migrate(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// One delivery with its recipients and its history. `None` if it does not exist.
    fn get(&self, id: DeliveryId) -> impl Future<Output = Result<Option<Delivery>, StoreError>> + Send;

    /// The stored message of one delivery. `None` if the delivery does not exist or its message was deleted.
    fn message(&self, id: DeliveryId) -> impl Future<Output = Result<Option<Encoded>, StoreError>> + Send;

    /// A page of deliveries in the order of their ids, which is the order of enqueueing.
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Vec<DeliverySummary>, StoreError>> + Send;

    /// The id at which to end the next part of a search that no index answers. A call of [`list`](Self::list) with it as
    /// [`Filter::through`] then takes a limited time.
    ///
    /// It is the id that is `rows` further among those that the search reads, in its order. `None` if fewer are left, or if an index
    /// answers the search. The default divides no search.
    fn search_end(
        &self,
        filter: &Filter,
        rows: u32,
    ) -> impl Future<Output = Result<Option<DeliveryId>, StoreError>> + Send {
        let _ = (filter, rows);
        async { Ok(None) }
    }

    /// Counts the deliveries that a filter finds, up to its limit.
    fn count(&self, filter: &Filter) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Changes deliveries in one transaction, only those in the state `from` if it is given, and records each change in the audit trail if
    /// a `context` is given. Name each id once. Returns one outcome for each, in their order. For several ids it does not wait for a relay:
    /// it leaves a delivery as it is if a relay has locked it.
    fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> impl Future<Output = Result<Vec<UpdateOutcome>, StoreError>> + Send;

    /// Changes one delivery, without a record.
    fn change_one(
        &self,
        change: Change,
        id: DeliveryId,
    ) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send {
        async move { Ok(self.change(change, None, &[id], None).await?.first().copied().unwrap_or(UpdateOutcome::NotFound)) }
    }

    /// Makes a finished delivery pending again, with a fresh budget and no expiry.
    fn resend(&self, id: DeliveryId) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send {
        self.change_one(Change::Resend, id)
    }

    /// Cancels a pending delivery.
    fn cancel(&self, id: DeliveryId) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send {
        self.change_one(Change::Cancel, id)
    }

    /// Closes a dead or held delivery without sending it.
    fn dismiss(&self, id: DeliveryId) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send {
        self.change_one(Change::Dismiss, id)
    }

    /// Cancels a pending delivery in the caller's transaction. It waits for a relay that has locked it.
    fn cancel_in(
        &self,
        connection: &mut Self::Connection,
        id: DeliveryId,
    ) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send;

    /// The delivery with an idempotency key, in the caller's transaction. `None` if there is none or it was deleted.
    fn find_key_in(
        &self,
        connection: &mut Self::Connection,
        key: &str,
    ) -> impl Future<Output = Result<Option<DeliveryId>, StoreError>> + Send;

    /// Begins or ends a pause, and records the action. Returns whether it changed anything; otherwise it records nothing.
    fn set_pause(
        &self,
        target: &PauseTarget,
        paused: bool,
        context: &AuditContext,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Asks relays to probe at once, and records the action. Up to 32 deliveries that wait for another attempt become due, the first ones
    /// first. Those whose last attempt was charged keep waiting: probes must not spend their budgets.
    fn request_probe(&self, context: &AuditContext) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records an action that the store did not do itself.
    fn record(&self, action: Action, context: &AuditContext) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The actions of operators, the newest first.
    fn audit(&self, filter: &AuditFilter) -> impl Future<Output = Result<Vec<AuditEntry>, StoreError>> + Send;

    /// The number of deliveries in each state, and the running relays.
    ///
    /// [`Stats::oldest_undeferred`] needs the history of deliveries with a charged attempt. To limit the cost, a store may read it for the
    /// 1,000 oldest of them only, and count the others as deferred.
    fn stats(&self) -> impl Future<Output = Result<Stats, StoreError>> + Send;

    /// The counts of each hour, from the hour of `since` on: the outcomes of attempts and the ends of deliveries, counted in the
    /// transactions that write them. Ordered by hour, event and transport. Lost attempts are not counted.
    fn hourly(&self, since: SystemTime) -> impl Future<Output = Result<Vec<HourlyCount>, StoreError>> + Send;

    /// Does one step of a deletion: looks at up to `limit` deliveries after the given one, in the order of their ids, and deletes what the
    /// request says, in one transaction. Keys that were kept long enough are freed.
    fn prune_step(
        &self,
        prune: &Prune,
        after: Option<DeliveryId>,
        limit: u32,
    ) -> impl Future<Output = Result<PruneStep, StoreError>> + Send;

    /// Deletes up to `limit` blobs that no message carries any more, and returns how many. A blob that a transaction in progress is
    /// about to use stays.
    fn sweep_blobs(&self, limit: u32) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Removes a recipient from a finished delivery, whatever the case of its ASCII letters: the address becomes `erased-1@erased.invalid`,
    /// where 1 is the recipient's position in the list. The message, the subject, the texts of errors and replies, and a key that contains
    /// the recipient are deleted. Returns [`UpdateOutcome::Unchanged`] for a delivery that is not finished or has no such recipient.
    fn erase(
        &self,
        id: DeliveryId,
        recipient: &Recipient,
    ) -> impl Future<Output = Result<UpdateOutcome, StoreError>> + Send;

    /// Makes a relay the leader of a task for `term` from now, if it is the leader already or nobody is. Returns whether it is. A term of
    /// zero ends the relay's own.
    fn lead(&self, task: &str, relay: RelayId, term: Duration)
    -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Deletes step by step, so that no transaction is long. Returns the number of deliveries that lost data.
    fn prune(&self, prune: &Prune) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async {
            const STEP: u32 = 1_000;
            let (mut affected, mut after) = (0, None);
            loop {
                let step = self.prune_step(prune, after, STEP).await?;
                affected += step.affected;
                match step.last {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
            // Even if nothing was deleted: an earlier call may have been interrupted here, and an insert whose key exists leaves blobs
            // behind.
            while prune.part != PrunedPart::History && self.sweep_blobs(STEP).await? == u64::from(STEP) {}
            Ok(affected)
        }
    }
}
