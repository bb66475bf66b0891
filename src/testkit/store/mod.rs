//! What every store must do, as functions that panic where one does not.
//!
//! ```
//! use postrider::testkit::store::StoreUnderTest;
//! use postrider::{DeliveryId, MemoryStore, Store};
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
//! }
//!
//! // In a test file: one #[tokio::test] for each function of the suite.
//! postrider::store_tests!(Memory);
//! ```

mod admin;
mod enqueue;
mod lease;
mod model;
mod settle;

use std::future::Future;
use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded, Recipient};

use crate::delivery::Attempt;
use crate::state::{Outcome, RecipientState};
use crate::store::{Claim, Lease, NewRow, Next, RecipientOutcome, Settled, Settlement, TestClock};
use crate::{AdminStore, Delivery};

pub use admin::*;
pub use enqueue::*;
pub use lease::*;
pub use model::*;
pub use settle::*;

/// A store that the suite can make anew, and whose transactions it can end either way.
pub trait StoreUnderTest: Send + Sync {
    /// The store.
    type Store: AdminStore;

    /// A migrated store without any delivery, whose time is `clock`'s. The suite's tests run side by side, each with a store of its
    /// own.
    fn fresh(&self, clock: TestClock) -> impl Future<Output = Self::Store> + Send;

    /// Inserts through a connection with an open transaction, then commits or rolls back.
    fn insert_in_transaction(
        &self,
        store: &Self::Store,
        rows: Vec<NewRow>,
        commit: bool,
    ) -> impl Future<Output = Vec<DeliveryId>> + Send;
}

/// Stamps the whole suite on a store: one `#[tokio::test]` for each function in [`testkit::store`](crate::testkit::store). The
/// argument is an expression that makes a [`StoreUnderTest`](crate::testkit::store::StoreUnderTest); an attribute before it, such as
/// `#[ignore = "needs a server"]`, goes on each test. Needs tokio's `macros` and `rt-multi-thread` features.
#[macro_export]
macro_rules! store_tests {
    (#[$attribute:meta] $fixture:expr) => {
        $crate::store_tests! { @all [#[$attribute]] $fixture }
    };
    (@all $attributes:tt $fixture:expr) => {
        $crate::store_tests! { @each $attributes $fixture;
            a_commit_brings_it_and_a_rollback_does_not
            a_message_comes_back_as_it_went_in
            what_is_enqueued_together_stays_apart
            a_recipient_named_twice_counts_once
            a_key_adds_one_delivery
            a_key_is_free_again_after_a_rollback
            what_is_scheduled_waits_for_its_time
            claims_go_by_priority_and_then_by_age
            a_claim_takes_no_more_than_it_asks_for
            a_claim_keeps_its_byte_budget
            a_claim_whose_answer_was_lost_is_taken_back
            a_backlog_hides_nothing
            a_pass_does_not_meet_what_it_put_off
            many_claimers_never_share_a_delivery
            only_the_present_token_settles
            a_stale_settlement_spoils_no_valid_one
            a_lease_is_settled_once_in_a_batch
            a_vanished_holder_leaves_a_lost_attempt
            a_lost_attempt_is_told_until_something_is_sent
            a_claim_tells_of_the_last_attempt
            a_renewed_lease_is_not_taken_over
            a_slow_holder_may_settle_while_nobody_took_over
            a_retry_waits_and_counts
            what_is_given_back_costs_nothing
            what_the_relay_made_of_an_attempt_is_kept
            every_end_is_kept_with_its_reason
            what_is_sent_together_stays_apart
            recipients_are_settled_one_by_one
            recipients_by_the_ten_thousand_are_settled
            one_lost_lease_spoils_no_other
            a_resend_begins_anew_and_counts_on
            a_resend_mails_those_who_have_not_got_it
            only_what_is_pending_can_be_cancelled
            lists_turn_pages_by_state
            pruning_takes_what_is_old_and_finished
            relays_are_known_while_they_live
            waking_wakes
            migrating_twice_changes_nothing
            it_does_what_the_memory_store_does
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
    let message = Encoded { format: "test/1".to_owned(), body: r#"{"text":"hello"}"#.to_owned() };
    NewRow::new(DeliveryId::new(), message, recipients.iter().map(|r| Recipient::new(*r)).collect())
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

/// A settlement after a call that began at the claim and took a second.
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

fn through(recipient: &str, state: RecipientState) -> RecipientOutcome {
    RecipientOutcome { recipient: Recipient::new(recipient), state, reply: Some(format!("reply to {recipient}")) }
}

fn states(delivery: &Delivery) -> Vec<(&str, RecipientState)> {
    delivery.recipients.iter().map(|status| (status.recipient.as_str(), status.state)).collect()
}
