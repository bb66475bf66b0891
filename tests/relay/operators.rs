//! What operators order: pauses, resumes, probes, and changes of many deliveries beside a relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{
    Action, AuditFilter, Backoff, Change, DeliveryId, Email, Failure, Filter, MemoryStore, Outbox, PauseTarget,
    RetryPolicy, RunSummary, Scope, State, StoreError, StoreErrorKind,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{TestOutbox, get};
use crate::support::fixture::{SECOND, ada};

/// The time within which every relay obeys.
const OBEYS: Duration = Duration::from_secs(2);

/// An outbox and its relays on the runtime's clock.
struct Running {
    outbox: TestOutbox,
    stop: CancellationToken,
    workers: Vec<JoinHandle<Result<RunSummary, StoreError>>>,
}

impl Running {
    fn start(transport: ScriptedTransport<Email>) -> Self {
        let outbox = Outbox::new(MemoryStore::with_test_clock(TestClock::following_tokio()), transport);
        let stop = CancellationToken::new();
        let relay = || {
            let relay = outbox.relay().pause(Backoff::new(SECOND * 300, SECOND * 300));
            tokio::spawn(relay.run(stop.clone().cancelled_owned()))
        };
        let workers = vec![relay(), relay()];
        Self { outbox, stop, workers }
    }

    /// Enqueues a mail, waits a little, and returns whether it was sent.
    async fn is_sent(&self, mail: Email) -> (DeliveryId, bool) {
        let id = self.outbox.enqueue(mail).await.unwrap();
        tokio::time::sleep(SECOND * 30).await;
        (id, self.state(id).await == State::Sent)
    }

    async fn state(&self, id: DeliveryId) -> State {
        get(&self.outbox, id).await.state
    }

    async fn stop(self) -> Vec<RunSummary> {
        self.stop.cancel();
        let mut summaries = Vec::new();
        for worker in self.workers {
            summaries.push(worker.await.unwrap().unwrap());
        }
        summaries
    }
}

fn mail(from: &str, template: &str) -> Email {
    Email::builder().from(from).to("ada@example.com").text("Hello").template_id(template).build().unwrap()
}

/// Every kind of pause holds its mail and no other, charges nothing, and ends.
#[tokio::test(start_paused = true)]
async fn each_kind_of_pause_is_obeyed_and_ends() {
    let held = || mail("shop@example.com", "news");
    let other = || mail("bank@bank.example", "receipt");
    for (target, stops_all) in [
        (PauseTarget::Outbox, true),
        (PauseTarget::Transport("scripted".to_owned()), true),
        (PauseTarget::Sender("Shop@example.com".to_owned()), false),
        (PauseTarget::Sender("@EXAMPLE.com".to_owned()), false),
        (PauseTarget::Template("news".to_owned()), false),
    ] {
        let running = Running::start(ScriptedTransport::new());
        tokio::time::sleep(SECOND).await;
        let ada = running.outbox.operator("ada").note("wrong price");
        assert!(ada.pause(target.clone()).await.unwrap());
        tokio::time::sleep(OBEYS).await;
        let (waiting, was_sent) = running.is_sent(held()).await;
        assert!(!was_sent, "{target:?} was not obeyed");
        let (_, was_sent) = running.is_sent(other()).await;
        assert_eq!(was_sent, !stops_all, "{target:?}");
        let shown = get(&running.outbox, waiting).await;
        assert_eq!((shown.state, shown.attempts.len()), (State::Pending, 0), "{target:?}");
        let stats = running.outbox.stats().await.unwrap();
        assert!(stats.oldest_waiting >= Some(SECOND * 30), "{target:?}: a pause hides the wait: {stats:?}");
        // A paused sender or template does not pause the relay.
        let reported = stops_all.then(|| format!("{target}: paused by ada: wrong price"));
        assert!(stats.relays.len() == 2 && stats.relays.iter().all(|relay| relay.paused == reported), "{stats:?}");
        let pauses = running.outbox.controls().await.unwrap().pauses;
        assert_eq!((pauses.len(), pauses[0].operator.as_str()), (1, "ada"));
        assert!(running.outbox.operator("bob").resume(target.clone()).await.unwrap());
        // Mail of a sender or a template follows within a minute.
        tokio::time::sleep(OBEYS + SECOND * 60).await;
        assert_eq!(running.state(waiting).await, State::Sent, "{target:?}: it was not resumed");
        tokio::time::sleep(SECOND * 10).await;
        assert!(running.outbox.stats().await.unwrap().relays.iter().all(|relay| relay.paused.is_none()));
        running.stop().await;
    }
}

