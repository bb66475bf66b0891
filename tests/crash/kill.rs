//! Relays that are killed. Invariants 2, 3, 4, 7.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::database::{Database, HeldLease};
use crate::harness::{CONCURRENCY, Harness};
use crate::tool::{Running, wait_until};

const RELAYS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let kills = run.count(10, 100);
    run.print(format_args!("{kills} kills of {RELAYS} relays of concurrency {CONCURRENCY}"));
    let mut random = run.random();
    let mut harness = Harness::slow(database);

    // The number of deliveries in flight at each kill, and their leases.
    let mut in_flight: Vec<usize> = Vec::new();
    let mut known: HashSet<HeldLease> = HashSet::new();
    for _ in 0..kills {
        let relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
        harness.wait_amid_work(&mut random);
        for relay in relays {
            kill(relay);
            std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
        }
        // The server may still execute a statement of the dead relay.
        wait_until("the server closes the connections", || harness.database.connections().is_empty());
        in_flight.push(harness.database.held().into_iter().filter(|held| known.insert(held.clone())).count());
    }
    harness.finish(vec![harness.relay("2s")]);

    let report = harness.report();
    run.print(format_args!("in flight at each kill: {in_flight:?}, {} in all", known.len()));
    run.print(&report);
    let hits = in_flight.iter().filter(|count| **count > 0).count();
    assert!(hits * 2 > kills, "too few kills hit a relay at work for this test to show anything");
    assert!(
        in_flight.iter().all(|count| *count <= RELAYS * CONCURRENCY),
        "a relay held more leases than its concurrency"
    );
    assert_eq!(report.missing, 0, "mail is lost");
    assert!(report.duplicates <= known.len(), "more mails arrived twice than were in flight");
    assert_eq!(report.lost, known, "the lost attempts are not those that the dead relays held");
}

/// Kills a relay that still runs.
pub(crate) fn kill(mut relay: Running) {
    assert!(relay.try_wait().is_none(), "the relay ended before the kill: {}", relay.stderr());
    relay.signal("KILL");
    wait_until("the relay is dead", || relay.try_wait().is_some());
}
