//! A database server that crashes under load and comes back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::database::{Database, Kind};
use crate::program::Program;
use crate::scene::{CONCURRENCY, Scene};
use crate::tool::{Ran, Running, wait_until};

const RELAYS: usize = 3;

/// So many more crashes at most, until one comes while a statement is under way: nobody tells of the others, which the pool waits out.
const MORE: usize = 6;

const AWAY: &str = "the database does not answer; waiting for it";
const BACK: &str = "the database answers again";

pub(crate) fn test(run: &Run, database: Database) {
    let wanted = run.count(2, 10);
    let mut random = run.random();
    let mut scene = Scene::slow(database);
    let program = Program::start(&scene.database);

    let relays: Vec<_> = (0..RELAYS).map(|_| scene.relay("2s")).collect();
    let mut in_flight = Vec::new();
    let noticed = || relays.iter().any(|relay| told(relay) > 0);
    while in_flight.len() < wanted || (in_flight.len() < wanted + MORE && !noticed()) {
        scene.wait_amid_work(&mut random);
        let before: Vec<_> = relays.iter().map(told).collect();
        in_flight.push(scene.database.held().len());
        let down = Down::crash(scene.database.kind);
        // Shorter than a lease, or longer.
        std::thread::sleep(Duration::from_millis(random.random_range(0..3_000)));
        drop(down);
        let accepted = scene.server.accepted_count();
        wait_until("the relays have gone on", || {
            scene.server.accepted_count() > accepted + RELAYS * CONCURRENCY
                && relays.iter().all(|relay| relay.said().matches(AWAY).count() == relay.said().matches(BACK).count())
        });
        // A dying server ends its sessions one after the other, and a call on one that still lives may be answered in between. That an
        // outage is told of once is tested in tests/relay/outage.rs.
        for (before, relay) in before.into_iter().zip(&relays) {
            assert!(told(relay) <= before + 2, "more than a line for an outage: {}", relay.said());
        }
    }
    let (committed, rolled_back) = program.stop(&scene);
    let committed_by_program = committed.len();
    scene.ids.extend(committed);
    let relays = scene.finish(relays);

    let toll = scene.toll();
    let outages = in_flight.len();
    run.say(format_args!("{outages} crashes of the server under {RELAYS} relays of concurrency {CONCURRENCY}"));
    run.say(format_args!("in flight a moment before each crash: {in_flight:?}"));
    run.say(format_args!(
        "a program committed {committed_by_program} mails with its data meanwhile, and rolled {rolled_back} back"
    ));
    run.say(&toll);
    let told = check_logs(&relays);
    run.say(format_args!("outages that each relay told of: {told:?}"));
    assert!(told.iter().sum::<usize>() > 0, "nobody noticed: this test shows nothing");
    assert_eq!(toll.missing, 0, "nothing is lost");
    assert!(toll.duplicates <= toll.lost.len());
    assert!(toll.lost.len() <= outages * RELAYS * CONCURRENCY, "no more is in doubt than was in flight");
}

/// How many outages a relay has told of so far.
fn told(relay: &Running) -> usize {
    relay.said().matches(AWAY).count()
}

/// Relays that have ended have told of the end of each outage, and cried about nothing else than leases. Returns how many outages
/// each has told of.
pub(crate) fn check_logs(relays: &[Ran]) -> Vec<usize> {
    let mut outages = Vec::new();
    for relay in relays {
        let (away, back) = (relay.stderr.matches(AWAY).count(), relay.stderr.matches(BACK).count());
        assert_eq!(away, back, "{}", relay.stderr);
        let loud = relay.stderr.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR "));
        let other: Vec<_> = loud.filter(|line| !line.contains(AWAY) && !line.contains("lease")).collect();
        assert!(other.is_empty(), "{other:#?}");
        outages.push(away);
    }
    outages
}

/// A server that has crashed. It is started again when this goes.
struct Down(Kind);

impl Down {
    fn crash(kind: Kind) -> Self {
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
    // Root is asked for as scripts/test does.
    let call = r#"if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -- "$@"; fi"#;
    let directory = kind.variable("DIR");
    let status = Command::new("sh").args(["-c", call, "sh"]).arg(script).args([what, &directory]).status();
    assert!(status.unwrap().success(), "{name} {what}");
}
