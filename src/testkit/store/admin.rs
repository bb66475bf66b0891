//! Tests of the operator methods.

use std::time::Duration;

use postrider_transport::{DeliveryId, MessageSummary};

use super::{
    LEASE, SECOND, StoreUnderTest, claim, claim_one, dead, get, insert_one, recipient_outcome, recipient_states, retry,
    row, row_for, sent, settle,
};
use crate::state::RecipientState;
use crate::store::{NewRow, Next, RelayId, RelayReport, Settled, Settlement, TestClock, When};
use crate::{AdminStore, DeliverySummary, Filter, Prune, State, Store, UpdateOutcome};

/// A resend makes an ended delivery pending again, with a fresh budget, a new cycle and no expiry. Attempt numbers and tokens continue.
/// Invariant 2.
pub async fn a_resend_resets_the_budget_and_continues_the_numbers<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let ends: [fn(&crate::store::Lease) -> Settlement; 4] = [
        sent,
        dead,
        |lease| {
            let doubt = Next::InDoubt { reason: "in doubt".to_owned() };
            super::settlement(lease, crate::Outcome::InDoubt, doubt)
        },
        // Given up without a call, after an attempt that was accepted for a recipient: the delivery ends as sent.
        |lease| Settlement { attempt: None, charged_attempts: lease.charged_attempts, ..sent(lease) },
    ];
    for end in ends {
        let expires = Some(When::After(LEASE * 5));
        let id = insert_one(&store, NewRow { expires, ..row() }).await;
        let first = claim_one(&store).await;
        assert_eq!(settle(&store, retry(&first, SECOND)).await, Settled::Applied);
        clock.advance(SECOND);
        let second = claim_one(&store).await;
        assert_eq!(settle(&store, end(&second)).await, Settled::Applied);
        clock.advance(LEASE * 10);

        let history = get(&store, id).await.attempts.len();
        assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
        assert_eq!(store.resend(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Pending));
        let lease = claim_one(&store).await;
        assert_eq!(lease.key.id, id);
        assert!(lease.key.token > second.key.token, "the token did not grow");
        assert_eq!(usize::try_from(lease.attempts).ok(), Some(history), "the numbers do not continue");
        assert_eq!((lease.cycle, lease.charged_attempts, lease.lost), (2, 0, false));
        assert_eq!((lease.cycle_started_at, lease.expires_at), (clock.now(), None));
        assert_eq!(store.resend(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Leased));
        assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
        let shown = get(&store, id).await;
        assert_eq!((shown.state, shown.cycle, shown.attempts.len()), (State::Sent, 2, history + 1));
        assert_eq!(shown.reason, None);
    }
    assert_eq!(store.resend(DeliveryId::new()).await.expect("asking works"), UpdateOutcome::NotFound);
}

/// A resend skips recipients who have the mail. If all have it, the resend goes to all.
pub async fn a_resend_skips_recipients_who_have_the_mail<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row_for(&["a@example.com", "b@example.com"])).await;
    let lease = claim_one(&store).await;
    let refusal = vec![recipient_outcome("b@example.com", RecipientState::Refused)];
    assert_eq!(settle(&store, Settlement { recipients: refusal, ..sent(&lease) }).await, Settled::Applied);
    assert_eq!(
        recipient_states(&get(&store, id).await),
        [("a@example.com", RecipientState::Sent), ("b@example.com", RecipientState::Refused)]
    );

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    let rest = claim_one(&store).await;
    assert_eq!(rest.recipients.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["b@example.com"]);
    assert_eq!(settle(&store, sent(&rest)).await, Settled::Applied);
    assert!(recipient_states(&get(&store, id).await).iter().all(|(_, state)| *state == RecipientState::Sent));

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.recipients.len(), 2);
}

