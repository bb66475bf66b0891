//! Deliveries in every state: how a release comes to store them, and what a later release must read.

use std::time::{Duration, SystemTime};

use postrider::store::Claim;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Failure, Receipt, Refusal, Scope};
use postrider::{
    AdminStore, Attachment, DeliveryId, Email, NewDelivery, Outbox, Outcome, Priority, Prune, RecipientState,
    RetryPolicy, State, Store, UpdateOutcome, WhenInDoubt,
};

use crate::support::database::{Database, Harness};

/// A stored delivery. Its subject identifies it.
pub(crate) struct Stored {
    pub(crate) subject: &'static str,
    pub(crate) state: State,
    pub(crate) cycle: u32,
    pub(crate) outcomes: &'static [Outcome],
    pub(crate) recipients: &'static [(&'static str, RecipientState)],
    pub(crate) key: Option<&'static str>,
    /// The recipients to whom a relay sends the mail from this state. Empty if the delivery is finished or scheduled.
    pub(crate) sent_to: &'static [&'static str],
}

const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.org";
const EVE: &str = "eve@example.net";

const fn stored(
    subject: &'static str,
    state: State,
    outcomes: &'static [Outcome],
    ada: &'static [(&'static str, RecipientState)],
) -> Stored {
    Stored { subject, state, cycle: 1, outcomes, recipients: ada, key: None, sent_to: &[] }
}

/// A delivery to Ada that is pending or leased, and that a relay sends.
const fn unfinished(subject: &'static str, state: State, outcomes: &'static [Outcome]) -> Stored {
    Stored { sent_to: &[ADA], ..stored(subject, state, outcomes, &[(ADA, RecipientState::Pending)]) }
}

/// All stored deliveries, except a deleted one whose key stays taken.
pub(crate) const STORED: [Stored; 17] = [
    stored("deleted message", State::Sent, &[Outcome::Sent], &[(ADA, RecipientState::Sent)]),
    stored("deleted history", State::Dead, &[Outcome::Permanent], &[(ADA, RecipientState::Dead)]),
    stored("sent", State::Sent, &[Outcome::Transient, Outcome::Sent], &[(ADA, RecipientState::Sent)]),
    stored("dead", State::Dead, &[Outcome::Transient, Outcome::Permanent], &[(ADA, RecipientState::Dead)]),
    stored("in doubt", State::InDoubt, &[Outcome::InDoubt], &[(ADA, RecipientState::InDoubt)]),
    stored("cancelled", State::Cancelled, &[], &[(ADA, RecipientState::Cancelled)]),
    stored(
        "one refused",
        State::Sent,
        &[Outcome::Sent],
        &[(ADA, RecipientState::Sent), (BOB, RecipientState::Refused), (EVE, RecipientState::Sent)],
    ),
    stored("sent with shared blobs", State::Sent, &[Outcome::Sent], &[(ADA, RecipientState::Sent)]),
    Stored {
        key: Some("taken"),
        ..stored("sent with key", State::Sent, &[Outcome::Sent], &[(ADA, RecipientState::Sent)])
    },
    stored("scheduled", State::Pending, &[], &[(ADA, RecipientState::Pending)]),
    Stored {
        sent_to: &[BOB],
        ..stored(
            "partial",
            State::Pending,
            &[Outcome::Sent],
            &[(ADA, RecipientState::Sent), (BOB, RecipientState::Pending), (EVE, RecipientState::Sent)],
        )
    },
    unfinished("retried", State::Pending, &[Outcome::Transient]),
    Stored { cycle: 2, ..unfinished("sent again", State::Pending, &[Outcome::Sent]) },
    unfinished("leased", State::Leased, &[]),
    Stored { key: Some("Schlüssel"), ..unfinished("Grüße 🎉 \"'\\", State::Pending, &[]) },
    unfinished("shared blobs", State::Pending, &[]),
    unfinished("shared blobs too", State::Pending, &[]),
];

/// The key of the deleted delivery.
pub(crate) const KEPT_KEY: &str = "kept";

/// The time 2100-01-01T00:00:00Z.
pub(crate) fn far_future() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800)
}

/// The blobs of the two attachments, which are large enough to be stored once.
pub(crate) fn blobs() -> [Vec<u8>; 2] {
    [7, 11].map(|factor| (0..4_200_u32).map(|place| (place * factor % 256) as u8).collect())
}

/// The mail of a stored delivery.
pub(crate) fn email(subject: &str) -> Email {
    let mut email =
        Email::builder().from("shop@example.com").to(ADA).subject(subject).text("Hello").template_id("hello");
    if matches!(subject, "one refused" | "partial") {
        email = email.to(BOB).cc(EVE);
    }
    if subject.contains("shared") {
        for (name, content) in ["logo.bin", "terms.bin"].into_iter().zip(blobs()) {
            email = email.attach(Attachment::new(name, "application/octet-stream", content).unwrap());
        }
    }
    if subject.starts_with("Gr") {
        email = email.html(format!("<p>{}</p>", "ä'\"\\ ".repeat(500))).tag("welcome").tag("two words");
    }
    email.build().unwrap()
}

