//! The outbox, the policy and the observer of these tests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{Delivery, DeliveryId, Email, Event, MemoryStore, Observer, Outbox, RetryPolicy, State};

use crate::support::wait::until;

pub(crate) type TestOutbox = Outbox<MemoryStore, ScriptedTransport<Email>>;

pub(crate) fn outbox(transport: ScriptedTransport<Email>) -> TestOutbox {
    Outbox::new(MemoryStore::new(), transport)
}

/// Three attempts, with almost no wait between them.
pub(crate) fn eager() -> RetryPolicy {
    RetryPolicy::default().attempts(3).backoff(Duration::from_millis(1), Duration::from_millis(1)).jitter(0.0)
}

pub(crate) async fn get(outbox: &TestOutbox, id: DeliveryId) -> Delivery {
    outbox.get(id).await.unwrap().unwrap()
}

pub(crate) async fn until_state(outbox: &TestOutbox, id: DeliveryId, state: State) {
    until(state.as_str(), || async { get(outbox, id).await.state == state }).await;
}

/// Records each event as a line of text.
#[derive(Clone, Default)]
pub(crate) struct EventLog(Arc<Mutex<Vec<String>>>);

impl EventLog {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(name)).count()
    }
}

impl Observer for EventLog {
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
            Event::Pruned { part, deliveries, .. } => format!("pruned {deliveries} {part:?}"),
            Event::RetentionFailed { error, .. } => format!("retention failed {error}"),
            _ => "?".to_owned(),
        };
        self.0.lock().unwrap().push(line);
    }
}
