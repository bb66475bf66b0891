//! The gauges. An exporter shows a gauge from its registration on, so they are registered with their first values.

use std::time::{SystemTime, UNIX_EPOCH};

use ::metrics::{Gauge, Key, Label, Recorder};

use super::METADATA;
use super::names::{self, label};
use crate::RelayStatus;
use crate::admin::Stats;
use crate::relay::{RelayHealth, RelayState};
use crate::state::State;

fn gauge(recorder: &dyn Recorder, name: &'static str) -> Gauge {
    recorder.register_gauge(&Key::from_static_name(name), &METADATA)
}

/// The gauges of the outbox.
pub(super) struct OutboxGauges {
    /// In the order of [`State::ALL`].
    deliveries: [Gauge; State::ALL.len()],
    /// The age of the oldest mail that is due and not yet sent.
    lag: Gauge,
    /// The same without deferred mail.
    lag_undeferred: Gauge,
    relays: Gauge,
    relays_paused: Gauge,
    refreshed: Gauge,
}

impl OutboxGauges {
    pub(super) fn register(recorder: &dyn Recorder) -> Self {
        let of_state = |state: State| {
            let key = Key::from_parts(names::DELIVERIES, vec![Label::new(label::STATE, state.as_str())]);
            recorder.register_gauge(&key, &METADATA)
        };
        Self {
            deliveries: State::ALL.map(of_state),
            lag: gauge(recorder, names::LAG),
            lag_undeferred: gauge(recorder, names::LAG_UNDEFERRED),
            relays: gauge(recorder, names::RELAYS),
            relays_paused: gauge(recorder, names::RELAYS_PAUSED),
            refreshed: gauge(recorder, names::REFRESHED),
        }
    }

    pub(super) fn set(&self, stats: &Stats) {
        // In the order of `State::ALL`.
        let counts =
            [stats.pending, stats.leased, stats.sent, stats.dead, stats.in_doubt, stats.cancelled, stats.dismissed];
        self.deliveries.iter().zip(counts).for_each(|(gauge, count)| gauge.set(count as f64));
        self.lag.set(stats.oldest_waiting.unwrap_or_default().as_secs_f64());
        self.lag_undeferred.set(stats.oldest_undeferred.unwrap_or_default().as_secs_f64());
        let relays = stats.relays.iter().filter(|relay: &&RelayStatus| relay.is_running());
        let paused = relays.clone().filter(|relay| relay.paused.is_some());
        self.relays.set(relays.count() as f64);
        self.relays_paused.set(paused.count() as f64);
        self.refreshed.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}

/// The gauges of the relays of this process, except those of transports.
pub(super) struct RelayGauges {
    running: Gauge,
    in_flight: Gauge,
    available: Gauge,
    senders_paused: Gauge,
}

impl RelayGauges {
    pub(super) fn register(recorder: &dyn Recorder) -> Self {
        Self {
            running: gauge(recorder, names::RUNNING),
            in_flight: gauge(recorder, names::IN_FLIGHT),
            available: gauge(recorder, names::AVAILABLE),
            senders_paused: gauge(recorder, names::SENDERS_PAUSED),
        }
    }

    pub(super) fn set(&self, relays: &[RelayHealth]) {
        let sum = |count: fn(&RelayHealth) -> usize| relays.iter().map(count).sum::<usize>() as f64;
        self.running.set(sum(|relay| usize::from(relay.state == RelayState::Running)));
        self.in_flight.set(sum(|relay| relay.in_flight));
        self.senders_paused.set(sum(|relay| relay.paused_senders));
        let available = relays.iter().all(|relay| relay.store_unavailable_for.is_none());
        self.available.set(f64::from(u8::from(available)));
    }
}