fn delivery(subject: &str) -> NewDelivery<Email> {
    let delivery = NewDelivery::new(email(subject));
    match subject {
        "in doubt" => delivery.when_in_doubt(WhenInDoubt::Hold),
        "cancelled" | "scheduled" => delivery.send_at(far_future()),
        "sent with key" => delivery.key("taken"),
        "deleted" => delivery.key(KEPT_KEY),
        _ if subject.starts_with("Gr") => {
            delivery.key("Schlüssel").priority(Priority::new(9).unwrap()).expires_at(far_future())
        }
        _ => delivery,
    }
}

/// Stores all deliveries of [`STORED`] and the deleted one, by the calls of a relay and an operator.
pub(crate) async fn store_all<D: Database>(harness: &Harness<D>) {
    let outbox = &harness.outbox;
    let refused = || Failure::permanent(Scope::Message, "refused").with_reply("550 5.1.1 <ada@example.com>: unknown");
    let busy = || Failure::transient(Scope::Message, "busy").with_reply("451 4.3.0 Later");
    let accepted = || Receipt::new().with_provider_id("provider-1").with_reply("250 2.0.0 Ok");

    one(outbox, "deleted", vec![Ok(accepted())]).await;
    prune(outbox, Prune::deliveries(Duration::ZERO).keep_keys(Duration::from_secs(100 * 366 * 24 * 3_600))).await;
    one(outbox, "deleted message", vec![Ok(accepted())]).await;
    prune(outbox, Prune::messages(Duration::ZERO)).await;
    one(outbox, "deleted history", vec![Err(busy()), Err(refused())]).await;
    prune(outbox, Prune::history(Duration::ZERO)).await;

    one(outbox, "sent", vec![Err(busy()), Ok(accepted())]).await;
    one(outbox, "dead", vec![Err(busy()), Err(refused())]).await;
    one(outbox, "in doubt", vec![Err(Failure::maybe_accepted("no answer"))]).await;
    let cancelled = one(outbox, "cancelled", vec![]).await;
    assert_eq!(outbox.cancel(cancelled).await.unwrap(), UpdateOutcome::Updated);
    let refusal = Refusal::new(BOB, Class::Permanent, "550 5.1.1 unknown");
    one(outbox, "one refused", vec![Ok(accepted().with_refused(vec![refusal]))]).await;
    one(outbox, "sent with shared blobs", vec![Ok(accepted())]).await;
    one(outbox, "sent with key", vec![Ok(accepted())]).await;
    one(outbox, "scheduled", vec![]).await;

    // Unfinished deliveries come at the end, so that no later pass sends them. One pass makes one attempt for two of them, in their order.
    let again = one(outbox, "sent again", vec![Ok(accepted())]).await;
    let refusal = Refusal::new(BOB, Class::Transient, "451 4.3.0 Later");
    drop(outbox.transport().clone().then(Ok(accepted().with_refused(vec![refusal]))).then(Err(busy())));
    for subject in ["partial", "retried"] {
        outbox.enqueue(delivery(subject)).await.unwrap();
    }
    outbox.relay().retry(eager()).concurrency(1).drain().await.unwrap();
    assert_eq!(outbox.resend(again).await.unwrap(), UpdateOutcome::Updated);
    let leased = NewDelivery::new(email("leased")).priority(Priority::new(9).unwrap());
    let leased = outbox.enqueue(leased).await.unwrap();
    let leases = outbox.store().claim(Claim::new(1, Duration::from_millis(1))).await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.key.id).collect::<Vec<_>>(), [leased]);
    for Stored { subject, .. } in &STORED[STORED.len() - 3..] {
        outbox.enqueue(delivery(subject)).await.unwrap();
    }
}

/// A retry policy with almost no wait between two attempts.
fn eager() -> RetryPolicy {
    RetryPolicy::default().backoff(Duration::from_millis(1), Duration::from_millis(1))
}

/// Enqueues a mail, and makes an attempt for each answer.
async fn one<S: AdminStore>(
    outbox: &Outbox<S, ScriptedTransport<Email>>,
    subject: &str,
    answers: Vec<Result<Receipt, Failure>>,
) -> DeliveryId {
    let id = outbox.enqueue(delivery(subject)).await.unwrap();
    for answer in answers {
        drop(outbox.transport().clone().then(answer));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let calls = outbox.transport().calls().len();
        outbox.relay().retry(eager()).drain().await.unwrap();
        assert_eq!(outbox.transport().calls().len(), calls + 1, "{subject}");
    }
    id
}

async fn prune<S: AdminStore>(outbox: &Outbox<S, ScriptedTransport<Email>>, prune: Prune) {
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(outbox.prune(&prune.state(State::Sent).state(State::Dead)).await.unwrap(), 1);
}
