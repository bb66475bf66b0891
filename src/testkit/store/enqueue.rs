//! Tests of enqueueing.

use postrider_transport::{Blob, Encoded, MessageSummary, TraceParent};

use super::{StoreUnderTest, claim_one, dead, get, insert_one, row, row_for, settle, traceparent};
use crate::state::{Priority, WhenInDoubt};
use crate::store::{NewRow, Settled, TestClock, When};
use crate::{AdminStore, Filter, Prune, State, Store};

/// A delivery exists if and only if the transaction that enqueued it commits. Invariant 1.
pub async fn a_commit_enqueues_and_a_rollback_does_not<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let rolled_back = fixture.insert_in_transaction(&store, vec![row(), row()], false).await;
    let committed = fixture.insert_in_transaction(&store, vec![row(), row()], true).await;
    for id in rolled_back {
        assert!(store.get(id).await.expect("getting works").is_none(), "a rolled-back delivery exists");
    }
    for id in &committed {
        assert_eq!(get(&store, *id).await.state, State::Pending);
    }
    let claimed = super::claim(&store, 10).await;
    assert_eq!(claimed.len(), committed.len());
}

/// A message with a body, texts of all sizes and blobs of all bytes.
fn message_with_parts(body: String) -> Encoded {
    let mut message = Encoded::new("test/7", body);
    message.text = Some("Dear 'Ada' \\ \u{1}✓\r\n".repeat(100_000));
    message.html = Some(String::new());
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    // In the order of their hashes, which is the order that a store may return.
    message.blobs = vec![Blob::new(bytes), Blob::new([]), Blob::new(*b"0")];
    message.blobs.sort_by_key(Blob::hash);
    message
}

/// A message and its options are stored unchanged.
pub async fn a_message_is_stored_unchanged<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    // All rare characters except NUL, which some databases cannot store.
    let rare: String =
        ('\u{1}'..=' ').chain(['\u{7f}', '\u{85}', '\u{2028}', '\u{feff}', '\u{ffff}', '\u{10ffff}']).collect();
    let body = format!("{rare}quotes ' \\\" \\\\ ✓ 𝄞 \\u0000 {} {rare}\r\n\\N\n ", "long ".repeat(200_000));
    let new = NewRow {
        message: message_with_parts(body),
        summary: MessageSummary::new()
            .with_subject(format!("Wel'come \0✓{}", "é".repeat(2 * NewRow::MAX_SUBJECT)))
            .with_tags(vec!["new'".to_owned(), "✓".to_owned()]),
        template_id: Some("wel'come ✓".to_owned()),
        key: Some("a key '✓'".to_owned()),
        priority: Priority::URGENT,
        due: Some(When::At(clock.now())),
        expires: Some(When::After(super::LEASE * 10)),
        when_in_doubt: WhenInDoubt::Hold,
        traceparent: TraceParent::new([0x0f; 16], [0xf0; 8], 3),
        ..row_for(&["ada@example.com", "\"b o'b\"@example.com", "пошта@example.com"])
    };
    let id = insert_one(&store, new.clone()).await;
    let lease = claim_one(&store).await;
    assert_eq!(lease.key.id, id);
    assert_eq!(id, new.id);
    assert_eq!(lease.message, new.message);
    assert_eq!(lease.recipients, new.recipients);
    assert_eq!(lease.template_id, new.template_id);
    assert_eq!(lease.when_in_doubt, WhenInDoubt::Hold);
    assert_eq!(lease.traceparent, new.traceparent);
    assert_eq!(lease.dated_at, clock.now());
    assert_eq!(lease.expires_at, Some(clock.now() + super::LEASE * 10));
    assert_eq!(
        (lease.attempts, lease.cycle, lease.charged_attempts, lease.lost, lease.any_accepted),
        (0, 1, 0, false, false)
    );
    assert_eq!(store.message(id).await.expect("reading works"), Some(new.message));
    let shown = get(&store, id).await;
    assert_eq!((shown.key, shown.priority), (new.key, Priority::URGENT));
    assert_eq!((shown.template_id, shown.traceparent), (new.template_id, new.traceparent));
    let subject: String = format!("Wel'come ✓{}", "é".repeat(NewRow::MAX_SUBJECT - 10));
    assert_eq!(
        (shown.subject.as_deref(), &shown.tags),
        (Some(&*subject), &new.summary.tags),
        "NUL is removed and the rest cut"
    );
    let listed = store.list(&Filter::new()).await.expect("listing works").remove(0);
    assert_eq!(
        (listed.subject, listed.recipient, listed.recipients),
        (Some(subject), Some(new.recipients[0].clone()), 3)
    );
}

