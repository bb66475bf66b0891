//! What the tests share.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{Delivery, DeliveryId, Email, Event, MemoryStore, Observer, Outbox, RetryPolicy, State};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type TestOutbox = Outbox<MemoryStore, ScriptedTransport<Email>>;

pub(crate) fn outbox(transport: ScriptedTransport<Email>) -> TestOutbox {
    Outbox::new(MemoryStore::new(), transport)
}

pub(crate) fn email(to: &[&str]) -> Email {
    let builder =
        Email::builder().from("postrider@example.com").subject("Hello").text("Hello there").template_id("hello");
    to.iter().fold(builder, |builder, to| builder.to(*to)).build().unwrap()
}

pub(crate) fn ada() -> Email {
    email(&["ada@example.com"])
}

/// Retries at once, three times in all.
pub(crate) fn eager() -> RetryPolicy {
    RetryPolicy::default().attempts(3).backoff(Duration::from_millis(1), Duration::from_millis(1)).jitter(0.0)
}

pub(crate) async fn get(outbox: &TestOutbox, id: DeliveryId) -> Delivery {
    outbox.get(id).await.unwrap().unwrap()
}

/// Waits until something is so, for a while that no machine should need.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let patience = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 20, patience).await.is_ok(), "it never came to this: {what}");
}

pub(crate) async fn until_state(outbox: &TestOutbox, id: DeliveryId, state: State) {
    until(state.as_str(), || async { get(outbox, id).await.state == state }).await;
}

/// Keeps the names of events, and of some the delivery.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(name)).count()
    }
}

impl Observer for Diary {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::Claimed { count, .. } => format!("claimed {count}"),
            Event::AttemptFinished { number, outcome, .. } => format!("attempt {number} {outcome}"),
            Event::Sent { refused, .. } => format!("sent {refused}"),
            Event::RetryScheduled { charged, .. } => format!("retry {charged}"),
            Event::DeadLettered { reason, .. } => format!("dead {reason}"),
            Event::Held { reason, .. } => format!("held {reason}"),
            Event::LeaseLost { .. } => "lease lost".to_owned(),
            Event::TransportPaused { reason, .. } => format!("paused {reason}"),
            Event::TransportResumed { .. } => "resumed".to_owned(),
            Event::StoreUnavailable { .. } => "store unavailable".to_owned(),
            Event::StoreRecovered => "store recovered".to_owned(),
            _ => "?".to_owned(),
        };
        self.0.lock().unwrap().push(line);
    }
}
