//! A relay that is suspended for longer than its lease, as on a machine that sleeps, and then resumes. Invariants 2, 3, 7.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Run;
use crate::database::Database;
use crate::harness::{CONCURRENCY, Harness};
use crate::smtp_server::{Answer, SmtpServer, Step};
use crate::tool::wait_until;

/// The mails that the second relay has sent when the first one resumes. It is still sending the others.
const SENT: usize = CONCURRENCY / 2;

/// If the second relay has not sent after this time, although the lease of 2 s has expired, the suspended relay holds locks.
const LOCK_TIMEOUT: Duration = Duration::from_secs(8);

pub(crate) fn test(run: &Run, database: Database) {
    // The number of mails that arrived, and for each relay the number of mails that the server answers.
    let (came, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new([const { AtomicUsize::new(0) }; 2]));
    let server = SmtpServer::with_script({
        let (came, answered) = (Arc::clone(&came), Arc::clone(&answered));
        move |step| {
            if let Step::Content = step {
                let number = came.fetch_add(1, Ordering::SeqCst);
                let (relay, number) = (number / CONCURRENCY, number % CONCURRENCY);
                while answered.get(relay).is_some_and(|answered| answered.load(Ordering::SeqCst) <= number) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Answer::Accept
        }
    });
    let mut harness = Harness::with(database, server);
    harness.enqueue(CONCURRENCY);

    let suspended = harness.relay("2s");
    wait_until("the first relay sends", || came.load(Ordering::SeqCst) == CONCURRENCY);
    suspended.signal("STOP");
    answered[1].store(SENT, Ordering::SeqCst);
    let other = harness.relay("2s");
    let mut stopped = Instant::now();
    wait_until("the second relay sends", || {
        // The suspended relay may hold locks of an open transaction (in SQLite, on the whole database). It then runs for a moment, to end it.
        if stopped.elapsed() > LOCK_TIMEOUT {
            suspended.signal("CONT");
            std::thread::sleep(Duration::from_millis(200));
            suspended.signal("STOP");
            stopped = Instant::now();
        }
        came.load(Ordering::SeqCst) == 2 * CONCURRENCY
    });
    let settled = || harness.database.held().len() == CONCURRENCY - SENT;
    wait_until("half of the mails are settled", settled);
    let held = harness.database.held();

    answered[0].store(CONCURRENCY, Ordering::SeqCst);
    suspended.signal("CONT");
    let lost = |said: String| said.matches("the lease was lost while the message was being sent").count();
    wait_until("the first relay has lost its leases", || lost(suspended.stderr()) == CONCURRENCY);
    assert_eq!(harness.database.held(), held, "the first relay changed the leases of the second");
    answered[1].store(CONCURRENCY, Ordering::SeqCst);
    let ended = harness.finish(vec![suspended, other]);

    let report = harness.report();
    run.print(format_args!("in flight when it was stopped: {CONCURRENCY}; {report}"));
    let counts = |relay: usize| {
        let summary: serde_json::Value = serde_json::from_str(&ended[relay].stdout).unwrap();
        (summary["sent"].as_u64().unwrap(), summary["lease_lost"].as_u64().unwrap())
    };
    let all = CONCURRENCY as u64;
    assert_eq!((counts(0), counts(1)), ((0, all), (all, 0)), "the first relay did not lose all its leases");
    assert_eq!((report.missing, report.duplicates, report.lost.len()), (0, CONCURRENCY, CONCURRENCY));
}
