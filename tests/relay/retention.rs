//! Retention: a relay deletes old messages and deliveries while it sends.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, Filter, Outbox, Prune, State, StoreError, UpdateOutcome};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::EventLog;
use crate::support::fixture::{SECOND, ada};
use crate::unreliable_store::UnreliableStore;

const HOUR: Duration = Duration::from_secs(3_600);

/// Deletes messages an hour, and deliveries a day, after they ended.
fn deletions() -> [Prune; 2] {
    [Prune::messages(HOUR).state(State::Sent), Prune::deliveries(24 * HOUR).state(State::Sent)]
}

/// A relay with retention, on the runtime's clock.
struct Running {
    events: EventLog,
    stop: CancellationToken,
    worker: JoinHandle<Result<postrider::RunSummary, StoreError>>,
}

impl Running {
    fn start(outbox: &Outbox<UnreliableStore, ScriptedTransport<Email>>) -> Self {
        let (events, stop) = (EventLog::default(), CancellationToken::new());
        let relay = outbox.relay().observer(events.clone()).retention(deletions());
        let worker = tokio::spawn(relay.run(stop.clone().cancelled_owned()));
        Self { events, stop, worker }
    }

    async fn stop(self) -> EventLog {
        self.stop.cancel();
        self.worker.await.unwrap().unwrap();
        self.events
    }

    fn pruned(&self) -> Vec<String> {
        self.events.lines().into_iter().filter(|line| line.starts_with("pruned")).collect()
    }
}

fn outbox() -> Outbox<UnreliableStore, ScriptedTransport<Email>> {
    Outbox::new(UnreliableStore::on_runtime_time(), ScriptedTransport::new())
}

#[tokio::test(start_paused = true)]
async fn a_relay_deletes_what_is_old() {
    let outbox = outbox();
    let relay = Running::start(&outbox);
    let id = outbox.enqueue(ada()).await.unwrap();
    tokio::time::sleep(HOUR / 2).await;
    assert!(outbox.store().message(id).await.unwrap().is_some(), "the message was deleted before its age");
    tokio::time::sleep(HOUR).await;
    assert_eq!(outbox.store().message(id).await.unwrap(), None);
    assert_eq!(outbox.resend(id).await.unwrap(), UpdateOutcome::MessageDeleted);
    // A mail that is not sent stays, however old it is.
    let scheduled = postrider::NewDelivery::new(ada()).send_in(48 * HOUR);
    let scheduled = outbox.enqueue(scheduled).await.unwrap();
    tokio::time::sleep(25 * HOUR).await;
    assert!(outbox.get(id).await.unwrap().is_none());
    assert!(outbox.store().message(scheduled).await.unwrap().is_some());
    assert_eq!(relay.pruned(), ["pruned 1 Messages", "pruned 1 Deliveries"]);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_relay_deletes_and_another_takes_over() {
    let outbox = outbox();
    let relays = [Running::start(&outbox), Running::start(&outbox), Running::start(&outbox)];
    for _ in 0..5 {
        outbox.enqueue(ada()).await.unwrap();
        tokio::time::sleep(HOUR * 2).await;
    }
    let leaders: Vec<usize> = relays.iter().map(|relay| relay.pruned().len()).filter(|count| *count > 0).collect();
    assert_eq!(leaders, [5], "more than one relay deleted, or none did");
    let mut relays = Vec::from(relays);
    let leader = relays.remove(relays.iter().position(|relay| !relay.pruned().is_empty()).unwrap());
    // The leader is killed: it does not give up its lead.
    leader.worker.abort();
    outbox.enqueue(ada()).await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    let leader = relays.iter().position(|relay| !relay.pruned().is_empty()).expect("another took over");
    // The next leader shuts down gracefully.
    relays.remove(leader).stop().await;
    outbox.enqueue(ada()).await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(relays[0].pruned(), ["pruned 1 Messages"]);
}

/// Invariant 4.
#[tokio::test(start_paused = true)]
async fn a_retention_that_fails_stops_no_mail() {
    let outbox = outbox();
    outbox.store().refuse_deletion(true);
    let relay = Running::start(&outbox);
    outbox.enqueue(ada()).await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    outbox.enqueue(ada()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(outbox.count(&Filter::new().state(State::Sent)).await.unwrap(), 2);
    let failures = relay.events.count("retention failed");
    assert!((100..300).contains(&failures), "{failures} tries in two hours");
    assert_eq!(relay.events.count("store unavailable"), 0, "a missing right is no outage");
    outbox.store().refuse_deletion(false);
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(relay.pruned().last().unwrap(), "pruned 1 Messages");
    relay.stop().await;
}

/// A database that does not answer is one outage, whichever call meets it.
#[tokio::test(start_paused = true)]
async fn a_retention_reports_no_outage_of_its_own() {
    let outbox = outbox();
    let relay = Running::start(&outbox);
    tokio::time::sleep(SECOND).await;
    outbox.store().take_down();
    tokio::time::sleep(HOUR).await;
    assert_eq!((relay.events.count("store unavailable"), relay.events.count("retention failed")), (1, 0));
    outbox.store().bring_up();
    tokio::time::sleep(HOUR).await;
    assert_eq!(relay.events.count("store recovered"), 1);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_deletes_nothing() {
    let outbox = outbox();
    let id = outbox.enqueue(ada()).await.unwrap();
    outbox.relay().retention(deletions()).drain().await.unwrap();
    tokio::time::sleep(HOUR * 2).await;
    outbox.relay().retention(deletions()).drain().await.unwrap();
    outbox.relay().retention(deletions()).tick().await.unwrap();
    assert!(outbox.store().message(id).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_stops_lets_the_next_one_begin_at_once() {
    let outbox = outbox();
    let id = outbox.enqueue(ada()).await.unwrap();
    let (events, stop) = (EventLog::default(), CancellationToken::new());
    let leader = outbox.relay().observer(events.clone()).retention([]);
    let leader = tokio::spawn(leader.run(stop.clone().cancelled_owned()));
    tokio::time::sleep(HOUR * 2).await;
    stop.cancel();
    leader.await.unwrap().unwrap();
    assert_eq!(events.count("pruned"), 0);
    let next = Running::start(&outbox);
    tokio::time::sleep(SECOND).await;
    assert_eq!(outbox.store().message(id).await.unwrap(), None);
    next.stop().await;
}
