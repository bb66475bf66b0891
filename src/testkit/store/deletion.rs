//! Tests of deletion: by age, of blobs, and of a recipient; and of the election of a leader.

use std::time::Duration;

use postrider_transport::{Blob, Email, Recipient};

use super::{
    LEASE, SECOND, StoreUnderTest, claim, claim_one, dead, get, insert_one, recipient_outcome, retry, row, row_for,
    sent, settle, settlement, traceparent,
};
use crate::state::{Outcome, RecipientState};
use crate::store::{NewRow, Next, RelayId, Settled, Settlement, TestClock, When};
use crate::{AdminStore, EnqueueOnly, Filter, Outbox, Prune, State, Store, UpdateOutcome};

/// Each part of a finished delivery is deleted by its own age, which counts from when it finished. Young, pending and leased deliveries
/// stay whole.
pub async fn pruning_deletes_old_finished_deliveries<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    // Enqueued long before it ends.
    let finished = insert_one(&store, NewRow { due: Some(When::After(SECOND * 1_000)), ..row() }).await;
    clock.advance(SECOND * 1_000);
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, retry(&lease, SECOND)).await, Settled::Applied);
    clock.advance(SECOND);
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let waiting = insert_one(&store, NewRow { due: Some(When::After(LEASE * 1_000)), ..row() }).await;

    let all =
        |prune: Prune| [State::Sent, State::Pending, State::Leased, State::Dead].into_iter().fold(prune, Prune::state);
    let (messages, history) = (all(Prune::messages(SECOND * 50)), all(Prune::history(SECOND * 50)));
    let deliveries = all(Prune::deliveries(SECOND * 50));
    for young in [&messages, &history, &deliveries] {
        assert_eq!(store.prune(young).await.expect("pruning works"), 0, "it finished a moment ago: {young:?}");
    }
    clock.advance(SECOND * 100);
    let young = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);

    assert_eq!(store.prune(&history).await.expect("pruning works"), 1);
    assert_eq!(store.prune(&history).await.expect("pruning works"), 0);
    let left: Vec<_> = get(&store, finished).await.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(left, [2]);

    assert_eq!(store.prune(&messages).await.expect("pruning works"), 1);
    assert_eq!(store.prune(&messages).await.expect("pruning works"), 0);
    assert_eq!(store.message(finished).await.expect("reading works"), None);
    let shown = get(&store, finished).await;
    assert_eq!((shown.state, shown.attempts.len(), shown.recipients.len()), (State::Sent, 1, 1), "the rest stays");
    assert_eq!(store.resend(finished).await.expect("resending works"), UpdateOutcome::MessageDeleted);
    assert_eq!(get(&store, finished).await.state, State::Sent);

    assert_eq!(store.prune(&deliveries).await.expect("pruning works"), 1);
    assert!(store.get(finished).await.expect("getting works").is_none());
    for (id, state) in [(waiting, State::Pending), (young, State::Sent)] {
        assert_eq!(get(&store, id).await.state, state);
        assert!(store.message(id).await.expect("reading works").is_some());
    }
    let none = store.prune(&Prune::deliveries(Duration::ZERO)).await.expect("pruning works");
    assert_eq!(none, 0, "no state was selected");
}

/// The steps of a deletion reach all deliveries, whatever is deleted between them.
pub async fn pruning_goes_step_by_step<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    store.insert((0..25).map(|_| row()).collect()).await.expect("inserting works");
    let leases = claim(&store, 20).await;
    let settlements: Vec<_> =
        leases.iter().enumerate().map(|(n, lease)| if n % 2 == 0 { sent(lease) } else { dead(lease) }).collect();
    store.settle(&settlements).await.expect("settling works");
    clock.advance(SECOND * 100);
    for prune in [Prune::messages(SECOND), Prune::deliveries(SECOND)].map(|prune| prune.state(State::Dead)) {
        let (mut affected, mut after, mut steps) = (0, None, 0);
        loop {
            let step = store.prune_step(&prune, after, 4).await.expect("pruning works");
            affected += step.affected;
            steps += 1;
            assert!(steps < 20, "the deletion does not end");
            match step.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        assert_eq!(affected, 10, "{prune:?}");
    }
    let stats = store.stats().await.expect("counting works");
    assert_eq!((stats.pending, stats.sent, stats.dead), (5, 10, 0));
}

