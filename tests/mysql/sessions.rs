//! Databases and sessions with unusual settings.

use std::time::{Duration, SystemTime};

use postrider::store::{Claim, Lease, Next, RecipientOutcome, RelayId, RelayReport, Settled, Settlement, When};
use postrider::transport::{Blob, MessageSummary, Recipient};
use postrider::{
    AdminStore, Attempt, CountedEvent, DeliveryId, Filter, MySqlStore, Outcome, Prune, RecipientState, State, Store,
    UpdateOutcome,
};
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};

use crate::support::database::{Database, MySql, unique_prefix};
use crate::support::fixture::{SECOND, keyed_row, row};
use crate::{failed, outbox, pool, run};

/// Default character sets of a database. In UTF-16, UCS-2 and UTF-32, even ASCII characters have other bytes than in ASCII.
const DEFAULTS: [&str; 8] = [
    "utf16 COLLATE utf16_bin",
    "ucs2",
    "utf32",
    "latin1",
    "latin1 COLLATE latin1_bin",
    "ascii",
    "utf8mb3",
    "utf8mb4 COLLATE utf8mb4_unicode_ci",
];

/// A text that must come back unchanged, and equal no text that differs in case or accents.
const WORDS: &str = "Grüße, GRÜSSE ✓ 𝄞";

/// SQL modes of both servers that change the meaning of SQL. `ANSI` reserves the names of functions.
const MODES: [&str; 5] = [
    "",
    "ANSI",
    "TRADITIONAL,NO_BACKSLASH_ESCAPES",
    "HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION,PAD_CHAR_TO_FULL_LENGTH,ONLY_FULL_GROUP_BY",
    "NO_AUTO_VALUE_ON_ZERO,NO_DIR_IN_CREATE,REAL_AS_FLOAT",
];

/// SQL modes of one server. `ORACLE` is another dialect, in which an empty text may be NULL.
const MARIADB_MODES: [&str; 3] =
    ["ORACLE", "EMPTY_STRING_IS_NULL,SIMULTANEOUS_ASSIGNMENT", "POSTGRESQL,TIME_ROUND_FRACTIONAL"];
const MYSQL_MODES: [&str; 1] = ["TIME_TRUNCATE_FRACTIONAL"];

fn attempt(lease: &Lease, outcome: Outcome) -> Attempt {
    let mut attempt = Attempt::new(lease.attempts + 1, lease.cycle, lease.claimed_at, lease.claimed_at, outcome);
    attempt.reply = Some(WORDS.to_owned());
    attempt.transport = Some(WORDS.to_owned());
    attempt
}

fn settlement(lease: &Lease, outcome: Outcome, next: Next) -> Settlement {
    Settlement::new(lease.key, 0, next).with_attempt(attempt(lease, outcome))
}

pub(crate) async fn every_statement_works_in_every_default_character_set(server: MySql) {
    let root = pool(server.options(), 1).await;
    for default in DEFAULTS {
        let name = unique_prefix();
        run(&root, &format!("CREATE DATABASE {name} CHARACTER SET {default}")).await;
        let pool = pool(server.options().database(&name), 3).await;
        every_statement(&pool, "postrider_", default).await;
        pool.close().await;
        run(&root, &format!("DROP DATABASE {name}")).await;
    }
}

pub(crate) async fn every_statement_works_in_every_sql_mode(server: MySql) {
    let root = pool(server.options(), 1).await;
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&root).await.unwrap();
    let own = if version.contains("MariaDB") { &MARIADB_MODES[..] } else { &MYSQL_MODES };
    for modes in MODES.iter().chain(own) {
        let pool = MySqlPoolOptions::new()
            .max_connections(3)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let set = format!("SET sql_mode = '{modes}'");
                    sqlx::Executor::execute(connection, AssertSqlSafe(set)).await?;
                    Ok(())
                })
            })
            .connect_with(server.options())
            .await
            .unwrap();
        every_statement(&pool, &unique_prefix(), modes).await;
    }
}

