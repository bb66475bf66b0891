//! The cost of a delivery: WAL, commits, processor time and memory.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::{Outbox, PgStore};
use support::figures::{Figures, write_json};
use support::noop::Noop;
use support::{CONCURRENCY, Options, databases};

#[tokio::main]
async fn main() {
    let options = Options::read();
    let count = options.count.unwrap_or(if options.full { 1_000_000 } else { 100_000 });
    let mut costs = Figures::default();
    for _ in 0..options.rounds {
        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::quiesce_postgres(&store).await;
        reset_peak();
        let before = Counters::read(&store).await;
        let summary = Outbox::new(store.clone(), Noop::default())
            .relay()
            .concurrency(CONCURRENCY)
            .drain()
            .await
            .expect("the drain succeeds");
        assert_eq!(summary.sent, count as u64, "a mail was not sent");
        // The server flushes its statistics after a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = Counters::read(&store).await;
        let each = |after: f64, before: f64| (after - before) / count as f64;
        costs.add("bytes of WAL", each(after.wal, before.wal));
        costs.add("commits", each(after.commits, before.commits));
        costs.add("µs of processor time, relay", each(after.cpu.as_secs_f64(), before.cpu.as_secs_f64()) * 1e6);
        costs.add("MiB resident at most, relay", peak());
    }
    costs.print(&format!("For each of {count} deliveries, PostgreSQL (memory: of the whole process)"), "figure", "");
    if let Some(path) = &options.json {
        write_json(path, &BTreeMap::from([("cost".to_owned(), costs)]));
    }
}

struct Counters {
    /// Bytes of WAL.
    wal: f64,
    commits: f64,
    cpu: Duration,
}

impl Counters {
    async fn read(store: &PgStore) -> Self {
        let text = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, xact_commit::float8
                    FROM pg_stat_database WHERE datname = current_database()";
        let (wal, commits) = sqlx::query_as(text).fetch_one(store.pool()).await.expect("the server has statistics");
        Self { wal, commits, cpu: support::cpu_time() }
    }
}

/// Resets the peak of the resident memory (proc(5), `clear_refs`).
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux resets the peak");
}

/// The peak of the resident memory, in MiB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
