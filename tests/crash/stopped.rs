//! A relay that stands still for longer than its lease, as a machine that sleeps does, and then goes on as if nothing had been.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Run;
use crate::database::Database;
use crate::scene::{CONCURRENCY, Scene};
use crate::server::{Answer, Ask, Server};
use crate::tool::wait_until;

/// The half that the second relay has sent when the first one comes back; the other half it is still sending.
const SENT: usize = CONCURRENCY / 2;

/// The second relay needs the lease of two seconds to run out, and a moment.
const STUCK: Duration = Duration::from_secs(8);

pub(crate) fn test(run: &Run, database: Database) {
    // How many have come, and how many may have their answer, in the order of their coming.
    let (came, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new([const { AtomicUsize::new(0) }; 2]));
    let server = Server::with({
        let (came, answered) = (Arc::clone(&came), Arc::clone(&answered));
        move |ask| {
            if let Ask::Content = ask {
                let number = came.fetch_add(1, Ordering::SeqCst);
                let (relay, number) = (number / CONCURRENCY, number % CONCURRENCY);
                while answered.get(relay).is_some_and(|answered| answered.load(Ordering::SeqCst) <= number) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Answer::Yes
        }
    });
    let mut scene = Scene::with(database, server);
    scene.enqueue(CONCURRENCY);

    let sleeper = scene.relay("2s");
    wait_until("the first relay sends", || came.load(Ordering::SeqCst) == CONCURRENCY);
    sleeper.signal("STOP");
    answered[1].store(SENT, Ordering::SeqCst);
    let other = scene.relay("2s");
    let mut stopped = Instant::now();
    wait_until("the second relay sends", || {
        // It may have been stopped in the midst of a transaction, whose locks it then keeps; in SQLite that is the whole database.
        if stopped.elapsed() > STUCK {
            sleeper.signal("CONT");
            std::thread::sleep(Duration::from_millis(200));
            sleeper.signal("STOP");
            stopped = Instant::now();
        }
        came.load(Ordering::SeqCst) == 2 * CONCURRENCY
    });
    let settled = || scene.database.held().len() == CONCURRENCY - SENT;
    wait_until("half of it is settled", settled);
    let held = scene.database.held();

    answered[0].store(CONCURRENCY, Ordering::SeqCst);
    sleeper.signal("CONT");
    let lost = |said: String| said.matches("the lease was lost while the message was being sent").count();
    wait_until("the first relay has been refused", || lost(sleeper.said()) == CONCURRENCY);
    assert_eq!(scene.database.held(), held, "what another relay holds stays as it is");
    answered[1].store(CONCURRENCY, Ordering::SeqCst);
    let ended = scene.finish(vec![sleeper, other]);

    let toll = scene.toll();
    run.say(format_args!("in flight when it was stopped: {CONCURRENCY}; {toll}"));
    let counts = |relay: usize| {
        let summary: serde_json::Value = serde_json::from_str(&ended[relay].stdout).unwrap();
        (summary["sent"].as_u64().unwrap(), summary["lease_lost"].as_u64().unwrap())
    };
    let all = CONCURRENCY as u64;
    assert_eq!((counts(0), counts(1)), ((0, all), (all, 0)), "the first is refused and says so");
    assert_eq!((toll.missing, toll.duplicates, toll.lost.len()), (0, CONCURRENCY, CONCURRENCY));
}