/// A relay that starts, and a pass, obey a pause from their first claim on.
#[tokio::test(start_paused = true)]
async fn a_pause_from_before_the_start_is_obeyed() {
    let clock = TestClock::following_tokio();
    let outbox = Outbox::new(MemoryStore::with_test_clock(clock), ScriptedTransport::new());
    let operator = outbox.operator("ada");
    let id = outbox.enqueue(ada()).await.unwrap();
    assert!(operator.pause(PauseTarget::Outbox).await.unwrap());
    let summary = outbox.relay().drain().await.unwrap();
    assert_eq!(summary.paused.expect("it says why").reason, "paused by ada");
    let stop = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(stop.clone().cancelled_owned()));
    tokio::time::sleep(SECOND * 5).await;
    stop.cancel();
    worker.await.unwrap().unwrap();
    assert!(outbox.stats().await.unwrap().relays.is_empty(), "a report stays for a pause that is shown by itself");
    assert!(operator.resume(PauseTarget::Outbox).await.unwrap());
    assert!(operator.pause(PauseTarget::Template("hello".to_owned())).await.unwrap());
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 0);
    assert_eq!(outbox.transport().calls().len(), 0, "a paused mail was sent");
    assert!(operator.resume(PauseTarget::Template("hello".to_owned())).await.unwrap());
    tokio::time::sleep(SECOND).await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    assert_eq!(get(&outbox, id).await.attempts.len(), 1);
}

/// A transport that refuses the client until the flag is cleared.
fn broken_transport() -> (Arc<AtomicBool>, ScriptedTransport<Email>) {
    let broken = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&broken);
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let fails = flag.load(Ordering::SeqCst);
        async move { if fails { Err(Failure::permanent(Scope::Transport, "535 no")) } else { Ok(Receipt::new()) } }
    });
    (broken, transport)
}

/// A request for a probe ends a pause after failures early, if the transport works again. It does not end an operator's pause.
#[tokio::test(start_paused = true)]
async fn a_probe_is_made_at_once() {
    let (broken, transport) = broken_transport();
    let running = Running::start(transport);
    // A request while nothing is paused does not end a later pause.
    tokio::time::sleep(SECOND).await;
    running.outbox.operator("ada").probe().await.unwrap();
    tokio::time::sleep(OBEYS).await;
    let (id, was_sent) = running.is_sent(ada()).await;
    assert!(!was_sent);
    assert!(running.outbox.transport().calls().len() <= 2, "an old request ended a pause");
    let calls = running.outbox.transport().calls().len();
    let operator = running.outbox.operator("ada");
    operator.probe().await.unwrap();
    tokio::time::sleep(OBEYS).await;
    assert!(running.outbox.transport().calls().len() > calls, "nothing was probed");
    assert_eq!(running.state(id).await, State::Pending);
    broken.store(false, Ordering::SeqCst);
    operator.pause(PauseTarget::Outbox).await.unwrap();
    tokio::time::sleep(OBEYS).await;
    operator.probe().await.unwrap();
    tokio::time::sleep(OBEYS).await;
    assert_eq!(running.state(id).await, State::Pending, "a probe passed an operator's pause");
    operator.resume(PauseTarget::Outbox).await.unwrap();
    operator.probe().await.unwrap();
    tokio::time::sleep(OBEYS + SECOND).await;
    assert_eq!(running.state(id).await, State::Sent);
    running.stop().await;
}