/// Runs every statement of the store.
async fn every_statement(pool: &MySqlPool, prefix: &str, label: &str) {
    let store = MySqlStore::with_table_prefix(pool.clone(), prefix).unwrap();
    store.migrate().await.unwrap_or_else(|error| panic!("{label}: {error}"));
    let mut ours = keyed_row(WORDS);
    ours.message.body = WORDS.to_owned();
    ours.message.text = Some(WORDS.to_owned());
    ours.message.html = Some(WORDS.to_owned());
    ours.message.blobs = vec![Blob::new(WORDS.as_bytes())];
    ours.summary = MessageSummary::new().with_subject(WORDS).with_tags(vec![WORDS.to_owned()]);
    ours.template_id = Some(WORDS.to_owned());
    ours.recipients = ["ada@example.com", "ädä@example.com"].map(Recipient::new).into();
    let id = store.insert(vec![ours.clone()]).await.unwrap()[0];
    assert_eq!(store.insert(vec![ours.clone()]).await.unwrap(), [id], "{label}: the key was not found again");
    // Another program leaves the id and the times to the database.
    let theirs = "(format, `body`, recipients) VALUES ('email/1', ?, '[\"bob@example.com\"]')";
    let insert = sqlx::query(AssertSqlSafe(format!("INSERT INTO {prefix}deliveries {theirs}")));
    let body = format!(r#"{{"subject": "{WORDS}", "tags": ["{WORDS}"]}}"#);
    insert.bind(body).execute(pool).await.unwrap_or_else(|error| panic!("{label}: {error}"));

    // A claim is released, and a row of the queue has no mail.
    let lost = Claim::new(10, SECOND * 60);
    assert_eq!(store.claim(lost).await.unwrap().len(), 2, "{label}");
    assert_eq!(store.release_claims(&[lost.id]).await.unwrap(), 2, "{label}");
    let orphan = "(delivery_id, priority, due_at, cycle_started_at) VALUES (UNHEX(REPEAT('0', 32)), 9, 0, 0)";
    run(pool, &format!("INSERT INTO {prefix}queue {orphan}")).await;

    let claim = async |count: usize| {
        let leases = store.claim(Claim::new(10, SECOND * 60)).await.unwrap();
        assert_eq!(leases.len(), count, "{label}");
        leases
    };
    let settle = async |settlements: &[Settlement]| {
        let settled = store.settle(settlements).await.unwrap();
        assert_eq!(settled, vec![Settled::Applied; settlements.len()], "{label}");
    };
    let leases = claim(2).await;
    let lease = leases.iter().find(|lease| lease.key.id == id).unwrap();
    assert_eq!((&lease.message, lease.recipients.len()), (&ours.message, 2), "{label}");
    let keys: Vec<_> = leases.iter().map(|lease| lease.key).collect();
    assert_eq!(store.renew(&keys, SECOND * 60).await.unwrap(), [Settled::Applied; 2], "{label}");
    // One recipient has the mail, and the other is retried; the other program's mail is sent.
    let one = RecipientOutcome::new(lease.recipients[0].clone(), RecipientState::Sent, Some(WORDS.to_owned()));
    let back =
        settlement(lease, Outcome::Transient, Next::Pending { after: Duration::ZERO }).with_recipients(vec![one]);
    let other = leases.iter().find(|lease| lease.key.id != id).unwrap();
    settle(&[back, settlement(other, Outcome::Sent, Next::Sent)]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let again = claim(1).await.remove(0);
    assert_eq!(again.recipients, lease.recipients[1..], "{label}: a recipient who has the mail gets it again");
    settle(&[settlement(&again, Outcome::Permanent, Next::Dead { reason: WORDS.to_owned() })]).await;

    let shown = store.get(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.reason.as_deref()), (State::Dead, Some(WORDS)), "{label}");
    assert_eq!((shown.key.as_deref(), shown.template_id.as_deref()), (Some(WORDS), Some(WORDS)), "{label}");
    assert_eq!(shown.attempts[0].reply.as_deref(), Some(WORDS), "{label}");
    assert_eq!(shown.recipients[0].state, RecipientState::Sent, "{label}");
    let listed = |state| Filter::new().state(state);
    assert_eq!(store.list(&listed(State::Dead).template_id(WORDS)).await.unwrap().len(), 1, "{label}");
    let lower = WORDS.to_lowercase();
    assert_eq!(store.list(&listed(State::Dead).template_id(lower)).await.unwrap().len(), 0, "{label}");
    assert_eq!(store.list(&listed(State::Sent)).await.unwrap()[0].id, other.key.id, "{label}");
    let all = Filter::new().recipient("ÄDÄ@example.com").subject_prefix(WORDS).tag(WORDS).key(WORDS).error(WORDS);
    for (filter, count) in [
        (all.clone().finished_before(SystemTime::now() + SECOND * 60), 1),
        (all.created_before(SystemTime::now() - SECOND * 60), 0),
        (Filter::new().recipient("@example.com").tag(WORDS).created_from(SystemTime::now() - SECOND * 60), 2),
        (Filter::new().provider_id(WORDS).transport(WORDS), 0),
    ] {
        assert_eq!(store.count(&filter).await.unwrap(), count, "{label}: {filter:?}");
    }
    assert_eq!(store.message(id).await.unwrap().unwrap(), ours.message, "{label}");
    for id in [id, other.key.id] {
        let shown = store.get(id).await.unwrap().unwrap();
        assert_eq!((shown.subject.as_deref(), &*shown.tags), (Some(WORDS), &[WORDS.to_owned()][..]), "{label}");
    }

    assert_eq!(store.resend(id).await.unwrap(), UpdateOutcome::Updated, "{label}");
    assert_eq!(store.cancel(id).await.unwrap(), UpdateOutcome::Updated, "{label}");
    store.report(&RelayReport::new(RelayId::new(), 1, Some(WORDS.to_owned()))).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.sent, stats.cancelled), (0, 1, 1), "{label}");
    assert_eq!(stats.relays[0].paused.as_deref(), Some(WORDS), "{label}");
    let hourly = store.hourly(SystemTime::now()).await.unwrap();
    assert_eq!(hourly.iter().filter(|count| count.event == CountedEvent::Cancelled).count(), 1, "{label}: {hourly:?}");
    let views = format!(
        "SELECT (SELECT COUNT(*) FROM {prefix}mail WHERE id = '{id}' AND state = 'cancelled' AND `key` = ?
                     AND ABS(TIMESTAMPDIFF(SECOND, finished_at, UTC_TIMESTAMP())) < 60)
              + (SELECT COUNT(*) FROM {prefix}overview WHERE state = 'cancelled' AND deliveries = 1)"
    );
    let seen: i64 = sqlx::query_scalar(AssertSqlSafe(views)).bind(WORDS).fetch_one(pool).await.unwrap();
    assert_eq!(seen, 2, "{label}");
    let ended = |prune: Prune| prune.state(State::Cancelled);
    assert_eq!(store.prune(&ended(Prune::history(Duration::ZERO))).await.unwrap(), 1, "{label}");
    assert_eq!(store.prune(&ended(Prune::messages(Duration::ZERO))).await.unwrap(), 1, "{label}");
    let deliveries = ended(Prune::deliveries(Duration::ZERO)).state(State::Sent);
    assert_eq!(store.prune(&deliveries.clone().keep_keys(SECOND * 60)).await.unwrap(), 2, "{label}");
    assert_eq!(store.insert(vec![ours.clone()]).await.unwrap(), [id], "{label}: the key is free");
    assert_eq!(store.prune(&deliveries).await.unwrap(), 0, "{label}");
    ours.id = DeliveryId::new();
    assert_eq!(store.insert(vec![ours.clone()]).await.unwrap(), [id], "{label}: another prune freed the key");
}

