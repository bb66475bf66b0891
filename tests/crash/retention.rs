//! Deletions and resends of mails that share attachments, while relays and enqueueing processes are killed, connections end and the server
//! crashes. Invariants 1, 4, 7.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mail_parser::{MessageParser, MimeHeaders};
use postrider::{AdminStore, DeliveryId, Filter, Prune, State, Stats, UpdateOutcome};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::Run;
use crate::database::{Database, Kind, on_store};
use crate::harness::Harness;
use crate::kill::kill;
use crate::maintenance::{KEY_AGE, Maintenance, prune_all};
use crate::outage::Down;
use crate::shop::{self, BLOBS, LATER, Order, REFUSED, Shop, blob, file_name, random_blob};
use crate::smtp_server::{Answer, Mail, SmtpServer, Step};
use crate::tool::{Running, wait_until};

/// Runs code with a store on a connection of its own.
macro_rules! with_store {
    ($database:expr, $store:ident => $what:expr) => {{
        let address = $database.address();
        $database.runtime.block_on(async {
            let pool = address.connect(1).await;
            on_store!(&pool, pool, $store => {
                let result = $what;
                pool.close().await;
                result
            })
        })
    }};
}

const RELAYS: usize = 2;
const SHOPS: usize = 2;

pub(crate) fn test(run: &Run, database: Database) {
    let rounds = run.count(5, 40);
    let mut random = run.random();
    let harness = Harness::with(database, next_hop());
    let database = &harness.database;
    for number in 0..BLOBS {
        database.tool.file(&file_name(number), blob(number));
    }

    let shop = Shop::open(database, SHOPS, &mut random);
    let maintenance = Maintenance::start(database, &mut random);
    let mut relays: Vec<_> = (0..RELAYS).map(|_| harness.relay("2s")).collect();
    for round in 0..rounds {
        wait_for_mails(&harness, &mut random);
        match round % 3 {
            0 => {
                relays.drain(..).for_each(kill);
                kill_enqueueing(&harness, &mut random);
                relays.extend((0..RELAYS).map(|_| harness.relay("2s")));
            }
            _ if database.kind == Kind::Sqlite => kill_enqueueing(&harness, &mut random),
            1 => database.kill_connections(&database.connections()),
            _ => drop(Down::crash(database.kind)),
        }
    }
    wait_for_mails(&harness, &mut random);
    let orders = shop.close(database);
    // Before the rest is sent, since a resend at the end would never be sent.
    let work = maintenance.stop();
    finish_deliveries(database);
    relays.iter().for_each(|relay| relay.signal("TERM"));
    relays.into_iter().map(Running::wait).for_each(|relay| assert_eq!(relay.code, 0, "{}", relay.stderr));

    let arrived = check_attachments(&harness.server.accepted());
    let resent: usize = work.resent.values().sum();
    let mails: usize = arrived.values().sum();
    run.print(format_args!(
        "{mails} mails arrived, of {} orders and {} other deliveries; {resent} resent, {} pruned, {} blobs swept, {} calls without an answer",
        orders.len(),
        arrived.keys().filter(|id| !orders.contains_key(*id)).count(),
        work.pruned,
        work.swept,
        work.unanswered,
    ));
    assert!(
        work.pruned > 0 && work.swept > 0 && resent > 0,
        "too little was deleted or resent for this test to show anything"
    );
    for (id, order) in &orders {
        let count = arrived.get(id).copied().unwrap_or_default();
        let resent = work.resent.get(&id.parse::<DeliveryId>().unwrap()).copied().unwrap_or_default();
        match order.recipient.as_str() {
            REFUSED | LATER => assert_eq!(count, 0, "a mail that was refused or cancelled arrived"),
            _ => assert!(count > resent, "{id} arrived {count} times, and was resent {resent} times"),
        }
    }
    check_dead_letters(database, &orders);
    check_counters(&harness);
    check_end(database, &orders);
}

/// A next hop that refuses one recipient, and takes some time for each mail.
fn next_hop() -> SmtpServer {
    SmtpServer::with_script(|step| match step {
        Step::Recipient(address) if address.contains(REFUSED) => Answer::Refuse("550 5.1.1 User unknown"),
        Step::Content => {
            std::thread::sleep(Duration::from_micros(rand::random_range(2_000..20_000)));
            Answer::Accept
        }
        _ => Answer::Accept,
    })
}

fn wait_for_mails(harness: &Harness, random: &mut StdRng) {
    let goal = harness.server.accepted_count() + random.random_range(15..50);
    wait_until("the relays send more mails", || harness.server.accepted_count() >= goal);
}

/// Kills a process that enqueues mails with the same attachments.
fn kill_enqueueing(harness: &Harness, random: &mut StdRng) {
    let files = [file_name(random_blob(random)), file_name(random_blob(random))];
    let args = ["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", "100"];
    let attach = ["--attach", &files[0], "--attach", &files[1]];
    let mut process = harness.database.tool.start(&[&args[..], &attach].concat());
    std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
    if process.try_wait().is_none() {
        process.signal("KILL");
        wait_until("the process is dead", || process.try_wait().is_some());
    }
}