/// The key of a deleted delivery stays taken as long as `keep_keys` says.
pub async fn a_key_outlives_its_delivery<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let keyed = || NewRow { key: Some("order 1".to_owned()), ..row() };
    let first = insert_one(&store, keyed()).await;
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    clock.advance(SECOND * 100);
    let prune = Prune::deliveries(SECOND * 10).state(State::Sent).keep_keys(SECOND * 1_000);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 1);
    assert!(store.get(first).await.expect("getting works").is_none());
    assert_eq!(store.resend(first).await.expect("resending works"), UpdateOutcome::NotFound);
    assert_eq!(store.cancel(first).await.expect("cancelling works"), UpdateOutcome::NotFound);
    assert_eq!(store.message(first).await.expect("reading works"), None);
    assert!(store.list(&Filter::new()).await.expect("listing works").is_empty());
    assert_eq!(store.stats().await.expect("counting works").sent, 0);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 0);
    let others = Prune::deliveries(SECOND * 10).state(State::Dead).state(State::Sent);
    assert_eq!(store.prune(&others).await.expect("pruning works"), 0);
    assert_eq!(insert_one(&store, keyed()).await, first, "the key is still taken");
    assert!(claim(&store, 1).await.is_empty());
    clock.advance(SECOND * 1_000);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 0);
    let second = insert_one(&store, keyed()).await;
    assert_ne!(second, first, "the key is free");
    assert_eq!(claim_one(&store).await.key.id, second);
}

/// A blob is deleted with the last message that carries it.
pub async fn a_blob_goes_with_its_last_message<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let with_logo = || {
        let mut new = row();
        new.message.blobs = vec![Blob::new(vec![7; 50_000])];
        new
    };
    insert_one(&store, with_logo()).await;
    let lease = claim_one(&store).await;
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    let waiting = insert_one(&store, with_logo()).await;
    clock.advance(SECOND * 100);
    let messages = Prune::messages(SECOND).state(State::Sent);
    assert_eq!(store.prune(&messages).await.expect("pruning works"), 1);
    assert_eq!(store.sweep_blobs(10).await.expect("sweeping works"), 0, "another message carries it");
    let lease = claim_one(&store).await;
    assert_eq!((lease.key.id, &lease.message), (waiting, &with_logo().message));
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    clock.advance(SECOND * 100);
    assert_eq!(store.prune(&messages).await.expect("pruning works"), 1);
    assert_eq!(store.sweep_blobs(10).await.expect("sweeping works"), 0, "pruning has swept it");
    insert_one(&store, with_logo()).await;
    assert_eq!(claim_one(&store).await.message, with_logo().message);
}

fn outbox<S: AdminStore>(store: &S) -> Outbox<S, EnqueueOnly<Email>> {
    Outbox::new(store.clone(), EnqueueOnly::new())
}

/// A row with a logo and a key, to two recipients.
fn row_with_everything() -> NewRow {
    let mut new = row_for(&["Ada@example.com", "bob@example.com"]);
    new.message.blobs = vec![Blob::new(vec![7; 50_000])];
    new.message.text = Some("Dear Ada".to_owned());
    new.summary.subject = Some("For Ada".to_owned());
    new.key = Some("welcome ADA@example.com".to_owned());
    new.template_id = Some("welcome".to_owned());
    new.traceparent = traceparent();
    new
}

