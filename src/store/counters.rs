//! What settlements and changes by operators add to the counters.

use std::collections::BTreeMap;

use crate::admin::CountedEvent;
use crate::clock::to_millis;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use crate::operator::Change;
use crate::state::State;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
use crate::store::Settled;
use crate::store::{Next, Settlement};

/// An hour in milliseconds.
pub(super) const HOUR: i64 = 3_600_000;

/// How often an event happened, by the beginning of the hour in milliseconds since 1970, the event and the transport.
pub(super) type Hourly = BTreeMap<(i64, CountedEvent, Option<String>), i64>;

/// What settlements or changes by operators add to the counters.
#[derive(Default)]
pub(super) struct Counts {
    /// How many deliveries ended in each state.
    pub(super) ended: BTreeMap<&'static str, i64>,
    pub(super) hourly: Hourly,
}

impl Counts {
    /// Counts changes by operators of deliveries in these states, at `now`, in milliseconds.
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    pub(super) fn of_changes(change: Change, before: impl Iterator<Item = State>, now: i64) -> Self {
        let mut counts = Self::default();
        let mut changed = 0;
        for state in before.inspect(|_| changed += 1).filter(|state| state.is_finished()) {
            *counts.ended.entry(state.as_str()).or_default() -= 1;
        }
        let ended = match change {
            Change::Resend => None,
            Change::Cancel => Some((State::Cancelled, CountedEvent::Cancelled)),
            Change::Dismiss => Some((State::Dismissed, CountedEvent::Dismissed)),
        };
        if let Some((state, event)) = ended {
            *counts.ended.entry(state.as_str()).or_default() += changed;
            counts.hourly.insert((now.div_euclid(HOUR) * HOUR, event, None), changed);
        }
        counts
    }

    /// Counts the settlements that were applied at `now`, in milliseconds.
    #[cfg(any(feature = "mysql", feature = "sqlite"))]
    pub(super) fn of(settlements: &[Settlement], results: &[Settled], now: i64) -> Self {
        let mut counts = Self::default();
        let applied = settlements.iter().zip(results).filter(|(_, result)| **result == Settled::Applied);
        applied.for_each(|(settlement, _)| counts.add(settlement, now));
        counts
    }

    /// Counts one applied settlement.
    pub(super) fn add(&mut self, settlement: &Settlement, now: i64) {
        let attempt = settlement.attempt.as_ref();
        let transport = attempt.and_then(|attempt| attempt.transport.clone());
        if let Some(attempt) = attempt
            && let Some(event) = CountedEvent::of_attempt(attempt.outcome)
        {
            self.count(to_millis(attempt.finished_at), event, transport.clone());
        }
        let state = match settlement.next {
            Next::Pending { .. } => return,
            Next::Sent => State::Sent,
            Next::Dead { .. } => State::Dead,
            Next::InDoubt { .. } => State::InDoubt,
        };
        *self.ended.entry(state.as_str()).or_default() += 1;
        if let Some(event) = CountedEvent::of_end(state) {
            self.count(now, event, transport);
        }
    }

    fn count(&mut self, millis: i64, event: CountedEvent, transport: Option<String>) {
        *self.hourly.entry((millis.div_euclid(HOUR) * HOUR, event, transport)).or_default() += 1;
    }
}