/// The queue begins with mail of a paused template, more than one round of probes claims. The probe skips it.
#[tokio::test(start_paused = true)]
async fn a_probe_passes_mail_that_an_operator_paused() {
    let (broken, transport) = broken_transport();
    let running = Running::start(transport);
    let outbox = &running.outbox;
    outbox.enqueue_all((0..3_000).map(|_| mail("shop@example.com", "news"))).await.unwrap();
    let id = outbox.enqueue(mail("bank@bank.example", "receipt")).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let operator = outbox.operator("ada");
    operator.pause(PauseTarget::Template("news".to_owned())).await.unwrap();
    tokio::time::sleep(OBEYS).await;
    broken.store(false, Ordering::SeqCst);
    operator.probe().await.unwrap();
    tokio::time::sleep(OBEYS + SECOND * 2).await;
    assert_eq!(running.state(id).await, State::Sent);
    assert_eq!(outbox.stats().await.unwrap().sent, 1, "the paused mail was sent");
    running.stop().await;
}

/// A sender that no mail can have is refused.
#[tokio::test]
async fn a_pause_of_no_sender_is_refused() {
    let outbox = Outbox::enqueue_only(MemoryStore::new());
    for name in ["", "shop", "shop@", "@"] {
        let refused = outbox.operator("ada").pause(PauseTarget::Sender(name.to_owned())).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Rejected, "{name}");
    }
    assert!(outbox.controls().await.unwrap().pauses.is_empty());
}

/// A bulk change needs a state that fits, goes through all pages once, and is recorded.
#[tokio::test]
async fn a_bulk_change_reaches_every_delivery_once() {
    let transport =
        ScriptedTransport::new().with_handler(|_| async { Err(Failure::permanent(Scope::Message, "550 no")) });
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let retry = RetryPolicy::default();
    let ids = outbox.enqueue_all((0..1_234).map(|_| ada())).await.unwrap();
    outbox.relay().retry(retry).drain().await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().dead, 1_234);
    let operator = outbox.operator("ada");
    for (change, filter) in [
        (Change::Resend, Filter::new()),
        (Change::Resend, Filter::new().state(State::Pending)),
        (Change::Cancel, Filter::new().state(State::Dead)),
        (Change::Dismiss, Filter::new().state(State::Sent)),
    ] {
        let error = operator.change_all(change, &filter).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected, "{change:?} {filter:?}");
    }
    assert_eq!(outbox.stats().await.unwrap().dead, 1_234, "a refused change changed something");
    let dead = Filter::new().state(State::Dead).recipient("ada@example.com");
    assert_eq!(outbox.count(&dead.clone().limit(u32::MAX)).await.unwrap(), 1_234);
    let done = operator.change_all(Change::Resend, &dead).await.unwrap();
    assert_eq!((done.updated, done.unchanged, done.last), (1_234, 0, None));
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.dead), (1_234, 0));
    let recorded = outbox.audit(&AuditFilter::new().limit(u32::MAX)).await.unwrap();
    assert_eq!(recorded.len(), 1_234);
    assert!(recorded.iter().all(|entry| entry.target.as_deref() == Some("state dead, recipient a***@example.com")));
    let of_one = outbox.audit(&AuditFilter::new().delivery(ids[7])).await.unwrap();
    assert_eq!(of_one.iter().map(|entry| entry.action).collect::<Vec<_>>(), [Action::Resend]);
    outbox.relay().retry(retry).drain().await.unwrap();
    assert_eq!(operator.change_all(Change::Dismiss, &dead.newest_first()).await.unwrap().updated, 1_234);
    assert_eq!(outbox.stats().await.unwrap().dismissed, 1_234);
}

#[tokio::test]
async fn a_name_that_cannot_be_stored_is_refused() {
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new());
    for name in ["", "a\0b", &"x".repeat(701)] {
        for target in
            [PauseTarget::Transport(name.into()), PauseTarget::Sender(name.into()), PauseTarget::Template(name.into())]
        {
            let error = outbox.operator("ada").pause(target).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Rejected);
        }
    }
    assert_eq!(outbox.controls().await.unwrap().pauses, []);
}