/// Sessions far from UTC, in modes that change the meaning of quotes and bars. Invariant 8.
pub(crate) async fn time_zones_and_modes_change_no_text_and_no_time(server: MySql) {
    let (prefix, _, outbox) = outbox(&server).await;
    let modes = "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES";
    for (zone, modes) in [("+13:00", modes), ("-11:00", "")] {
        let pool = MySqlPoolOptions::new()
            .max_connections(3)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let set = format!("SET time_zone = '{zone}', sql_mode = '{modes}'");
                    sqlx::Executor::execute(connection, AssertSqlSafe(set)).await?;
                    Ok(())
                })
            })
            .connect_with(server.options())
            .await
            .unwrap();
        let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap();
        store.migrate().await.unwrap();
        let mut later = row();
        later.due = Some(When::After(SECOND * 1_800));
        let id = store.insert(vec![later]).await.unwrap()[0];
        for store in [&store, outbox.store()] {
            let wait = store.next_due().await.unwrap().unwrap();
            assert!(wait > SECOND * 1_000 && wait <= SECOND * 1_800, "{zone}: {wait:?}");
        }
        let (ours, theirs) = (outbox.store().now().await.unwrap(), store.now().await.unwrap());
        assert!(theirs.duration_since(ours).unwrap_or_default() < SECOND * 1_000, "{zone}");
        assert!(ours.duration_since(theirs).unwrap_or_default() < SECOND * 1_000, "{zone}");
        assert_eq!(store.cancel(id).await.unwrap(), UpdateOutcome::Updated);
        assert_eq!(store.resend(id).await.unwrap(), UpdateOutcome::Updated);
        let lease = outbox.store().claim(Claim::new(1, SECOND * 60)).await.unwrap().remove(0);
        assert_eq!(
            store.claim(Claim::new(1, SECOND * 60)).await.unwrap().len(),
            0,
            "{zone}: a leased delivery was claimed"
        );
        let text = "quotes ' \" ` \\ \\n \n \t NUL \0 bars || ✓ 𝄞 % _ ?";
        let dead = failed(&lease, text, Next::Dead { reason: text.to_owned() });
        assert_eq!(store.settle(&[dead]).await.unwrap(), [Settled::Applied]);
        let shown = store.get(id).await.unwrap().unwrap();
        assert_eq!(shown.reason.as_deref(), Some(text));
        let attempt = &shown.attempts[0];
        let texts = [&attempt.error, &attempt.reply, &attempt.transport];
        assert_eq!(texts.map(Option::as_deref), [Some(text); 3]);
    }
}
