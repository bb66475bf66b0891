//! The senders that failed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use postrider_transport::{Admit, Backoff, BreakerState, CallTime};

use super::streak::{Mail, Streak};
use super::{Admission, Call};

/// So many are remembered. Who is forgotten costs one more call.
const MOST: usize = 1024;

/// How long the second message of a sender waits while the first one finds out.
const WHILE_PROBING: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Senders {
    backoff: Backoff,
    known: HashMap<String, Sender>,
}

#[derive(Debug)]
struct Sender {
    pause: BreakerState,
    /// When the last call began that was accepted.
    accepted: Option<Instant>,
    blamed: Streak,
    /// When the first of those failed.
    since: Instant,
    /// When something was last heard of it.
    heard: Instant,
}

impl Senders {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, known: HashMap::new() }
    }

    pub(super) fn admit(&mut self, sender: &str, now: Instant) -> Admission {
        // The usual case costs no look.
        if self.known.is_empty() {
            return Admission::Pass;
        }
        let Some(known) = self.known.get_mut(sender) else {
            return Admission::Pass;
        };
        match known.pause.admit(now) {
            Admit::All => Admission::Pass,
            Admit::Probe(number) => Admission::SenderProbe(number),
            Admit::NotBefore(until) => Admission::Wait(until.saturating_duration_since(now)),
            Admit::Probing => Admission::Wait(WHILE_PROBING),
        }
    }

    pub(super) fn give_back(&mut self, sender: &str, number: u64) {
        if let Some(known) = self.known.get_mut(sender) {
            known.pause.give_back(number);
        }
    }

    pub(super) fn paused(&self) -> Vec<(String, String)> {
        let paused =
            self.known.iter().filter_map(|(sender, known)| Some((sender.clone(), known.pause.reason()?.to_owned())));
        let mut paused: Vec<_> = paused.collect();
        paused.sort_unstable();
        paused
    }

    /// Takes note that a sender's message failed for what may be the sender's condition, and counts how many different ones did
    /// since one of the sender was accepted.
    pub(super) fn blame(&mut self, sender: &str, pattern: &str, call: Call<'_>) -> usize {
        let known = self.entry(sender, call.time);
        let count = known.blamed.add(pattern, Mail::new(call.id, call.recipients));
        if count == 1 {
            known.since = call.time.ended;
        }
        count
    }

    /// Takes note that a sender's message was accepted. `true` if that ends a pause.
    pub(super) fn accepted(&mut self, sender: &str, time: CallTime) -> bool {
        if self.known.is_empty() {
            return false;
        }
        let Some(known) = self.known.get_mut(sender) else {
            return false;
        };
        known.heard = time.ended;
        known.accepted = known.accepted.max(Some(time.began));
        known.blamed.clear();
        known.pause.worked(time)
    }

    /// Whether another message of the call's sender was accepted since the call's message failed.
    pub(super) fn accepted_since(&self, call: Call<'_>) -> bool {
        let known = call.sender.and_then(|sender| self.known.get(sender));
        let accepted = known.and_then(|known| known.accepted);
        let before = call.before.map(|before| before.ended);
        matches!((accepted, before), (Some(accepted), Some(ended)) if ended.is_none_or(|ended| accepted > ended))
    }

    /// Whether a message was accepted, at a given time, since the first of those of the call's sender that failed.
    pub(super) fn others_accepted_since_blame(&self, call: Call<'_>, accepted: Option<Instant>) -> bool {
        let known = call.sender.and_then(|sender| self.known.get(sender));
        matches!((known, accepted), (Some(known), Some(accepted)) if accepted > known.since)
    }

    /// Pauses a sender. The pause, if it begins now, and how long is left of it.
    pub(super) fn pause(
        &mut self,
        sender: &str,
        reason: &str,
        asked: Option<Duration>,
        random: f64,
        time: CallTime,
    ) -> (Option<Duration>, Duration) {
        let known = self.entry(sender, time);
        let pause = known.pause.failed(reason.to_owned(), asked, random, time);
        (pause, known.pause.remaining(time.ended).unwrap_or_default())
    }

    fn entry(&mut self, sender: &str, time: CallTime) -> &mut Sender {
        if self.known.len() >= MOST && !self.known.contains_key(sender) {
            self.forget_one();
        }
        let backoff = self.backoff;
        let known = self.known.entry(sender.to_owned()).or_insert_with(|| Sender {
            pause: BreakerState::new(backoff, time.ended),
            accepted: None,
            blamed: Streak::default(),
            since: time.ended,
            heard: time.ended,
        });
        known.heard = time.ended;
        known
    }

    /// One that is not paused, if there is one; among those, the one of which nothing was heard for longest.
    fn forget_one(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, known)| (known.pause.is_paused(), known.heard));
        if let Some(sender) = oldest.map(|(sender, _)| sender.clone()) {
            self.known.remove(&sender);
        }
    }
}
