//! A database of version 1 with deliveries in every state.
//!
//! `tests/upgrade/v1` has dumps of what a program stored when version 1 was the newest. `POSTRIDER_DUMP=1 scripts/test -p postrider --test
//! upgrade` writes such dumps of the newest version, for a folder of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, DeliveryId, Email, Filter, NewDelivery, Outbox, Outcome, RetryPolicy, State};

use crate::added::{Upgrade, version_1};
use crate::stored::{KEPT_KEY, STORED, Stored, blobs, email, far_future, store_all};
use crate::support::database::{Database, Harness};
use crate::support::fixture::ada;

type TestOutbox<D> = Outbox<<D as Database>::Store, ScriptedTransport<Email>>;

/// Loads the dump and checks that every delivery is unchanged, unfinished ones are sent, and keys stay taken. Repeats that with the tables
/// of a later release.
pub(crate) async fn what_version_1_stored_is_kept_and_sent<D: Upgrade>(database: D) {
    let file = dump_file::<D>();
    if std::env::var_os("POSTRIDER_DUMP").is_some() {
        let harness = Harness::new(database.another()).await;
        store_all(&harness).await;
        for sql in D::BEFORE_DUMP {
            harness.run(sql).await;
        }
        if let Some(dump) = harness.database.dump() {
            std::fs::write(&file, dump).unwrap();
        }
    }
    let inserts = std::fs::read_to_string(&file).unwrap();
    for later in [false, true] {
        let database = database.another();
        let pool = database.pool(4).await;
        D::execute(&mut *pool.acquire().await.unwrap(), version_1(&database)).await.unwrap();
        let (drop, create): (Vec<_>, Vec<_>) = database.enqueue_triggers(&pool).await.into_iter().unzip();
        // On one connection, because another connection to SQLite may still use the dropped triggers.
        let mut connection = pool.acquire().await.unwrap();
        for sql in drop.into_iter().chain([database.rename_tables(&inserts)]).chain(create) {
            D::execute(&mut *connection, sql).await.unwrap();
        }
        connection.close().await.unwrap();
        let outbox = Outbox::new(database.store(pool), ScriptedTransport::<Email>::new());
        outbox.migrate().await.unwrap();
        if later {
            D::migrate_with_added(outbox.store()).await.unwrap();
        }
        let ids = check_stored::<D>(&outbox).await;
        check_keys::<D>(&outbox, &ids).await;
        check_sent::<D>(&outbox, &ids).await;
    }
}

fn dump_file<D: Upgrade>() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/v1").join(D::DUMP).with_extension("sql")
}

/// Reads each delivery through the public methods. Returns their ids.
async fn check_stored<D: Upgrade>(outbox: &TestOutbox<D>) -> BTreeMap<&'static str, DeliveryId> {
    let listed = outbox.list(&Filter::new()).await.unwrap();
    assert_eq!(listed.len(), STORED.len());
    let mut ids = BTreeMap::new();
    for summary in listed {
        let subject = summary.subject.unwrap();
        let expected = STORED.iter().find(|stored| stored.subject == subject).unwrap();
        let delivery = outbox.get(summary.id).await.unwrap().unwrap();
        assert_eq!(delivery.malformed, None, "{subject}");
        assert_eq!((delivery.state, delivery.cycle), (expected.state, expected.cycle), "{subject}");
        assert_eq!(summary.state, expected.state, "{subject}");
        let recipients: Vec<_> = delivery.recipients.iter().map(|to| (to.recipient.as_str(), to.state)).collect();
        assert_eq!(recipients, expected.recipients, "{subject}");
        let outcomes: Vec<Outcome> = delivery.attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, expected.outcomes, "{subject}");
        for attempt in delivery.attempts.iter() {
            assert_eq!(attempt.provider_id.as_deref(), (attempt.outcome == Outcome::Sent).then_some("provider-1"));
            assert_eq!(attempt.reply.is_some(), attempt.outcome != Outcome::InDoubt, "{subject}");
        }
        assert_eq!(delivery.key.as_deref(), expected.key, "{subject}");
        assert_eq!(delivery.template_id.as_deref(), Some("hello"));
        if subject.starts_with("Gr") {
            assert_eq!(
                (delivery.tags, delivery.priority.level()),
                (vec!["welcome".to_owned(), "two words".to_owned()], 9)
            );
            assert_eq!(delivery.expires_at, Some(far_future()));
        }
        let message = outbox.store().message(summary.id).await.unwrap();
        assert_eq!(message.is_none(), subject == "deleted message", "{subject}");
        ids.insert(expected.subject, summary.id);
    }
    let stats = outbox.stats().await.unwrap();
    let count = |state: State| STORED.iter().filter(|stored| stored.state == state).count() as u64;
    assert_eq!(
        (stats.pending, stats.leased, stats.sent),
        (count(State::Pending), count(State::Leased), count(State::Sent))
    );
    assert_eq!(
        (stats.dead, stats.in_doubt, stats.cancelled),
        (count(State::Dead), count(State::InDoubt), count(State::Cancelled))
    );
    let provider = outbox.count(&Filter::new().provider_id("provider-1")).await.unwrap();
    assert_eq!(provider as usize, STORED.iter().filter(|stored| stored.outcomes.contains(&Outcome::Sent)).count());
    ids
}

/// Checks that each key stays taken, also the one whose delivery is deleted.
async fn check_keys<D: Upgrade>(outbox: &TestOutbox<D>, ids: &BTreeMap<&'static str, DeliveryId>) {
    for Stored { subject, key, .. } in STORED {
        if let Some(key) = key {
            assert_eq!(outbox.enqueue(NewDelivery::new(ada()).key(key)).await.unwrap(), ids[subject], "{subject}");
        }
    }
    let kept = outbox.enqueue(NewDelivery::new(ada()).key(KEPT_KEY)).await.unwrap();
    assert!(outbox.get(kept).await.unwrap().is_none());
}

/// Sends the unfinished deliveries, and checks their recipients and blobs. The attempt of the leased delivery is recorded as lost.
async fn check_sent<D: Upgrade>(outbox: &TestOutbox<D>, ids: &BTreeMap<&'static str, DeliveryId>) {
    // The dump may be years old, so the age limit must be longer.
    let policy = RetryPolicy::default().max_age(Duration::from_secs(100 * 366 * 24 * 3_600));
    let unfinished: Vec<_> = STORED.iter().filter(|stored| !stored.sent_to.is_empty()).collect();
    let sent = outbox.relay().retry(policy).drain().await.unwrap().sent;
    assert_eq!(sent, unfinished.len() as u64);
    for call in outbox.transport().calls() {
        let subject = call.message.subject().to_owned();
        let stored =
            unfinished.iter().find(|stored| stored.subject == subject).unwrap_or_else(|| panic!("{subject} was sent"));
        assert_eq!(call.id, ids[stored.subject]);
        assert_eq!(call.recipients.iter().map(|to| to.as_str()).collect::<Vec<_>>(), stored.sent_to, "{subject}");
        let lost = u32::from(stored.state == State::Leased);
        assert_eq!(call.attempt as usize, stored.outcomes.len() + 1 + lost as usize, "{subject}");
        let expected = email(&subject);
        assert_eq!((call.message.text(), call.message.html()), (expected.text(), expected.html()));
        let attached: Vec<_> =
            call.message.attachments().iter().map(|attachment| attachment.content().to_vec()).collect();
        assert_eq!(attached, if subject.contains("shared") { blobs().to_vec() } else { Vec::new() }, "{subject}");
    }
}
