//! Connections of relays that the server ends. Invariants 2, 3, 4, 7.

use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::database::Database;
use crate::harness::{CONCURRENCY, Harness};
use crate::outage::check_logs;

const RELAYS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let rounds = run.count(20, 200);
    run.print(format_args!("{rounds} times at random connections of {RELAYS} relays of concurrency {CONCURRENCY}"));
    let mut random = run.random();
    let mut harness = Harness::slow(database);

    let relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
    let (mut in_flight, mut ended) = (Vec::new(), 0);
    for _ in 0..rounds {
        harness.wait_amid_work(&mut random);
        let connections: Vec<_> =
            harness.database.connections().into_iter().filter(|_| random.random_ratio(1, 2)).collect();
        in_flight.push(harness.database.held().len());
        harness.database.kill_connections(&connections);
        ended += connections.len();
        std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
    }
    let relays = harness.finish(relays);

    let report = harness.report();
    run.print(format_args!("{ended} connections ended; in flight each time: {in_flight:?}"));
    run.print(&report);
    let outages = check_logs(&relays);
    run.print(format_args!("outages that each relay logged: {outages:?}"));
    assert!(ended >= rounds, "too few connections were ended for this test to show anything");
    assert!(outages.iter().all(|outages| *outages <= rounds), "more than one line for an outage");
    assert_eq!(report.missing, 0, "mail is lost");
    assert!(report.duplicates <= report.lost.len());
    assert!(report.lost.len() <= rounds * RELAYS * CONCURRENCY, "more attempts are lost than were in flight");
}
