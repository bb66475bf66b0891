//! Many relays at once, while others enqueue.

use serde_json::Value;

use crate::Run;
use crate::database::Database;
use crate::scene::Scene;
use crate::server::Server;
use crate::tool::Running;

const RELAYS: usize = 8;
const WRITERS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let mails = run.count(2_000, 20_000) / WRITERS;
    run.say(format_args!("{RELAYS} relays, {} mails of {WRITERS} writers", mails * WRITERS));
    let mut scene = Scene::with(database, Server::start());
    let relays: Vec<_> = (0..RELAYS).map(|_| scene.relay("1m")).collect();
    let writers: Vec<_> = (0..WRITERS).map(|_| scene.start_enqueueing(mails)).collect();
    for writer in writers.into_iter().map(Running::wait).collect::<Vec<_>>() {
        scene.enqueued(mails, &writer);
    }
    let ended = scene.finish(relays);

    let toll = scene.toll();
    let summaries: Vec<Value> = ended.iter().map(|relay| serde_json::from_str(&relay.stdout).unwrap()).collect();
    let each = |what: &str| summaries.iter().map(|summary| summary[what].as_u64().unwrap()).collect::<Vec<_>>();
    run.say(format_args!("sent by each relay: {:?}", each("sent")));
    run.say(&toll);
    assert_eq!((toll.missing, toll.duplicates, toll.lost.len()), (0, 0, 0), "each is sent exactly once");
    assert_eq!(scene.server.accepted_count(), scene.ids.len());
    assert_eq!(each("sent").iter().sum::<u64>(), scene.ids.len() as u64);
    for nothing in ["retried", "released", "dead", "in_doubt", "lease_lost"] {
        assert_eq!(each(nothing).iter().sum::<u64>(), 0, "{nothing}");
    }
    assert!(each("sent").iter().filter(|sent| **sent > 0).count() > 1, "they have worked together");
}