/// Cancels what is scheduled, and waits until everything else is finished.
fn finish_deliveries(database: &Database) {
    let pending = Filter::new().state(State::Pending).recipient(LATER).limit(1_000);
    with_store!(database, store => {
        for delivery in store.list(&pending).await.unwrap() {
            // The operator may have cancelled it meanwhile, and retention deleted it.
            let cancelled = store.cancel(delivery.id).await.unwrap();
            let done = [UpdateOutcome::Updated, UpdateOutcome::Unchanged(State::Cancelled), UpdateOutcome::NotFound];
            assert!(done.contains(&cancelled), "{cancelled:?}");
        }
    });
    wait_until("all mails are finished", || {
        let stats = stats(database);
        stats.pending == 0 && stats.leased == 0
    });
}

/// Checks that each mail has the exact octets of its attachments. Returns how often each delivery arrived.
fn check_attachments(mails: &[Mail]) -> HashMap<String, usize> {
    let blobs: HashMap<String, Vec<u8>> = (0..BLOBS).map(|number| (file_name(number), blob(number))).collect();
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for mail in mails {
        let id = mail.delivery_id();
        let message = MessageParser::default().parse(&mail.content).unwrap();
        assert!(message.attachment_count() > 0, "{id} has no attachment");
        for attachment in message.attachments() {
            let name = attachment.attachment_name().unwrap();
            assert!(attachment.contents() == blobs[name], "{id}: {name} has other octets");
        }
        *arrived.entry(id).or_default() += 1;
    }
    arrived
}

/// Checks that only refused mails became dead letters. The hourly counts include deleted deliveries.
fn check_dead_letters(database: &Database, orders: &HashMap<String, Order>) {
    let refused = orders.values().filter(|order| order.recipient == REFUSED).count();
    let hourly = with_store!(database, store => store.hourly(std::time::UNIX_EPOCH).await.unwrap());
    let count = |event| hourly.iter().filter(|count| count.event == event).map(|count| count.count).sum::<u64>();
    assert!(refused > 0, "no mail was refused");
    assert_eq!(count(postrider::CountedEvent::Dead), refused as u64);
    assert_eq!(count(postrider::CountedEvent::Held), 0);
}

/// Sends further mails, which nothing deletes, and checks that the counters agree with the rows.
fn check_counters(harness: &Harness) {
    let database = &harness.database;
    let args = ["enqueue", "--from", "a@example.com", "--text", "x", "--count", "7", "--attach", &file_name(0)];
    for recipient in ["b@example.com", REFUSED] {
        database.tool.ok(&[&args[..], &["--to", recipient]].concat());
    }
    database.tool.drain(&harness.server.url());
    let stats = stats(database);
    let ended = |state: &str| database.count("ended", &format!("state = '{state}'")).cast_unsigned();
    let sent = "key_until IS NULL AND NOT EXISTS (SELECT 1 FROM {t}queue q WHERE q.delivery_id = t.id)
                AND NOT EXISTS (SELECT 1 FROM {t}ended e WHERE e.delivery_id = t.id AND e.state <> 'sent')";
    assert_eq!(stats.sent, database.count("deliveries", sent).cast_unsigned());
    assert_eq!((stats.dead, stats.in_doubt, stats.cancelled), (ended("dead"), ended("in_doubt"), ended("cancelled")));
    assert!(stats.sent >= 7 && stats.dead >= 7);
}

/// Checks that a last deletion leaves only the taken keys, and that a deletion that frees them leaves nothing.
fn check_end(database: &Database, orders: &HashMap<String, Order>) {
    let prune = prune_all(Prune::deliveries, Duration::ZERO);
    with_store!(database, store => store.prune(&prune.clone().keep_keys(KEY_AGE)).await.unwrap());
    let counts = |expected: i64| {
        assert_eq!(database.count("deliveries", "1 = 1"), expected);
        assert_eq!(database.count_bodies(), 0, "a body is kept");
        for table in ["queue", "ended", "attempts", "recipients", "body_blobs", "blobs"] {
            assert_eq!(database.count(table, "1 = 1"), 0, "{table}");
        }
        let Stats { pending, leased, sent, dead, in_doubt, cancelled, .. } = stats(database);
        assert_eq!([pending, leased, sent, dead, in_doubt, cancelled], [0; 6]);
    };
    let keys: HashMap<_, _> = orders.iter().filter_map(|(id, order)| Some((order.key.as_ref()?, id))).collect();
    assert!(!keys.is_empty(), "no key was used");
    counts(keys.len().try_into().unwrap());
    for (key, id) in &keys {
        assert_eq!(shop::enqueue_with_key(database, key), **id, "the key was not taken");
    }
    counts(keys.len().try_into().unwrap());
    with_store!(database, store => store.prune(&prune).await.unwrap());
    counts(keys.len().try_into().unwrap());
    // Their time is over.
    database.run("UPDATE {t}deliveries SET key_until = created_at");
    with_store!(database, store => store.prune(&prune).await.unwrap());
    counts(0);
    let ids: HashSet<_> = keys.values().copied().collect();
    let key = keys.keys().next().unwrap();
    assert!(!ids.contains(&shop::enqueue_with_key(database, key)), "the key is not free");
}

fn stats(database: &Database) -> Stats {
    with_store!(database, store => store.stats().await.unwrap())
}