/// Each delivery of a batch keeps its own options. One batch has a delivery with special options, one has the same options for all, and
/// one has none.
pub async fn each_row_of_a_batch_keeps_its_own_options<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let plain = || NewRow { message: Encoded::new("email/1", row().message.body), ..row() };
    let special = || NewRow {
        template_id: Some("welcome".to_owned()),
        priority: Priority::URGENT,
        due: Some(When::After(super::SECOND)),
        expires: Some(When::After(super::LEASE * 10)),
        when_in_doubt: WhenInDoubt::Hold,
        traceparent: traceparent(),
        ..row_for(&["bob@example.com"])
    };
    let keyed = |key: &str| NewRow { key: Some(key.to_owned()), ..special() };
    let templated = |name: &str| NewRow { template_id: Some(name.to_owned()), ..plain() };
    for together in [
        vec![plain(), plain()],
        vec![special(), special()],
        vec![plain(), special(), plain()],
        vec![plain(), keyed("one"), plain()],
        vec![keyed("two"), keyed("three")],
        vec![templated("order"), templated("order")],
        vec![templated("order"), templated("receipt"), plain()],
    ] {
        let enqueued = clock.now();
        store.insert(together.clone()).await.expect("inserting works");
        clock.advance(super::SECOND);
        let claimed = super::claim(&store, 10).await;
        assert_eq!(claimed.len(), together.len());
        for row in together {
            let lease = claimed.iter().find(|lease| lease.key.id == row.id).expect("it is claimed");
            assert_eq!((&lease.message, &lease.recipients), (&row.message, &row.recipients));
            assert_eq!((&lease.template_id, lease.when_in_doubt), (&row.template_id, row.when_in_doubt));
            assert_eq!(lease.traceparent, row.traceparent);
            assert_eq!(lease.dated_at, if row.due.is_some() { clock.now() } else { enqueued });
            assert_eq!(lease.expires_at, row.expires.map(|_| enqueued + super::LEASE * 10));
            let shown = get(&store, row.id).await;
            assert_eq!((&shown.template_id, &shown.key, shown.priority), (&row.template_id, &row.key, row.priority));
            assert_eq!(shown.traceparent, row.traceparent);
        }
    }
}

/// Deliveries share blobs: within a call, between calls, and after a rollback. A delivery whose key is taken adds none.
pub async fn deliveries_share_blobs<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let (logo, letter) = (Blob::new(vec![7; 50_000]), Blob::new(*b"letter"));
    let with = |blobs: &[&Blob], key: Option<&str>| {
        let mut new = row();
        new.message.blobs = blobs.iter().map(|blob| (*blob).clone()).collect();
        new.message.blobs.sort_by_key(Blob::hash);
        new.key = key.map(str::to_owned);
        new
    };
    fixture.insert_in_transaction(&store, vec![with(&[&logo, &letter], Some("key"))], false).await;
    let rows = vec![with(&[&logo], None), row(), with(&[&letter, &logo], Some("key")), with(&[&logo], Some("key"))];
    let mut expected = vec![rows[0].clone(), rows[1].clone(), rows[2].clone()];
    let ids = store.insert(rows).await.expect("inserting works");
    assert_eq!(ids[2], ids[3], "the key is taken within the call");
    let later = vec![with(&[&logo], None), with(&[&Blob::new(*b"other")], Some("key"))];
    expected.push(later[0].clone());
    let ids = fixture.insert_in_transaction(&store, later, true).await;
    assert_eq!(ids[1], expected[2].id);
    let mut leases = super::claim(&store, 10).await;
    assert_eq!(leases.len(), expected.len());
    for new in expected {
        let place = leases.iter().position(|lease| lease.key.id == new.id).expect("it is claimed");
        assert_eq!(leases.swap_remove(place).message, new.message);
        assert_eq!(store.message(new.id).await.expect("reading works"), Some(new.message));
    }
}

