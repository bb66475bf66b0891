//! The conformance suite for stores: functions that panic if a store violates the contract. "Invariant 2" refers to `DESIGN.md` in the
//! repository.
//!
//! ```
//! use postrider::testkit::store::{StoreUnderTest, cancel_keys};
//! use postrider::{DeliveryId, MemoryStore, Store, UpdateOutcome};
//! use postrider::store::{NewRow, TestClock};
//!
//! struct Memory;
//!
//! impl StoreUnderTest for Memory {
//!     type Store = MemoryStore;
//!
//!     async fn fresh(&self, clock: TestClock) -> MemoryStore {
//!         MemoryStore::with_test_clock(clock)
//!     }
//!
//!     async fn insert_in_transaction(&self, store: &MemoryStore, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
//!         let mut tx = store.begin();
//!         let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
//!         if commit { tx.commit() } else { tx.rollback() }
//!         ids
//!     }
//!
//!     async fn cancel_in_transaction(
//!         &self,
//!         store: &MemoryStore,
//!         rows: Vec<NewRow>,
//!         keys: &[&str],
//!         commit: bool,
//!     ) -> Vec<UpdateOutcome> {
//!         let mut tx = store.begin();
//!         store.insert_in(&mut tx, rows).await.expect("inserting works");
//!         let outcomes = cancel_keys(store, &mut tx, keys).await;
//!         if commit { tx.commit() } else { tx.rollback() }
//!         outcomes
//!     }
//! }
//!
//! // In a test file: one #[tokio::test] for each function of the suite.
//! postrider::store_tests!(Memory);
//! ```

mod admin;
mod deletion;
mod enqueue;
mod lease;
mod model;
mod operator;
mod settle;

use std::future::Future;
use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded, Recipient, TraceParent};

use crate::delivery::Attempt;
use crate::state::{Outcome, RecipientState};
use crate::store::{Claim, Lease, NewRow, Next, RecipientOutcome, Settled, Settlement, TestClock};
use crate::{AdminStore, Delivery, UpdateOutcome};

pub use admin::*;
pub use deletion::*;
pub use enqueue::*;
pub use lease::*;
pub use model::*;
pub use operator::*;
pub use settle::*;

/// Creates stores for the suite, and runs transactions on them.
pub trait StoreUnderTest: Send + Sync {
    /// The type of the store.
    type Store: AdminStore;

    /// A migrated, empty store with the clock `clock`. The tests of the suite run in parallel, each on a store of its own.
    fn fresh(&self, clock: TestClock) -> impl Future<Output = Self::Store> + Send;

    /// Inserts rows in an open transaction, then commits or rolls back.
    fn insert_in_transaction(
        &self,
        store: &Self::Store,
        rows: Vec<NewRow>,
        commit: bool,
    ) -> impl Future<Output = Vec<DeliveryId>> + Send;

    /// Inserts rows and cancels the deliveries with these keys ([`cancel_keys`]) in one open transaction, then commits or rolls back.
    fn cancel_in_transaction(
        &self,
        store: &Self::Store,
        rows: Vec<NewRow>,
        keys: &[&str],
        commit: bool,
    ) -> impl Future<Output = Vec<UpdateOutcome>> + Send;
}

/// Cancels the deliveries with these keys in an open transaction.
pub async fn cancel_keys<S: AdminStore>(
    store: &S,
    connection: &mut S::Connection,
    keys: &[&str],
) -> Vec<UpdateOutcome> {
    let outbox = crate::Outbox::enqueue_only(store.clone());
    let mut outcomes = Vec::new();
    for key in keys {
        outcomes.push(outbox.cancel_key_in(connection, key).await.expect("cancelling works"));
    }
    outcomes
}

