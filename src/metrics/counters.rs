//! The counters that have no transport as a label.

use ::metrics::{Counter, Histogram, Key, KeyName, Label, Recorder};

use super::METADATA;
use super::names::{self, Kind, label};
use crate::prune::PrunedPart;

/// The counters. Each has the value 0 from its registration on. A counter that appears with its first event hides that event from
/// Prometheus's `increase` (<https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics>).
pub(super) struct Counters {
    pub(super) claimed: Counter,
    pub(super) queue_wait: Histogram,
    pub(super) settled: Settled,
    pub(super) leases_lost: Counter,
    pub(super) outages: Counter,
    deleted: [Counter; 3],
    pub(super) retention_failures: Counter,
}

/// Results of deliveries.
pub(super) struct Settled {
    pub(super) sent: Counter,
    /// A retry is scheduled, and an attempt was charged.
    pub(super) retried: Counter,
    /// The delivery is pending again without a charge.
    pub(super) released: Counter,
    pub(super) dead: Counter,
    pub(super) held: Counter,
}

impl Counters {
    /// Describes all metrics, and registers the counters.
    pub(super) fn register(recorder: &dyn Recorder) -> Self {
        names::ALL.iter().for_each(|metric| describe(recorder, metric));
        let counter = |name, labels: Vec<Label>| {
            let counter = recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
            counter.increment(0);
            counter
        };
        let settled = |result: &'static str| counter(names::SETTLED, vec![Label::new(label::RESULT, result)]);
        let deleted = |part: &'static str| counter(names::DELETED, vec![Label::new(label::PART, part)]);
        let claim = vec![Label::new(label::SYSTEM, "postrider"), Label::new(label::OPERATION, "claim")];
        Self {
            claimed: counter(names::CLAIMED, claim),
            queue_wait: recorder.register_histogram(&Key::from_static_name(names::QUEUE_WAIT), &METADATA),
            settled: Settled {
                sent: settled("sent"),
                retried: settled("retried"),
                released: settled("released"),
                dead: settled("dead"),
                held: settled("held"),
            },
            leases_lost: counter(names::LEASES_LOST, Vec::new()),
            outages: counter(names::OUTAGES, Vec::new()),
            deleted: [deleted("messages"), deleted("history"), deleted("deliveries")],
            retention_failures: counter(names::RETENTION_FAILURES, Vec::new()),
        }
    }

    /// The counter of what a retention deletes. The labels have the words of the command line.
    pub(super) fn deleted(&self, part: PrunedPart) -> &Counter {
        let [messages, history, deliveries] = &self.deleted;
        match part {
            PrunedPart::Messages => messages,
            PrunedPart::History => history,
            PrunedPart::Deliveries => deliveries,
        }
    }
}

fn describe(recorder: &dyn Recorder, metric: &names::Metric) {
    let (name, unit) = (KeyName::from_const_str(metric.name), Some(metric.unit));
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, unit, metric.description.into()),
        Kind::Gauge => recorder.describe_gauge(name, unit, metric.description.into()),
        Kind::Histogram => recorder.describe_histogram(name, unit, metric.description.into()),
    }
}
