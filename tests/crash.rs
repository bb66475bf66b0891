//! A relay that is killed again and again loses no mail, and sends no more twice than it had in its hands.
//!
//! `POSTRIDER_SOAK=1` kills it 50 times instead of 10; `POSTRIDER_SEED` repeats the moments of a run as nearly as that is possible.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cli/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod server;
#[path = "cli/tool.rs"]
#[allow(dead_code, reason = "shared with the tests of the tool, which use all of it")]
mod tool;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use server::{Answer, Ask, Mail, Server};
use tool::{Running, Tool, wait_until};

const MAILS: usize = 2_000;
const CONCURRENCY: usize = 8;

/// The right to send a delivery: its id and its token.
type Held = (String, i64);

#[test]
fn nothing_is_lost_when_a_relay_is_killed() {
    let kills = if std::env::var_os("POSTRIDER_SOAK").is_some() { 50 } else { 10 };
    let seed = std::env::var("POSTRIDER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("seed {seed}, {kills} kills, {MAILS} mails, concurrency {CONCURRENCY}");
    let mut random = StdRng::seed_from_u64(seed);

    // Slow and uneven, so that there is always something under way.
    let server = Server::with(|ask| {
        if let Ask::Content = ask {
            std::thread::sleep(Duration::from_micros(rand::random_range(10_000..40_000)));
        }
        Answer::Yes
    });
    let tool = Tool::new();
    let count = MAILS.to_string();
    let printed =
        tool.ok(&["enqueue", "--from", "a@example.com", "--to", "b@example.com", "--text", "x", "--count", &count]);
    let ids: HashSet<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), MAILS);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = SqliteConnectOptions::new().filename(tool.directory().join("outbox.db"));
    let database = runtime.block_on(SqlitePool::connect_with(options)).unwrap();

    // What each kill caught in the dead relay's hands.
    let mut caught: Vec<Vec<Held>> = Vec::new();
    let mut known: HashSet<Held> = HashSet::new();
    for kill_number in 0..kills {
        let relay = start(&tool, &server);
        // About an even share of what is left, so that every kill finds a relay at work.
        let left = MAILS - by_delivery(server.accepted()).len();
        let share = random.random_range(1..=2 * left / (kills - kill_number + 2));
        let goal = server.accepted_count() + share;
        wait_until("the relay is in the midst of its work", || server.accepted_count() >= goal);
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        kill(relay);
        let held = runtime.block_on(held(&database));
        let fresh: Vec<Held> = held.into_iter().filter(|held| known.insert(held.clone())).collect();
        caught.push(fresh);
    }
    let in_flight: Vec<usize> = caught.iter().map(Vec::len).collect();
    let hits = in_flight.iter().filter(|count| **count > 0).count();

    let last = start(&tool, &server);
    wait_until("all is sent", || tool.stats()["sent"] == MAILS);
    last.signal("TERM");
    assert_eq!(last.wait().code, 0);

    let accepted = by_delivery(server.accepted());
    let missing = ids.iter().filter(|id| !accepted.contains_key(*id)).count();
    let duplicates: usize = accepted.values().map(|mails| mails.len() - 1).sum();
    println!("in flight at each kill: {in_flight:?}, {} in all", known.len());
    println!("not accepted by the server: {missing}; accepted once too often: {duplicates}");

    assert!(hits * 2 > kills, "the kills must hit a relay at work, or this test shows nothing");
    assert_eq!(missing, 0, "nothing is lost");
    assert_eq!(accepted.len(), MAILS, "nothing came that was not enqueued");
    assert!(duplicates <= known.len(), "no more comes twice than was in flight at the kills");
    assert!(in_flight.iter().all(|count| *count <= CONCURRENCY), "a relay holds no more than it may send at once");
    for mails in accepted.values() {
        assert!(mails.iter().all(|mail| *mail == mails[0]), "each attempt sends the same bytes");
    }

    let history = runtime.block_on(history(&database));
    let lost = check_history(&ids, &history);
    println!("attempts written down as lost: {}", lost.len());
    assert_eq!(lost, known, "what a dead relay held is written down as lost, and nothing else is");
    for (id, mails) in &accepted {
        let lost = history[id].iter().filter(|attempt| attempt.outcome == "lost").count();
        assert!(mails.len() - 1 <= lost, "{id} came {} times, and {lost} attempts are lost", mails.len());
    }
}

fn start(tool: &Tool, server: &Server) -> Running {
    let concurrency = CONCURRENCY.to_string();
    let url = server.url();
    tool.start(&["work", "--concurrency", &concurrency, "--lease", "1s", "--poll", "50ms", "--transport", &url])
}

fn kill(mut relay: Running) {
    assert!(relay.ended().is_none(), "it works until it is killed: {}", relay.said());
    relay.signal("KILL");
    wait_until("the relay is dead", || relay.ended().is_some());
}

fn by_delivery(mails: Vec<Mail>) -> HashMap<String, Vec<Mail>> {
    let mut by_delivery: HashMap<_, Vec<_>> = HashMap::new();
    for mail in mails {
        by_delivery.entry(mail.delivery()).or_default().push(mail);
    }
    by_delivery
}

async fn held(database: &SqlitePool) -> Vec<Held> {
    let rows = sqlx::query("SELECT delivery_id, token FROM postrider_queue WHERE leased_at IS NOT NULL");
    rows.fetch_all(database).await.unwrap().iter().map(|row| (row.get("delivery_id"), row.get("token"))).collect()
}

struct Attempt {
    number: i64,
    token: i64,
    outcome: String,
    started_at: i64,
    finished_at: i64,
}

async fn history(database: &SqlitePool) -> HashMap<String, Vec<Attempt>> {
    let rows = sqlx::query("SELECT * FROM postrider_attempts ORDER BY delivery_id, number");
    let mut history: HashMap<String, Vec<Attempt>> = HashMap::new();
    for row in rows.fetch_all(database).await.unwrap() {
        history.entry(row.get("delivery_id")).or_default().push(Attempt {
            number: row.get("number"),
            token: row.get("token"),
            outcome: row.get("outcome"),
            started_at: row.get("started_at"),
            finished_at: row.get("finished_at"),
        });
    }
    history
}

/// Every delivery has attempts 1, 2, 3 …, of which the last one sent it and the others were lost. Returns those.
fn check_history(ids: &HashSet<String>, history: &HashMap<String, Vec<Attempt>>) -> HashSet<Held> {
    assert_eq!(history.keys().cloned().collect::<HashSet<_>>(), *ids);
    let mut lost = HashSet::new();
    for (id, attempts) in history {
        let (last, earlier) = attempts.split_last().unwrap();
        assert_eq!(last.outcome, "sent", "{id}");
        for (expected, attempt) in (1..).zip(attempts) {
            assert_eq!(attempt.number, expected, "{id}");
            assert!(attempt.started_at <= attempt.finished_at, "{id}");
        }
        for pair in attempts.windows(2) {
            assert!(pair[0].token < pair[1].token, "{id}: the token only grows");
            assert!(pair[0].finished_at <= pair[1].started_at, "{id}: one attempt after the other");
        }
        for attempt in earlier {
            assert_eq!(attempt.outcome, "lost", "{id}");
            assert!(lost.insert((id.clone(), attempt.token)), "{id}");
        }
    }
    lost
}
