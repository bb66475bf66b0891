//! Records the events of relays.

use super::Metrics;
use crate::observe::{Event, Observer};

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        let counters = self.counters();
        let settled = &counters.settled;
        match event {
            Event::Claimed { count } => counters.claimed.increment(u64::try_from(*count).unwrap_or(u64::MAX)),
            Event::AttemptFinished { outcome, result, transport: Some(transport), took, waited, .. } => {
                let transport = self.transport(transport);
                let attempt = transport.attempt(result.as_ref().err().map(|failure| (*outcome, failure.scope())));
                attempt.count.increment(1);
                self.record(|recorder| attempt.duration(recorder).record(*took));
                if let Some(waited) = waited {
                    counters.queue_wait.record(*waited);
                }
            }
            Event::Sent { .. } => settled.sent.increment(1),
            Event::RetryScheduled { charged: true, .. } => settled.retried.increment(1),
            Event::RetryScheduled { charged: false, .. } => settled.released.increment(1),
            Event::DeadLettered { .. } => settled.dead.increment(1),
            Event::Held { .. } => settled.held.increment(1),
            Event::LeaseLost { .. } => counters.leases_lost.increment(1),
            Event::TransportPaused { transport, .. } => self.transport(transport).transport_pauses.increment(1),
            Event::SenderPaused { transport, .. } => self.transport(transport).sender_pauses.increment(1),
            Event::StoreUnavailable { .. } => counters.outages.increment(1),
            Event::Pruned { part, deliveries } => counters.deleted(*part).increment(*deliveries),
            Event::RetentionFailed { .. } => counters.retention_failures.increment(1),
            // An attempt without a transport called none. The gauges show what has resumed and recovered.
            Event::AttemptFinished { transport: None, .. }
            | Event::TransportResumed { .. }
            | Event::SenderResumed { .. }
            | Event::StoreRecovered => {}
        }
    }
}
