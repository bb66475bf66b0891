//! Connections of relays that the server ends.

use std::time::Duration;

use rand::RngExt;

use crate::Run;
use crate::database::Database;
use crate::outage::check_logs;
use crate::scene::{CONCURRENCY, Scene};

const RELAYS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let rounds = run.count(20, 200);
    run.say(format_args!("{rounds} times at random connections of {RELAYS} relays of concurrency {CONCURRENCY}"));
    let mut random = run.random();
    let mut scene = Scene::slow(database);

    let relays: Vec<_> = (0..RELAYS).map(|_| scene.relay("2s")).collect();
    let (mut in_flight, mut ended) = (Vec::new(), 0);
    for _ in 0..rounds {
        scene.wait_amid_work(&mut random);
        let connections: Vec<_> =
            scene.database.connections().into_iter().filter(|_| random.random_ratio(1, 2)).collect();
        in_flight.push(scene.database.held().len());
        scene.database.sever(&connections);
        ended += connections.len();
        std::thread::sleep(Duration::from_micros(random.random_range(0..5_000)));
    }
    let relays = scene.finish(relays);

    let toll = scene.toll();
    run.say(format_args!("{ended} connections ended; in flight each time: {in_flight:?}"));
    run.say(&toll);
    let outages = check_logs(&relays);
    run.say(format_args!("outages that each relay told of: {outages:?}"));
    assert!(ended >= rounds, "there was little to end: this test shows nothing");
    assert!(outages.iter().all(|outages| *outages <= rounds), "one line for each time");
    assert_eq!(toll.missing, 0, "nothing is lost");
    assert!(toll.duplicates <= toll.lost.len());
    assert!(toll.lost.len() <= rounds * RELAYS * CONCURRENCY, "no more is in doubt than was in flight");
}