/// A cancel affects only a delivery that no relay holds.
pub async fn only_a_pending_delivery_can_be_cancelled<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let id = insert_one(&store, row()).await;
    assert_eq!(store.cancel(id).await.expect("cancelling works"), UpdateOutcome::Updated);
    assert!(claim(&store, 1).await.is_empty(), "a cancelled delivery was claimed");
    let shown = get(&store, id).await;
    assert_eq!((shown.state, shown.recipients[0].state), (State::Cancelled, RecipientState::Cancelled));
    assert_eq!(store.cancel(id).await.expect("asking works"), UpdateOutcome::Unchanged(State::Cancelled));

    let held = insert_one(&store, row()).await;
    let lease = claim_one(&store).await;
    assert_eq!(store.cancel(held).await.expect("asking works"), UpdateOutcome::Unchanged(State::Leased));
    assert_eq!(settle(&store, sent(&lease)).await, Settled::Applied);
    assert_eq!(store.cancel(held).await.expect("asking works"), UpdateOutcome::Unchanged(State::Sent));
    assert_eq!(store.cancel(DeliveryId::new()).await.expect("asking works"), UpdateOutcome::NotFound);

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(claim_one(&store).await.key.id, id);
}

/// A list is in the order of the ids, in pages, and filtered by state and template.
pub async fn lists_are_paged_and_filtered<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let templated = || NewRow { template_id: Some("welcome".to_owned()), ..row() };
    let rows: Vec<_> = (0..7).map(|n| if n % 2 == 0 { templated() } else { row() }).collect();
    let mut ids = store.insert(rows).await.expect("inserting works");
    ids.sort();
    let lease = claim_one(&store).await;

    let mut seen = Vec::new();
    let mut filter = Filter::new().limit(3);
    loop {
        let page = store.list(&filter).await.expect("listing works");
        match page.last() {
            Some(last) => filter = filter.after(last.id),
            None => break,
        }
        assert!(page.len() <= 3);
        seen.extend(page.into_iter().map(|summary| summary.id));
    }
    assert_eq!(seen, ids);

    let count = async |filter: Filter| store.list(&filter).await.expect("listing works").len();
    assert_eq!(count(Filter::new().template_id("welcome")).await, 4);
    assert_eq!(count(Filter::new().state(State::Pending)).await, 6);
    assert_eq!(count(Filter::new().state(State::Sent)).await, 0);
    let leased = store.list(&Filter::new().state(State::Leased)).await.expect("listing works");
    assert_eq!(leased.iter().map(|summary| summary.id).collect::<Vec<_>>(), [lease.key.id]);
    let stats = store.stats().await.expect("counting works");
    assert_eq!((stats.pending, stats.leased, stats.sent), (6, 1, 0));
    assert_eq!(stats.oldest_due, Some(Duration::ZERO));
}

