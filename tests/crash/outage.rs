//! A database server that crashes under load and restarts. Invariants 1, 2, 3, 4, 7.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::application::Application;
use crate::database::{Database, Kind};
use crate::harness::{CONCURRENCY, Harness};
use crate::tool::{Output, Running, wait_until};

const RELAYS: usize = 3;

/// The maximum of additional crashes while no relay has logged an outage. A relay logs only a crash that interrupts a statement: during
/// other crashes, the pool waits for the server.
const MAX_EXTRA_CRASHES: usize = 6;

const OUTAGE_BEGINS: &str = "the database does not answer; waiting for it";
const OUTAGE_ENDS: &str = "the database answers again";

pub(crate) fn test(run: &Run, database: Database) {
    let wanted = run.count(2, 10);
    let mut random = run.random();
    let mut harness = Harness::slow(database);
    let application = Application::start(&harness.database);

    let relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
    let mut in_flight = Vec::new();
    let noticed = || relays.iter().any(|relay| logged_outages(relay) > 0);
    while in_flight.len() < wanted || (in_flight.len() < wanted + MAX_EXTRA_CRASHES && !noticed()) {
        harness.wait_amid_work(&mut random);
        let before: Vec<_> = relays.iter().map(logged_outages).collect();
        in_flight.push(harness.database.held().len());
        let down = Down::crash(harness.database.kind);
        // The lease is 2 s.
        std::thread::sleep(Duration::from_millis(random.random_range(0..3_000)));
        drop(down);
        let accepted = harness.server.accepted_count();
        wait_until("the relays resume", || {
            harness.server.accepted_count() > accepted + RELAYS * CONCURRENCY
                && relays.iter().all(|relay| {
                    relay.stderr().matches(OUTAGE_BEGINS).count() == relay.stderr().matches(OUTAGE_ENDS).count()
                })
        });
        // A crashing server ends its sessions one after the other, and may still answer a call on another session. A relay then logs two
        // outages. `tests/relay/outage.rs` checks that each outage is reported once.
        for (before, relay) in before.into_iter().zip(&relays) {
            assert!(logged_outages(relay) <= before + 2, "more than one line for an outage: {}", relay.stderr());
        }
    }
    let (committed, rolled_back) = application.stop(&harness);
    let committed_by_application = committed.len();
    harness.ids.extend(committed);
    let relays = harness.finish(relays);

    let report = harness.report();
    let outages = in_flight.len();
    run.print(format_args!("{outages} crashes of the server under {RELAYS} relays of concurrency {CONCURRENCY}"));
    run.print(format_args!("in flight a moment before each crash: {in_flight:?}"));
    run.print(format_args!(
        "meanwhile an application committed {committed_by_application} mails with its data, and rolled back {rolled_back}"
    ));
    run.print(&report);
    let logged = check_logs(&relays);
    run.print(format_args!("outages that each relay logged: {logged:?}"));
    assert!(logged.iter().sum::<usize>() > 0, "no relay logged an outage, so this test shows nothing");
    assert_eq!(report.missing, 0, "mail is lost");
    assert!(report.duplicates <= report.lost.len());
    assert!(report.lost.len() <= outages * RELAYS * CONCURRENCY, "more attempts are lost than were in flight");
}

/// The outages that a relay has logged so far.
fn logged_outages(relay: &Running) -> usize {
    relay.stderr().matches(OUTAGE_BEGINS).count()
}

/// Checks that each relay logged the end of each outage, and no other warning than about leases. Returns the outages that each logged.
pub(crate) fn check_logs(relays: &[Output]) -> Vec<usize> {
    let mut outages = Vec::new();
    for relay in relays {
        let (away, back) = (relay.stderr.matches(OUTAGE_BEGINS).count(), relay.stderr.matches(OUTAGE_ENDS).count());
        assert_eq!(away, back, "{}", relay.stderr);
        let loud = relay.stderr.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR "));
        let other: Vec<_> = loud.filter(|line| !line.contains(OUTAGE_BEGINS) && !line.contains("lease")).collect();
        assert!(other.is_empty(), "{other:#?}");
        outages.push(away);
    }
    outages
}

/// A crashed server. Drop restarts it.
pub(crate) struct Down(Kind);

impl Down {
    pub(crate) fn crash(kind: Kind) -> Self {
        control(kind, "crash");
        Self(kind)
    }
}

impl Drop for Down {
    fn drop(&mut self) {
        control(self.0, "restart");
    }
}

fn control(kind: Kind, what: &str) {
    let name = match kind {
        Kind::MySql => "mysql.sh",
        Kind::MariaDb => "mariadb.sh",
        Kind::Postgres => "postgres.sh",
        Kind::Sqlite => unreachable!("SQLite has no server"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers").join(name);
    // Becomes root as scripts/test does.
    let call = r#"if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -- "$@"; fi"#;
    let directory = kind.variable("DIR");
    let status = Command::new("sh").args(["-c", call, "sh"]).arg(script).args([what, &directory]).status();
    assert!(status.unwrap().success(), "{name} {what}");
}
