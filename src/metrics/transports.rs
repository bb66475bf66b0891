//! The metrics that have a transport as a label.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Recorder};
use postrider_transport::Scope;

use super::METADATA;
use super::names::{self, label};
use crate::state::Outcome;

/// The largest number of transports. The names are the program's own, but a transport that it did not write chooses them. A label with any
/// number of values would fill the memory of whatever collects the metrics.
const MAX_TRANSPORTS: usize = 64;

/// The longest name, in bytes.
const MAX_NAME: usize = 128;

/// Stands for the transports that exceed the limits, and for a name with an `@`, which may be an address.
const OTHER: &str = "other";

/// The transports that were called or are paused.
#[derive(Default)]
pub(super) struct Transports(RwLock<HashMap<Box<str>, Arc<TransportMetrics>>>);

impl Transports {
    pub(super) fn get(&self, name: &str, recorder: &dyn Recorder) -> Arc<TransportMetrics> {
        if let Some(found) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(found);
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let too_many = all.len() >= MAX_TRANSPORTS && !all.contains_key(name);
        let name = if name.len() > MAX_NAME || name.contains('@') || too_many { OTHER } else { name };
        let metrics = all.entry(name.into()).or_insert_with(|| Arc::new(TransportMetrics::register(name, recorder)));
        Arc::clone(metrics)
    }

    /// Sets the gauge of each of these transports, and of those that had one before: 1 if the transport is paused.
    pub(super) fn set_paused(&self, working: &[&str], paused: &[&str], recorder: &dyn Recorder) {
        let paused: HashSet<_> = paused.iter().map(|name| Arc::clone(&self.get(name, recorder).name)).collect();
        for name in working.iter().copied().chain(paused.iter().map(|name| &**name)) {
            let transport = self.get(name, recorder);
            transport.paused.get_or_init(|| transport.register_paused(recorder));
        }
        for transport in self.0.read().unwrap_or_else(PoisonError::into_inner).values() {
            if let Some(gauge) = transport.paused.get() {
                gauge.set(f64::from(u8::from(paused.contains(&transport.name))));
            }
        }
    }
}

/// The metrics of one transport.
pub(super) struct TransportMetrics {
    name: Arc<str>,
    attempts: [AttemptMetrics; 1 + OUTCOMES.len() * SCOPES.len()],
    pub(super) transport_pauses: Counter,
    pub(super) sender_pauses: Counter,
    /// Whether it is paused. Not set for a transport that the health of a relay has not named yet.
    paused: OnceLock<Gauge>,
}

/// The outcomes of a failed attempt. A lost attempt is no call of this process.
const OUTCOMES: [Outcome; 3] = [Outcome::Transient, Outcome::Permanent, Outcome::InDoubt];
const SCOPES: [Scope; 3] = [Scope::Message, Scope::Sender, Scope::Transport];

impl TransportMetrics {
    fn register(name: &str, recorder: &dyn Recorder) -> Self {
        let name: Arc<str> = name.into();
        let pauses = |scope: Scope| {
            let labels = vec![system(&name), Label::new(label::SCOPE, scope.as_str())];
            recorder.register_counter(&Key::from_parts(names::PAUSES, labels), &METADATA)
        };
        Self {
            attempts: std::array::from_fn(|place| AttemptMetrics::register(&name, failure_at(place), recorder)),
            transport_pauses: pauses(Scope::Transport),
            sender_pauses: pauses(Scope::Sender),
            paused: OnceLock::new(),
            name,
        }
    }

    fn register_paused(&self, recorder: &dyn Recorder) -> Gauge {
        recorder.register_gauge(&Key::from_parts(names::PAUSED, vec![system(&self.name)]), &METADATA)
    }

    /// The metrics of an attempt.
    pub(super) fn attempt(&self, failure: Option<(Outcome, Scope)>) -> &AttemptMetrics {
        let [sent, failed @ ..] = &self.attempts;
        failure.and_then(|failure| failed.iter().find(|attempt| attempt.failure == Some(failure))).unwrap_or(sent)
    }
}

fn system(name: &Arc<str>) -> Label {
    Label::new(label::SYSTEM, Arc::clone(name))
}

/// The failure at a place of the list of attempts. `None` at the first place, which is that of accepted messages.
fn failure_at(place: usize) -> Option<(Outcome, Scope)> {
    let place = place.checked_sub(1)?;
    Some((*OUTCOMES.get(place / SCOPES.len())?, *SCOPES.get(place % SCOPES.len())?))
}

/// The metrics of the attempts with one outcome and scope.
pub(super) struct AttemptMetrics {
    /// `None` for an accepted message.
    failure: Option<(Outcome, Scope)>,
    pub(super) count: Counter,
    labels: Vec<Label>,
    /// Registered with the first attempt, since a histogram has many series.
    duration: OnceLock<Histogram>,
}

impl AttemptMetrics {
    fn register(name: &Arc<str>, failure: Option<(Outcome, Scope)>, recorder: &dyn Recorder) -> Self {
        let mut labels = vec![system(name), Label::new(label::OPERATION, "send")];
        if let Some((outcome, scope)) = failure {
            labels.push(Label::new(label::ERROR, outcome.as_str()));
            labels.push(Label::new(label::SCOPE, scope.as_str()));
        }
        let count = recorder.register_counter(&Key::from_parts(names::ATTEMPTS, labels.clone()), &METADATA);
        Self { failure, count, labels, duration: OnceLock::new() }
    }

    pub(super) fn duration(&self, recorder: &dyn Recorder) -> &Histogram {
        self.duration
            .get_or_init(|| recorder.register_histogram(&Key::from_parts(names::CALL, self.labels.clone()), &METADATA))
    }
}

#[cfg(test)]
mod tests {
    use ::metrics::NoopRecorder;

    use super::*;

    fn labels(attempt: &AttemptMetrics) -> Vec<(&str, &str)> {
        attempt.labels.iter().map(|label| (label.key(), label.value())).collect()
    }

    #[test]
    fn each_failure_has_its_own_labels() {
        let smtp = Transports::default().get("smtp", &NoopRecorder);
        let system = [("messaging.system", "smtp"), ("messaging.operation.name", "send")];
        assert_eq!(labels(smtp.attempt(None)), system);
        for outcome in OUTCOMES {
            for scope in SCOPES {
                let failure = [("error.type", outcome.as_str()), ("postrider.scope", scope.as_str())];
                assert_eq!(labels(smtp.attempt(Some((outcome, scope)))), [system, failure].concat());
            }
        }
    }

    #[test]
    fn the_number_and_the_form_of_transports_are_bounded() {
        let transports = Transports::default();
        let get = |name: &str| transports.get(name, &NoopRecorder);
        for name in ["ada@example.com", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(&*get(name).name, OTHER);
        }
        let named = (0..10_000).filter(|number| &*get(&format!("smtp-{number}")).name != OTHER).count();
        assert_eq!(named, MAX_TRANSPORTS - 1);
        assert_eq!(transports.0.read().unwrap().len(), MAX_TRANSPORTS);
        assert_eq!(&*get("smtp-0").name, "smtp-0");
    }
}