/// Generates the whole suite for a store: one `#[tokio::test]` for each function in [`testkit::store`](crate::testkit::store).
///
/// The argument is an expression of a type that implements [`StoreUnderTest`](crate::testkit::store::StoreUnderTest). An attribute before
/// it, such as `#[ignore = "needs a server"]`, applies to each test. The macro needs tokio's `macros` and `rt-multi-thread` features.
#[macro_export]
macro_rules! store_tests {
    (#[$attribute:meta] $fixture:expr) => {
        $crate::store_tests! { @all [#[$attribute]] $fixture }
    };
    (@all $attributes:tt $fixture:expr) => {
        $crate::store_tests! { @each $attributes $fixture;
            a_commit_enqueues_and_a_rollback_does_not
            a_message_is_stored_unchanged
            each_row_of_a_batch_keeps_its_own_options
            deliveries_share_blobs
            a_duplicate_recipient_counts_once
            a_key_enqueues_one_delivery
            a_rollback_frees_the_key
            a_scheduled_delivery_waits_until_it_is_due
            claims_follow_priority_and_then_due_time
            a_claim_respects_its_limit
            a_claim_respects_its_byte_limit
            an_unanswered_claim_can_be_released
            a_backlog_hides_no_delivery
            a_pass_does_not_claim_a_delivery_twice
            concurrent_claims_never_share_a_delivery
            only_the_current_token_settles
            a_stale_settlement_does_not_affect_a_valid_one
            a_lease_is_settled_once_in_a_batch
            an_expired_lease_leaves_a_lost_attempt
            a_lost_attempt_is_reported_until_the_next_attempt
            a_claim_returns_the_last_attempt
            a_renewed_lease_is_not_taken_over
            an_expired_lease_may_settle_before_the_next_claim
            a_retry_waits_and_is_charged
            an_uncharged_attempt_costs_no_budget
            the_classification_of_an_attempt_is_stored
            each_final_state_is_stored_with_its_reason
            deliveries_settled_together_keep_their_own_history
            each_recipient_keeps_its_own_outcome
            ten_thousand_recipients_are_settled
            a_lost_lease_does_not_affect_other_settlements
            a_resend_resets_the_budget_and_continues_the_numbers
            a_resend_skips_recipients_who_have_the_mail
            only_a_pending_delivery_can_be_cancelled
            lists_are_paged_and_filtered
            deliveries_are_found
            a_list_shows_the_recipient_it_was_searched_by
            counters_follow_what_happens
            pruning_deletes_old_finished_deliveries
            pruning_goes_step_by_step
            a_key_outlives_its_delivery
            a_blob_goes_with_its_last_message
            a_recipient_is_erased
            an_erased_message_leaves_no_blob
            one_relay_leads_at_a_time
            relays_are_listed_while_they_report
            a_wake_ends_the_wait
            migrating_twice_changes_nothing
            a_change_of_many_answers_for_each
            a_dismissed_delivery_is_closed
            a_cancellation_follows_its_transaction
            pauses_and_probes_are_stored
            waiting_counts_from_the_start_of_the_cycle
            oldest_undeferred_leaves_out_deferred_deliveries
            it_behaves_like_the_memory_store
        }
    };
    (@each $attributes:tt $fixture:expr; $($name:ident)*) => {
        $($crate::store_tests! { @one $attributes $fixture; $name })*
    };
    (@one [$(#[$attribute:meta])*] $fixture:expr; $name:ident) => {
            $(#[$attribute])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::testkit::store::$name(&$fixture).await;
            }
    };
    ($fixture:expr) => {
        $crate::store_tests! { @all [] $fixture }
    };
}

const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A row for one recipient.
fn row() -> NewRow {
    row_for(&["ada@example.com"])
}

fn row_for(recipients: &[&str]) -> NewRow {
    let message = Encoded::new("test/1", r#"{"text":"hello"}"#);
    NewRow::new(DeliveryId::new(), message, recipients.iter().map(|r| Recipient::new(*r)).collect())
}

/// The trace context of a request that was not sampled.
fn traceparent() -> Option<TraceParent> {
    TraceParent::new([0xab; 16], [0xcd; 8], 0)
}

async fn insert_one<S: AdminStore>(store: &S, row: NewRow) -> DeliveryId {
    store.insert(vec![row]).await.expect("inserting works")[0]
}

async fn claim<S: AdminStore>(store: &S, limit: usize) -> Vec<Lease> {
    store.claim(Claim::new(limit, LEASE)).await.expect("claiming works")
}

async fn claim_one<S: AdminStore>(store: &S) -> Lease {
    let mut leases = claim(store, 1).await;
    assert_eq!(leases.len(), 1, "one delivery is due");
    leases.remove(0)
}

async fn settle<S: AdminStore>(store: &S, settlement: Settlement) -> Settled {
    store.settle(&[settlement]).await.expect("settling works")[0]
}

async fn get<S: AdminStore>(store: &S, id: DeliveryId) -> Delivery {
    store.get(id).await.expect("getting works").expect("the delivery exists")
}

/// A settlement of a call that began at the claim and took a second.
fn settlement(lease: &Lease, outcome: Outcome, next: Next) -> Settlement {
    let mut attempt =
        Attempt::new(lease.attempts + 1, lease.cycle, lease.claimed_at, lease.claimed_at + SECOND, outcome);
    attempt.reply = Some(format!("reply {}", lease.attempts + 1));
    attempt.transport = Some(format!("failover/smtp {}", lease.attempts + 1));
    if outcome != Outcome::Sent {
        attempt.error = Some(format!("error {}", lease.attempts + 1));
    }
    Settlement {
        key: lease.key,
        attempt: Some(attempt),
        charged_attempts: lease.charged_attempts + 1,
        recipients: Vec::new(),
        next,
    }
}

fn sent(lease: &Lease) -> Settlement {
    settlement(lease, Outcome::Sent, Next::Sent)
}

fn retry(lease: &Lease, after: Duration) -> Settlement {
    settlement(lease, Outcome::Transient, Next::Pending { after })
}

fn dead(lease: &Lease) -> Settlement {
    settlement(lease, Outcome::Permanent, Next::Dead { reason: "permanent: no".to_owned() })
}

fn recipient_outcome(recipient: &str, state: RecipientState) -> RecipientOutcome {
    RecipientOutcome { recipient: Recipient::new(recipient), state, reply: Some(format!("reply to {recipient}")) }
}

fn recipient_states(delivery: &Delivery) -> Vec<(&str, RecipientState)> {
    delivery.recipients.iter().map(|status| (status.recipient.as_str(), status.state)).collect()
}