/// Each condition of a filter finds what meets it, in both orders, page by page, and is counted up to the limit.
pub async fn deliveries_are_found<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let start = clock.now();
    let mail = |to: &[&str], subject: &str, tags: &[&str]| NewRow {
        summary: MessageSummary::new()
            .with_subject(subject)
            .with_tags(tags.iter().map(|tag| (*tag).to_owned()).collect()),
        ..row_for(to)
    };
    let sent_one = store
        .insert(vec![NewRow {
            key: Some("order'1".to_owned()),
            ..mail(&["Ada@Example.com"], "Welcome, 100%_\\ Ada", &["a", "b"])
        }])
        .await
        .expect("inserting works")[0];
    let lease = claim_one(&store).await;
    clock.advance(SECOND * 10);
    let mut settlement = sent(&lease);
    if let Some(attempt) = &mut settlement.attempt {
        (attempt.provider_id, attempt.transport) = (Some("abc-1".to_owned()), Some("failover/ses".to_owned()));
        attempt.finished_at = clock.now();
    }
    assert_eq!(settle(&store, settlement).await, Settled::Applied);
    let dead_one =
        insert_one(&store, mail(&["bob@sub.example.com", "ada@example.com", "cy@example.org"], "Bye", &["b"])).await;
    let lease = claim_one(&store).await;
    clock.advance(SECOND * 10);
    let mut refused = dead(&lease);
    refused.next = Next::Dead { reason: "550 no 'such' user_".to_owned() };
    assert_eq!(settle(&store, refused).await, Settled::Applied);
    clock.advance(SECOND * 10);
    let waiting = insert_one(&store, mail(&["ada@example.com.evil", "nada@example.com"], "welcome", &[])).await;
    let cancelled = insert_one(&store, mail(&["o'hara@example.com"], "", &["a'"])).await;
    assert_eq!(store.cancel(cancelled).await.expect("cancelling works"), UpdateOutcome::Updated);

    let all = || Filter::new();
    for (filter, expected) in [
        (all().recipient("ada@example.com"), vec![sent_one, dead_one]),
        (all().recipient("ADA@EXAMPLE.COM").state(State::Dead), vec![dead_one]),
        (all().recipient("nada@example.com"), vec![waiting]),
        (all().recipient("o'hara@example.com"), vec![cancelled]),
        (all().recipient("da@example.com"), vec![]),
        (all().recipient("@example.com"), vec![sent_one, dead_one, waiting, cancelled]),
        (all().recipient("@Example.org"), vec![dead_one]),
        (all().recipient("@sub.example.com"), vec![dead_one]),
        (all().recipient("@example.co"), vec![]),
        (all().subject_prefix("Welcome, 100%_\\"), vec![sent_one]),
        (all().subject_prefix("W_lcome"), vec![]),
        (all().subject_prefix("welcome"), vec![waiting]),
        (all().tag("b"), vec![sent_one, dead_one]),
        (all().tag("a'"), vec![cancelled]),
        (all().key("order'1"), vec![sent_one]),
        (all().key("order"), vec![]),
        (all().provider_id("abc-1"), vec![sent_one]),
        (all().provider_id("abc"), vec![]),
        (all().transport("failover"), vec![sent_one, dead_one]),
        (all().transport("failover/ses"), vec![sent_one]),
        (all().transport("fail"), vec![]),
        (all().error("'such' user_"), vec![dead_one]),
        (all().error("'such'_user"), vec![]),
        (all().state(State::Sent), vec![sent_one]),
        (all().state(State::Pending), vec![waiting]),
        (all().state(State::Leased), vec![]),
        (all().state(State::Cancelled), vec![cancelled]),
        (all().created_from(start + SECOND * 10), vec![dead_one, waiting, cancelled]),
        (all().created_from(start + SECOND * 10).created_before(start + SECOND * 30), vec![dead_one]),
        (all().finished_from(start + SECOND * 20), vec![dead_one, cancelled]),
        (all().finished_before(start + SECOND * 20), vec![sent_one]),
        (
            all().finished_from(start).finished_before(start + SECOND * 30).recipient("ada@example.com").tag("b"),
            vec![sent_one, dead_one],
        ),
    ] {
        let mut expected = expected;
        // Ids have the time of this program, and those of one millisecond are in no order.
        expected.sort();
        let ids = async |filter: &Filter| -> Vec<DeliveryId> {
            store.list(filter).await.expect("listing works").into_iter().map(|found| found.id).collect()
        };
        assert_eq!(ids(&filter).await, expected, "{filter:?} {:?}", filter.subject_prefix);
        assert_eq!(store.count(&filter).await.expect("counting works"), expected.len() as u64);
        let in_parts = async |filter: &Filter, time: Duration, limit: u32| {
            let (mut filter, mut found) = (filter.clone().limit(limit), Vec::new());
            for _ in 0..10 {
                let page = crate::admin::search(&store, &filter, time, 1).await.expect("searching works");
                assert!(page.deliveries.len() <= limit as usize);
                found.extend(page.deliveries.into_iter().map(|found| found.id));
                let Some(next) = page.next else { return found };
                assert_ne!(filter.after, Some(next), "the search goes on");
                filter.after = Some(next);
            }
            panic!("the search of {filter:?} does not end");
        };
        let backwards = filter.clone().newest_first();
        for (time, limit) in [(Duration::ZERO, 100), (Duration::ZERO, 1), (SECOND * 3_600, 100), (SECOND * 3_600, 1)] {
            assert_eq!(in_parts(&filter, time, limit).await, expected, "{filter:?}");
            let mut found = in_parts(&backwards, time, limit).await;
            found.reverse();
            assert_eq!(found, expected, "{backwards:?}");
        }
        let through = filter.clone().through(dead_one);
        let until: Vec<_> = expected.iter().copied().filter(|id| *id <= dead_one).collect();
        assert_eq!(ids(&through).await, until, "{through:?}");
        assert_eq!(in_parts(&through, Duration::ZERO, 100).await, until, "{through:?}");
        expected.reverse();
        assert_eq!(ids(&backwards).await, expected, "{backwards:?}");
        if let [first, second, ..] = expected[..] {
            assert_eq!(ids(&backwards.clone().limit(1)).await, [first]);
            assert_eq!(ids(&backwards.clone().limit(1).after(first)).await, [second]);
            assert_eq!(store.count(&backwards.limit(1)).await.expect("counting works"), 1);
        }
    }
    // What has no index is searched in parts.
    let mut every = [sent_one, dead_one, waiting, cancelled];
    every.sort();
    let newest = Filter::new().tag("b").newest_first();
    for (filter, rows, expected) in [
        (Filter::new().tag("b"), 1, Some(every[0])),
        (Filter::new().tag("b"), 3, Some(every[2])),
        (Filter::new().tag("b"), 5, None),
        (Filter::new().tag("b").after(every[1]), 1, Some(every[2])),
        (Filter::new().tag("b").through(every[1]), 3, None),
        (newest.clone(), 1, Some(every[3])),
        (newest.clone().after(every[3]), 2, Some(every[1])),
        (newest.clone().through(every[2]), 3, None),
        (newest.clone().recipient("ada@example.com"), 1, None),
        (newest.key("order'1"), 1, None),
    ] {
        assert_eq!(store.search_end(&filter, rows).await.expect("searching works"), expected, "{filter:?}, {rows}");
    }
    let end = async |filter: Filter| store.search_end(&filter, 1).await.expect("searching works");
    assert_eq!(end(Filter::new().state(State::Pending).tag("x")).await, Some(waiting));
    assert_eq!(end(Filter::new().state(State::Dead).tag("x").newest_first()).await, Some(dead_one));
    let ends = async |id| get(&store, id).await.finished_at.and_then(|end| end.duration_since(start).ok());
    assert_eq!((ends(sent_one).await, ends(dead_one).await), (Some(SECOND * 10), Some(SECOND * 20)));
    assert_eq!((ends(waiting).await, ends(cancelled).await), (None, Some(SECOND * 30)));
}

