//! A drain while another transaction stays open.

use std::time::{Duration, Instant};

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, Outbox};
use sqlx::Connection;

use crate::Run;
use crate::database::{Database, Kind, Pool, on_pool, on_store};

/// The mails of one statement, and the concurrency of the relay.
const BATCH: usize = 500;

pub(crate) fn test(run: &Run, database: Database) {
    let (rounds, mails) = (run.count(1, 3), run.count(2_000, 40_000));
    let kind = database.kind;
    database.runtime.block_on(async {
        let pool = database.address().connect(4).await;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            // Alternating, so that other load on the machine slows both.
            without.push(drain(&pool, mails).await);
            with.push(drain_beside_a_transaction(kind, &pool, mails).await);
        }
        let rate = |times: &[Duration]| mails as f64 / median(times).as_secs_f64();
        let (without, with) = (rate(&without), rate(&with));
        run.print(format_args!(
            "{mails} mails, {rounds} rounds: {with:.0}/s beside a long transaction, {without:.0}/s without one: {:.2}",
            with / without
        ));
    });
}

async fn drain_beside_a_transaction(kind: Kind, pool: &Pool, mails: usize) -> Duration {
    let begin = match kind {
        Kind::Sqlite => "BEGIN",
        Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        Kind::MariaDb | Kind::MySql => "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    };
    let tables = if kind == Kind::Postgres { "postrider." } else { "postrider_" };
    on_pool!(pool, each => {
        let count = || sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {tables}attempts"));
        let mut connection = each.acquire().await.unwrap();
        let mut tx = connection.begin_with(begin).await.unwrap();
        // The first read fixes the snapshot.
        let before: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
        let took = drain(pool, mails).await;
        let after: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
        assert_eq!(before, after, "the transaction has no snapshot, so this test shows nothing");
        tx.rollback().await.unwrap();
        took
    })
}

/// Enqueues mails and drains the outbox. Returns the time of the drain.
async fn drain(pool: &Pool, mails: usize) -> Duration {
    on_store!(pool, each, store => {
        let transport = ScriptedTransport::<Email>::new();
        let outbox = Outbox::new(store, transport.clone());
        for from in (0..mails).step_by(BATCH) {
            let email = || Email::builder().from("a@example.com").to("b@example.com").text("x").build().unwrap();
            outbox.enqueue_all((from..mails.min(from + BATCH)).map(|_| email())).await.unwrap();
        }
        let before = outbox.store().stats().await.unwrap().sent;
        let start = Instant::now();
        let summary = outbox.relay().concurrency(BATCH).drain().await.unwrap();
        let took = start.elapsed();
        assert_eq!((summary.sent, transport.calls().len()), (mails as u64, mails), "a mail was not sent once");
        let stats = outbox.store().stats().await.unwrap();
        assert_eq!((stats.sent - before, stats.pending, stats.leased), (mails as u64, 0, 0));
        took
    })
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}