/// An erased recipient is found nowhere, and data that identifies nobody stays.
pub async fn a_recipient_is_erased<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let ada = Recipient::new("aDA@Example.com");
    let both = insert_one(&store, row_with_everything()).await;
    let refused = RecipientState::Refused;
    let result = Settlement {
        recipients: vec![recipient_outcome("Ada@example.com", refused)],
        ..settlement(&claim_one(&store).await, Outcome::Sent, Next::Sent)
    };
    assert_eq!(settle(&store, result).await, Settled::Applied);
    let alone = insert_one(&store, row()).await;
    assert_eq!(settle(&store, retry(&claim_one(&store).await, SECOND)).await, Settled::Applied);
    clock.advance(SECOND * 2);
    assert_eq!(settle(&store, dead(&claim_one(&store).await)).await, Settled::Applied);
    let bobs = insert_one(&store, row_for(&["bob@example.com"])).await;
    assert_eq!(settle(&store, sent(&claim_one(&store).await)).await, Settled::Applied);
    let before = get(&store, bobs).await;
    let waiting = insert_one(&store, row_for(&["bob@example.com", "ada@example.com"])).await;

    let outbox = outbox(&store);
    let erased = outbox.erase(&ada).await.expect("erasing works");
    assert_eq!((erased.deliveries, erased.unfinished), (2, 1));
    for (id, placeholder, others) in [(both, "erased-1@erased.invalid", 1), (alone, "erased-1@erased.invalid", 0)] {
        let left = get(&store, id).await;
        assert_eq!(left.recipients[0].recipient.as_str(), placeholder);
        assert_eq!(left.recipients.len(), 1 + others);
        assert_eq!((&left.subject, &left.key, left.traceparent), (&None, &None, None));
        assert_eq!(store.message(id).await.expect("reading works"), None);
        // An id may have these letters among its digits.
        let shown = format!("{left:?}").replace(&id.to_string(), "").to_lowercase();
        assert!(!shown.contains("ada"), "{shown}");
        let texts: Vec<_> = left.attempts.iter().map(|attempt| (&attempt.reply, &attempt.note)).collect();
        assert!(texts.iter().all(|texts| *texts == (&None, &None)), "{texts:?}");
        assert!(left.attempts.iter().all(|attempt| attempt.error.as_deref().is_none_or(|error| error == "erased")));
        assert!(left.recipients.iter().all(|recipient| recipient.reply.is_none()), "{shown}");
        assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::MessageDeleted);
    }
    let (left, of_alone) = (get(&store, both).await, get(&store, alone).await);
    assert_eq!(left.template_id.as_deref(), Some("welcome"));
    assert_eq!(left.recipients[0].state, refused, "the outcome stays");
    assert_eq!(
        (left.recipients[1].recipient.as_str(), left.recipients[1].state),
        ("bob@example.com", RecipientState::Sent)
    );
    assert_eq!((of_alone.state, of_alone.reason.as_deref(), of_alone.attempts.len()), (State::Dead, Some("erased"), 2));

    let found = |address: &str| {
        let (store, filter) = (store.clone(), Filter::new().recipient(address));
        async move { store.list(&filter).await.expect("listing works").iter().map(|found| found.id).collect::<Vec<_>>() }
    };
    assert_eq!(found("ada@example.com").await, [waiting], "what is to be sent stays");
    assert_eq!(found("@example.com").await, [both, bobs, waiting]);
    let after = get(&store, bobs).await;
    assert_eq!(format!("{before:?}"), format!("{after:?}"), "another's delivery stays as it was");
    assert_ne!(insert_one(&store, row_with_everything()).await, both, "the key is free");
    assert_eq!(claim(&store, 10).await.len(), 2, "what was waiting can be sent, and so can the new one");
    let nobody = outbox.erase(&Recipient::new("@example.com")).await.expect("erasing works");
    assert_eq!((nobody.deliveries, nobody.unfinished), (0, 0), "a domain is no recipient");
    let again = outbox.erase(&ada).await.expect("erasing works");
    assert_eq!((again.deliveries, again.unfinished), (0, 2));
}

/// The attachments of an erased message are deleted, unless another message carries them.
pub async fn an_erased_message_leaves_no_blob<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let outbox = outbox(&store);
    insert_one(&store, row_with_everything()).await;
    assert_eq!(settle(&store, sent(&claim_one(&store).await)).await, Settled::Applied);
    let kept = NewRow { key: None, recipients: vec![Recipient::new("bob@example.com")], ..row_with_everything() };
    let kept = insert_one(&store, kept).await;
    let ada = Recipient::new("ada@example.com");
    assert_eq!(outbox.erase(&ada).await.expect("erasing works").deliveries, 1);
    let lease = claim_one(&store).await;
    assert_eq!((lease.key.id, lease.message), (kept, row_with_everything().message));
}

/// One relay at a time leads, until its term ends or it resigns.
pub async fn one_relay_leads_at_a_time<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let (one, other) = (RelayId::new(), RelayId::new());
    let lead = |task: &'static str, relay: RelayId, term: Duration| {
        let store = store.clone();
        async move { store.lead(task, relay, term).await.expect("leading works") }
    };
    assert!(lead("retention", one, SECOND * 10).await);
    assert!(!lead("retention", other, SECOND * 10).await);
    assert!(lead("another task", other, SECOND * 10).await);
    clock.advance(SECOND * 9);
    assert!(lead("retention", one, SECOND * 10).await, "the leader extends its term");
    clock.advance(SECOND * 9);
    assert!(!lead("retention", other, SECOND * 10).await);
    assert!(!lead("retention", other, Duration::ZERO).await, "a relay that does not lead cannot end the term");
    clock.advance(SECOND * 2);
    assert!(lead("retention", other, SECOND * 10).await, "the term is over");
    assert!(!lead("retention", one, SECOND * 10).await);
    assert!(lead("retention", other, Duration::ZERO).await);
    assert!(lead("retention", one, SECOND * 10).await, "the other resigned");
    let relays: Vec<_> = (0..8).map(|_| RelayId::new()).collect();
    let calls = relays.iter().map(|relay| tokio::spawn(lead("contended", *relay, SECOND * 10))).collect::<Vec<_>>();
    let mut leaders = 0;
    for call in calls {
        leaders += usize::from(call.await.expect("leading does not panic"));
    }
    assert_eq!(leaders, 1);
}