/// A list shows a recipient that it was searched by, with this recipient's own state. For a sent delivery, it counts those who did not get
/// it.
pub async fn a_list_shows_the_recipient_it_was_searched_by<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let shown = async |filter: Filter| -> Vec<(String, RecipientState, u32)> {
        let found = store.list(&filter).await.expect("listing works").into_iter();
        let recipient =
            |found: &DeliverySummary| found.recipient.as_ref().map_or("", |found| found.as_str()).to_owned();
        found.map(|found| (recipient(&found), found.recipient_state, found.failed_recipients)).collect()
    };
    let to = |recipient: &str| Filter::new().recipient(recipient);
    let one = |recipient: &str, state, failed| vec![(recipient.to_owned(), state, failed)];
    use RecipientState::{Dead, InDoubt, Pending, Refused, Sent};

    let id = insert_one(&store, row_for(&["a@example.com", "B@example.com", "c@example.org"])).await;
    assert_eq!(shown(to("b@example.com")).await, one("B@example.com", Pending, 0));
    let lease = claim_one(&store).await;
    let recipients = vec![recipient_outcome("B@example.com", Refused), recipient_outcome("c@example.org", InDoubt)];
    assert_eq!(settle(&store, Settlement { recipients, ..sent(&lease) }).await, Settled::Applied);
    for (filter, expected) in [
        (Filter::new(), one("a@example.com", Sent, 2)),
        (to("b@EXAMPLE.com"), one("B@example.com", Refused, 2)),
        (to("b@example.com").state(State::Sent).newest_first(), one("B@example.com", Refused, 2)),
        (to("@example.com"), one("a@example.com", Sent, 2)),
        (to("@Example.org"), one("c@example.org", InDoubt, 2)),
        (to("d@example.com"), vec![]),
    ] {
        assert_eq!(shown(filter.clone()).await, expected, "{filter:?}");
    }

    assert_eq!(store.resend(id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(shown(to("a@example.com")).await, one("a@example.com", Sent, 0));
    assert_eq!(shown(to("b@example.com")).await, one("B@example.com", Pending, 0));
    let lease = claim_one(&store).await;
    let recipients = vec![recipient_outcome("B@example.com", Refused)];
    assert_eq!(settle(&store, Settlement { recipients, ..dead(&lease) }).await, Settled::Applied);
    assert_eq!(shown(to("b@example.com")).await, one("B@example.com", Refused, 0));
    assert_eq!(shown(to("c@example.org").state(State::Dead)).await, one("c@example.org", Dead, 0));

    insert_one(&store, row_for(&["x@example.net", "y@example.net"])).await;
    let lease = claim_one(&store).await;
    let recipients = vec![recipient_outcome("x@example.net", Refused)];
    assert_eq!(settle(&store, Settlement { recipients, ..sent(&lease) }).await, Settled::Applied);
    assert_eq!(shown(Filter::new().state(State::Sent)).await, one("x@example.net", Refused, 1));
    assert_eq!(shown(to("@example.net")).await, one("x@example.net", Refused, 1));
    assert_eq!(shown(to("y@example.net")).await, one("y@example.net", Sent, 1));
}

/// Counters follow settlements, cancellations, resends and deletions. The counts of each hour stay.
pub async fn counters_follow_what_happens<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let start = clock.now();
    let by = |mut settlement: Settlement, transport: &str| {
        if let Some(attempt) = &mut settlement.attempt {
            attempt.transport = Some(transport.to_owned());
        }
        settlement
    };
    let ids = store.insert((0..6).map(|_| row()).collect()).await.expect("inserting works");
    assert_eq!(store.cancel(ids[5]).await.expect("cancelling works"), UpdateOutcome::Updated);
    let leases = claim(&store, 10).await;
    let lost = by(sent(&leases[0]), "smtp");
    let held =
        Settlement { next: Next::InDoubt { reason: "in doubt".to_owned() }, ..by(retry(&leases[3], SECOND), "ses") };
    let settlements = [
        by(sent(&leases[0]), "smtp"),
        by(sent(&leases[1]), "smtp"),
        by(dead(&leases[2]), "ses"),
        held,
        by(retry(&leases[4], SECOND * 3_600), "smtp"),
        lost,
    ];
    let settled = store.settle(&settlements).await.expect("settling works");
    assert_eq!(settled.iter().filter(|result| **result == Settled::Applied).count(), 5);
    let counts = async || {
        let stats = store.stats().await.expect("counting works");
        [stats.pending, stats.sent, stats.dead, stats.in_doubt, stats.cancelled]
    };
    assert_eq!(counts().await, [1, 2, 1, 1, 1]);

    clock.advance(SECOND * 3_600);
    let lease = claim_one(&store).await;
    let mut late = by(sent(&lease), "smtp");
    if let Some(attempt) = &mut late.attempt {
        attempt.finished_at = clock.now();
    }
    assert_eq!(settle(&store, late).await, Settled::Applied);
    assert_eq!(store.resend(leases[2].key.id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(store.resend(leases[0].key.id).await.expect("resending works"), UpdateOutcome::Updated);
    assert_eq!(counts().await, [2, 2, 0, 1, 1]);
    let prune = Prune::deliveries(Duration::ZERO).state(State::Sent).state(State::InDoubt);
    clock.advance(SECOND);
    assert_eq!(store.prune(&prune).await.expect("pruning works"), 3);
    assert_eq!(counts().await, [2, 0, 0, 0, 1]);

    let hourly = async |since| -> Vec<(u64, String, Option<String>, u64)> {
        let counted = store.hourly(since).await.expect("counting works").into_iter();
        let hours = |time: std::time::SystemTime| time.duration_since(start).unwrap_or_default().as_secs() / 3_600;
        counted.map(|count| (hours(count.hour), count.event.to_string(), count.transport, count.count)).collect()
    };
    let row = |hour, event: &str, transport: Option<&str>, count| {
        (hour, event.to_owned(), transport.map(str::to_owned), count)
    };
    let second = row(1, "sent", Some("smtp"), 1);
    let first = vec![
        row(0, "sent", Some("smtp"), 2),
        row(0, "transient", Some("ses"), 1),
        row(0, "transient", Some("smtp"), 1),
        row(0, "permanent", Some("ses"), 1),
        row(0, "dead", Some("ses"), 1),
        row(0, "held", Some("ses"), 1),
        row(0, "cancelled", None, 1),
    ];
    assert_eq!(hourly(start + SECOND * 3_000).await, [first, vec![second.clone()]].concat());
    assert_eq!(hourly(start + SECOND * 3_600).await, [second]);
}

/// A relay is listed until it stops.
pub async fn relays_are_listed_while_they_report<F: StoreUnderTest>(fixture: &F) {
    let clock = TestClock::new();
    let store = fixture.fresh(clock.clone()).await;
    let (one, other) = (RelayId::new(), RelayId::new());
    store.report(&RelayReport::new(one, 3, None)).await.expect("reporting works");
    clock.advance(SECOND * 9);
    let (paused, host) = (Some("smtp: 535 no".to_owned()), Some("pösthost-1".to_owned()));
    let paused_for = Some(SECOND * 90);
    let report = RelayReport { host: host.clone(), paused_for, ..RelayReport::new(other, 0, paused.clone()) };
    store.report(&report).await.expect("reporting works");
    let relays = store.stats().await.expect("counting works").relays;
    let seen: Vec<_> =
        relays.iter().map(|r| (r.id.clone(), r.seen_ago, r.in_flight, r.paused.clone(), r.host.clone())).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.contains(&(one.to_string(), SECOND * 9, 3, None, None)), "{seen:?}");
    assert!(seen.contains(&(other.to_string(), Duration::ZERO, 0, paused, host.clone())), "{seen:?}");
    let paused_for_of = |relays: &[crate::RelayStatus], id: RelayId| {
        relays.iter().find(|relay| relay.id == id.to_string()).and_then(|relay| relay.paused_for)
    };
    assert_eq!((paused_for_of(&relays, one), paused_for_of(&relays, other)), (None, paused_for));
    clock.advance(SECOND);
    let relays = store.stats().await.expect("counting works").relays;
    assert_eq!(paused_for_of(&relays, other), Some(SECOND * 91), "it lasts until the next report");
    let report = RelayReport { host: host.clone(), ..RelayReport::new(one, 0, None) };
    store.report(&report).await.expect("reporting works");
    store.retire(other).await.expect("retiring works");
    let relays = store.stats().await.expect("counting works").relays;
    assert_eq!((relays.len(), relays[0].in_flight, relays[0].seen_ago), (1, 0, Duration::ZERO));
    assert_eq!(relays[0].host, host);
    // A relay that vanished is listed for some time. The report of another relay then deletes it.
    clock.advance(SECOND * 500);
    store.report(&RelayReport::new(other, 0, None)).await.expect("reporting works");
    assert_eq!(store.stats().await.expect("counting works").relays.len(), 2);
    clock.advance(SECOND * 500);
    store.report(&RelayReport::new(other, 0, None)).await.expect("reporting works");
    let relays = store.stats().await.expect("counting works").relays;
    assert_eq!(relays.iter().map(|relay| relay.id.as_str()).collect::<Vec<_>>(), [other.to_string()]);
}

/// A wake ends the wait, also if it comes before the wait.
pub async fn a_wake_ends_the_wait<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let limit = SECOND * 30;
    store.wake();
    tokio::time::timeout(limit, store.notified()).await.expect("an earlier wake was missed");
    let waiter = tokio::spawn({
        let store = store.clone();
        async move { store.notified().await }
    });
    tokio::task::yield_now().await;
    insert_one(&store, row()).await;
    tokio::time::timeout(limit, waiter)
        .await
        .expect("an insert did not wake the waiter")
        .expect("waiting does not panic");
}

/// Migrating again, also several times at once, changes nothing.
pub async fn migrating_twice_changes_nothing<F: StoreUnderTest>(fixture: &F) {
    let store = fixture.fresh(TestClock::new()).await;
    let id = insert_one(&store, row()).await;
    store.migrate().await.expect("migrating again works");
    let others = (0..4).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.migrate().await })
    });
    for other in others.collect::<Vec<_>>() {
        other.await.expect("migrating does not panic").expect("migrating at once works");
    }
    assert_eq!(get(&store, id).await.state, State::Pending);
}
