//! Many relays at once, while other processes enqueue. Invariants 2, 3, 7.

use serde_json::Value;

use crate::Run;
use crate::database::Database;
use crate::harness::Harness;
use crate::smtp_server::SmtpServer;
use crate::tool::Running;

const RELAYS: usize = 8;
const WRITERS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let mails = run.count(2_000, 20_000) / WRITERS;
    run.print(format_args!("{RELAYS} relays, {} mails of {WRITERS} writers", mails * WRITERS));
    let mut harness = Harness::with(database, SmtpServer::start());
    let relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("1m")).collect();
    let writers: Vec<_> = (0..WRITERS).map(|_| harness.start_enqueueing(mails)).collect();
    for writer in writers.into_iter().map(Running::wait).collect::<Vec<_>>() {
        harness.enqueued(mails, &writer);
    }
    let ended = harness.finish(relays);

    let report = harness.report();
    let summaries: Vec<Value> = ended.iter().map(|relay| serde_json::from_str(&relay.stdout).unwrap()).collect();
    let each = |what: &str| summaries.iter().map(|summary| summary[what].as_u64().unwrap()).collect::<Vec<_>>();
    run.print(format_args!("sent by each relay: {:?}", each("sent")));
    run.print(&report);
    assert_eq!((report.missing, report.duplicates, report.lost.len()), (0, 0, 0), "a mail was lost or sent twice");
    assert_eq!(harness.server.accepted_count(), harness.ids.len());
    assert_eq!(each("sent").iter().sum::<u64>(), harness.ids.len() as u64);
    for nothing in ["retried", "released", "dead", "in_doubt", "lease_lost"] {
        assert_eq!(each(nothing).iter().sum::<u64>(), 0, "{nothing}");
    }
    assert!(each("sent").iter().filter(|sent| **sent > 0).count() > 1, "one relay sent everything");
}
