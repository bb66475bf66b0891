//! Relays that are killed.

use std::collections::HashSet;
use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::database::{Database, Held};
use crate::scene::{CONCURRENCY, Scene};
use crate::tool::{Running, wait_until};

const RELAYS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let kills = run.count(10, 100);
    run.say(format_args!("{kills} kills of {RELAYS} relays of concurrency {CONCURRENCY}"));
    let mut random = run.random();
    let mut scene = Scene::slow(database);

    // What the kills caught in the dead relays' hands.
    let mut in_flight: Vec<usize> = Vec::new();
    let mut known: HashSet<Held> = HashSet::new();
    for _ in 0..kills {
        let relays: Vec<_> = (0..RELAYS).map(|_| scene.relay("2s")).collect();
        scene.wait_amid_work(&mut random);
        for relay in relays {
            kill(relay);
            std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
        }
        // A statement that was under way may still come to its end.
        wait_until("the server has noticed", || scene.database.connections().is_empty());
        in_flight.push(scene.database.held().into_iter().filter(|held| known.insert(held.clone())).count());
    }
    scene.finish(vec![scene.relay("2s")]);

    let toll = scene.toll();
    run.say(format_args!("in flight at each kill: {in_flight:?}, {} in all", known.len()));
    run.say(&toll);
    let hits = in_flight.iter().filter(|count| **count > 0).count();
    assert!(hits * 2 > kills, "the kills must hit relays at work, or this test shows nothing");
    assert!(
        in_flight.iter().all(|count| *count <= RELAYS * CONCURRENCY),
        "a relay holds no more than it may send at once"
    );
    assert_eq!(toll.missing, 0, "nothing is lost");
    assert!(toll.duplicates <= known.len(), "no more comes twice than was in flight at the kills");
    assert_eq!(toll.lost, known, "what a dead relay held is written down as lost, and nothing else is");
}

fn kill(mut relay: Running) {
    assert!(relay.ended().is_none(), "it works until it is killed: {}", relay.said());
    relay.signal("KILL");
    wait_until("the relay is dead", || relay.ended().is_some());
}