/// A recipient that is listed twice is mailed once, and has one outcome.
pub async fn a_duplicate_recipient_counts_once<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row_for(&["ada@example.com", "bob@example.com", "ada@example.com"])).await;
    let lease = claim_one(&store).await;
    let names: Vec<_> = lease.recipients.iter().map(|recipient| recipient.as_str()).collect();
    assert_eq!(names, ["ada@example.com", "bob@example.com"]);
    let mut settlement = dead(&lease);
    for recipient in lease.recipients.iter().chain(&lease.recipients) {
        let recipient = recipient.clone();
        let state = crate::RecipientState::Refused;
        settlement.recipients.push(crate::store::RecipientOutcome { recipient, state, reply: Some("550".to_owned()) });
    }
    assert_eq!(settle(&store, settlement).await, Settled::Applied, "a duplicate outcome is accepted");
    assert_eq!(get(&store, id).await.recipients.len(), 2);
    assert_eq!(store.resend(id).await.expect("resending works"), crate::UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.recipients.len(), 2);
}

/// While a delivery with a key exists, in any state, another one with the key is not added, and the id of the first one is returned.
pub async fn a_key_enqueues_one_delivery<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let keyed = || NewRow { key: Some("order-1".to_owned()), ..row() };
    let together = store.insert(vec![keyed(), row(), keyed()]).await.expect("inserting works");
    assert_eq!(together[0], together[2]);
    assert_ne!(together[0], together[1]);
    assert_eq!(insert_one(&store, keyed()).await, together[0]);
    let in_transaction = fixture.insert_in_transaction(&store, vec![keyed()], true).await;
    assert_eq!(in_transaction, [together[0]]);
    assert_eq!(super::claim(&store, 10).await.len(), 2, "only two deliveries were added");

    // A finished delivery keeps its key until it is deleted.
    clock.advance(super::LEASE * 2);
    for lease in super::claim(&store, 10).await {
        assert_eq!(settle(&store, dead(&lease)).await, Settled::Applied);
    }
    assert_eq!(insert_one(&store, keyed()).await, together[0]);
    clock.advance(super::SECOND);
    let prune = Prune::deliveries(std::time::Duration::ZERO).state(State::Dead);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 2);
    assert_ne!(insert_one(&store, keyed()).await, together[0], "the key of a deleted delivery is not free");
}

/// A rollback frees a key for the next transaction. Invariant 1.
pub async fn a_rollback_frees_the_key<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let keyed = || NewRow { key: Some("order-1".to_owned()), ..row() };
    let first = fixture.insert_in_transaction(&store, vec![keyed()], false).await;
    let second = insert_one(&store, keyed()).await;
    assert_ne!(first[0], second);
    assert_eq!(get(&store, second).await.state, State::Pending);
}

/// A scheduled delivery is not claimed before its time, and `next_due` returns the remaining time. Invariant 8.
pub async fn a_scheduled_delivery_waits_until_it_is_due<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    assert_eq!(store.next_due().await.expect("asking works"), None);
    let later = NewRow { due: Some(When::After(super::LEASE)), ..row() };
    let latest = NewRow { due: Some(When::At(clock.now() + super::LEASE * 3)), priority: Priority::URGENT, ..row() };
    let ids = store.insert(vec![later, latest]).await.expect("inserting works");
    assert!(super::claim(&store, 10).await.is_empty(), "it was claimed too early");
    assert_eq!(store.next_due().await.expect("asking works"), Some(super::LEASE));
    clock.advance(super::LEASE);
    assert_eq!(store.next_due().await.expect("asking works"), Some(std::time::Duration::ZERO));
    let lease = claim_one(&store).await;
    assert_eq!(lease.key.id, ids[0]);
    assert_eq!(lease.cycle_started_at, clock.now(), "the cycle begins when it is due");
    assert_eq!(lease.dated_at, clock.now(), "the date of the mail is its due time");
    assert!(super::claim(&store, 10).await.is_empty());
}
