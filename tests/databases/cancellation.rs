//! Calls of the store that are dropped before they end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use postrider::store::{Claim, RelayId, RelayReport};
use postrider::{AdminStore, Filter, Prune, State, Store};
use sqlx::pool::PoolOptions;

use crate::support::database::Database;
use crate::support::fixture::{SECOND, keyed_row, retry, sent};

/// Polls a call this many times and drops it right after the last poll. Returns whether the call had ended.
async fn dropped_after<T>(polls: usize, call: impl Future<Output = T>) -> bool {
    let mut call = pin!(call);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match call.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled >= polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The next user of the connection must not work in a transaction that a dropped call began. Each call is dropped at each place where it
/// waits. Invariant 1.
pub(crate) async fn a_dropped_call_leaves_no_transaction_open<D: Database>(database: D) {
    let pool = PoolOptions::new().max_connections(1).test_before_acquire(false).acquire_timeout(SECOND * 20);
    let pool = database.connect(pool).await;
    for store in D::modes(database.store(pool.clone())) {
        let check = |name: &'static str, polls: usize| {
            let (pool, sql) = (pool.clone(), D::FAILS_IN_TRANSACTION.replace("{t}", database.tables()));
            async move {
                let clean = D::execute(&mut *pool.acquire().await.unwrap(), sql).await;
                assert!(clean.is_ok(), "{name} dropped after {polls} polls: {clean:?}");
            }
        };
        // Runs a call again and again, dropped one poll later each time, until it ends.
        macro_rules! drop_at_each_wait {
            ($name:literal, $call:expr) => {{
                let mut polls = 1;
                while !dropped_after(polls, $call).await {
                    check($name, polls).await;
                    polls += 1;
                    assert!(polls < 500, "{} never ends", $name);
                }
                assert!(polls > 1 || D::IN_PROCESS, "{} never waits", $name);
            }};
        }
        store.migrate().await.unwrap();
        drop_at_each_wait!("migrate", store.migrate());
        drop_at_each_wait!("insert", store.insert(vec![keyed_row("one"), keyed_row("two")]));
        drop_at_each_wait!("claim", store.claim(Claim::new(1, SECOND * 60)));
        let ids = store.insert((0..3).map(|n| keyed_row(&format!("more {n}"))).collect()).await.unwrap();
        let lease = store.claim(Claim::new(1_000, SECOND * 60)).await.unwrap().remove(0);
        drop_at_each_wait!("settle as sent", store.settle(&[sent(&lease)]));
        let ids_of_new = store.insert(vec![keyed_row("again")]).await.unwrap();
        let lease = store.claim(Claim::new(1, SECOND * 60)).await.unwrap().remove(0);
        drop_at_each_wait!("renew", store.renew(&[lease.key], SECOND * 60));
        drop_at_each_wait!("settle as retry", store.settle(&[retry(&lease, SECOND)]));
        drop_at_each_wait!("release claims", store.release_claims(&[Claim::new(1, SECOND).id]));
        drop_at_each_wait!("get", store.get(ids[0]));
        drop_at_each_wait!("message", store.message(ids[0]));
        drop_at_each_wait!("list", store.list(&Filter::new()));
        drop_at_each_wait!("stats", store.stats());
        drop_at_each_wait!("cancel", store.cancel(ids_of_new[0]));
        drop_at_each_wait!("resend", store.resend(ids_of_new[0]));
        drop_at_each_wait!("prune", store.prune(&Prune::deliveries(Duration::ZERO).state(State::Sent)));
        drop_at_each_wait!("next_due", store.next_due());
        drop_at_each_wait!("now", store.now());
        let relay = RelayReport::new(RelayId::new(), 0, None);
        drop_at_each_wait!("report", store.report(&relay));
        drop_at_each_wait!("retire", store.retire(relay.id));
        // Empties the outbox for the next mode.
        let delete = "DELETE FROM {t}deliveries".replace("{t}", database.tables());
        D::execute(&mut *pool.acquire().await.unwrap(), delete).await.unwrap();
    }
}
