//! The pauses of senders and of their domains.
//!
//! A sender is an address. If two addresses of a domain are refused and no mail of the domain is accepted in between, the whole domain is
//! paused. Its key is its name with an `@` before it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use postrider_transport::{Admit, Backoff, BreakerState, CallTime, DeliveryId};

use super::streak::{Mail, Streak};
use super::{Admission, Call};

/// The largest number of senders and domains to remember. A forgotten one costs one more call.
const MAX_SENDERS: usize = 1024;

/// The largest number of probes in one pass before the end of a sender's pause. More than one is needed: the first message, which is the
/// same in each pass, may fail for its own condition.
const MAX_EARLY_PROBES: u32 = 3;

/// The largest number of failed messages of a sender to remember.
const MAX_FAILED: usize = 64;

/// A domain counts as refused when this many of its addresses are refused.
const MIN_REFUSED_ADDRESSES: usize = 2;

/// The wait of a sender's other messages during a probe.
const PROBING_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Senders {
    backoff: Backoff,
    known: HashMap<String, Sender>,
}

#[derive(Debug)]
struct Sender {
    pause: BreakerState,
    /// When the last accepted call began.
    accepted: Option<Instant>,
    blamed: Streak,
    /// For a domain: hashes of the addresses that were refused since the last acceptance.
    addresses: Vec<u64>,
    /// When the first message in `blamed` failed.
    first_blamed: Instant,
    /// The time of the last result.
    last_result: Instant,
    /// The messages that failed since the last acceptance, in the order of their last failures.
    failed: Vec<DeliveryId>,
    /// The lowest [turn](Self::turn) among the messages that wait for the end of the pause.
    next: Option<usize>,
    /// Until this time, messages with the lowest turn have the first right to the probe, even with a lower priority. It is twice the pause.
    reserved_until: Instant,
    /// The number of messages tried before the end of the pause.
    early: u32,
}

impl Senders {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, known: HashMap::new() }
    }

    /// Returns whether a message may be sent. `early` allows probes before a pause ends, for a pass, which does not wait.
    pub(super) fn admit(&mut self, sender: &str, id: DeliveryId, early: bool, now: Instant) -> Admission {
        // A fast path: usually no sender has failed.
        if self.known.is_empty() {
            return Admission::Pass;
        }
        // A paused domain decides for its addresses.
        let of_domain = self.known.get(domain(sender)).is_some_and(|known| known.pause.is_paused());
        let key = if of_domain { domain(sender) } else { sender };
        let Some(known) = self.known.get_mut(key) else {
            return Admission::Pass;
        };
        let turn = known.turn(id);
        if known.next.is_some_and(|next| next < turn) && known.pause.would_admit(now) && now < known.reserved_until {
            return Admission::Wait(known.reserved_until.saturating_duration_since(now));
        }
        let wait = match known.pause.admit(now) {
            Admit::All => return Admission::Pass,
            Admit::Probe(number) => return Admission::SenderProbe { of_domain, number },
            Admit::NotBefore(_) if early && turn == 0 && known.early < MAX_EARLY_PROBES => {
                known.early += 1;
                match known.pause.admit_early() {
                    Admit::Probe(number) => return Admission::SenderProbe { of_domain, number },
                    _ => return Admission::Pass,
                }
            }
            Admit::NotBefore(until) => until.saturating_duration_since(now),
            Admit::Probing => PROBING_WAIT,
        };
        known.next = Some(known.next.map_or(turn, |next| next.min(turn)));
        Admission::Wait(wait)
    }

    pub(super) fn release_probe(&mut self, sender: &str, of_domain: bool, number: u64) {
        if let Some(known) = self.known.get_mut(if of_domain { domain(sender) } else { sender }) {
            known.pause.release_probe(number);
        }
    }

    pub(super) fn paused(&self) -> Vec<(String, String)> {
        let is_shown = |sender: &str| sender.starts_with('@') || !self.is_paused(domain(sender));
        let paused = self.known.iter().filter(|(sender, _)| is_shown(sender));
        let paused = paused.filter_map(|(sender, known)| Some((sender.clone(), known.pause.reason()?.to_owned())));
        let mut paused: Vec<_> = paused.collect();
        paused.sort_unstable();
        paused
    }

    /// Records a failure that may be the sender's condition. Returns the number of different messages that failed with this pattern since
    /// the sender's last acceptance.
    pub(super) fn blame(&mut self, sender: &str, pattern: &str, call: Call<'_>) -> usize {
        let known = self.entry(sender, call.time);
        let count = known.blamed.add(pattern, Mail::new(call.id, call.recipients));
        if count == 1 {
            known.first_blamed = call.time.ended;
        }
        count
    }

    fn is_paused(&self, key: &str) -> bool {
        self.known.get(key).is_some_and(|known| known.pause.is_paused())
    }

    /// Records that a message failed, for any reason: its turn is over.
    pub(super) fn failed(&mut self, sender: &str, id: DeliveryId) {
        for key in [sender, domain(sender)] {
            let Some(known) = self.known.get_mut(key) else {
                continue;
            };
            // A message with a lower turn may still wait.
            let turn = known.turn(id);
            known.next = known.next.filter(|next| *next < turn);
            known.failed.retain(|failed| *failed != id);
            if known.failed.len() == MAX_FAILED {
                known.failed.remove(0);
            }
            known.failed.push(id);
        }
    }

    /// Records an acceptance. Returns the pauses that end with it.
    pub(super) fn accepted(&mut self, sender: &str, time: CallTime) -> Vec<String> {
        let mut resumed = Vec::new();
        if self.known.is_empty() {
            return resumed;
        }
        for key in [sender, domain(sender)] {
            let Some(known) = self.known.get_mut(key) else {
                continue;
            };
            known.last_result = time.ended;
            known.accepted = known.accepted.max(Some(time.began));
            known.blamed.clear();
            known.failed.clear();
            known.next = None;
            known.early = 0;
            known.addresses.clear();
            if known.pause.record_success(time) {
                resumed.push(key.to_owned());
            }
        }
        resumed
    }

    /// Whether another message of the call's sender was accepted since the call's message failed.
    pub(super) fn accepted_since(&self, call: Call<'_>) -> bool {
        let known = call.sender.and_then(|sender| self.known.get(sender));
        let accepted = known.and_then(|known| known.accepted);
        let before = call.previous.map(|before| before.ended);
        matches!((accepted, before), (Some(accepted), Some(ended)) if ended.is_none_or(|ended| accepted > ended))
    }

    /// Whether `accepted` is later than the first failure in `blamed` of the call's sender.
    pub(super) fn others_accepted_since_blame(&self, call: Call<'_>, accepted: Option<Instant>) -> bool {
        let known = call.sender.and_then(|sender| self.known.get(sender));
        matches!((known, accepted), (Some(known), Some(accepted)) if accepted > known.first_blamed)
    }

    /// Pauses a sender, and also its domain if enough addresses are refused. Returns the pauses that begin, and the rest of the longer
    /// pause.
    pub(super) fn pause(
        &mut self,
        sender: &str,
        reason: &str,
        asked: Option<Duration>,
        random: f64,
        call: Call<'_>,
    ) -> (Vec<(String, Duration)>, Duration) {
        let mut begun = Vec::new();
        let known = self.entry(sender, call.time);
        begun.extend(known.fail(reason, asked, random, call).map(|pause| (sender.to_owned(), pause)));
        let mut remaining = known.pause.remaining(call.time.ended).unwrap_or_default();
        let domain = domain(sender);
        if !domain.is_empty() {
            let known = self.entry(domain, call.time);
            let address = hash(sender);
            if known.addresses.len() < MIN_REFUSED_ADDRESSES && !known.addresses.contains(&address) {
                known.addresses.push(address);
            }
            if known.addresses.len() >= MIN_REFUSED_ADDRESSES {
                begun.extend(known.fail(reason, asked, random, call).map(|pause| (domain.to_owned(), pause)));
                remaining = remaining.max(known.pause.remaining(call.time.ended).unwrap_or_default());
            }
        }
        (begun, remaining)
    }

    fn entry(&mut self, sender: &str, time: CallTime) -> &mut Sender {
        if self.known.len() >= MAX_SENDERS && !self.known.contains_key(sender) {
            self.forget_one();
        }
        let backoff = self.backoff;
        let known = self.known.entry(sender.to_owned()).or_insert_with(|| Sender {
            pause: BreakerState::new(backoff, time.ended),
            accepted: None,
            blamed: Streak::default(),
            addresses: Vec::new(),
            first_blamed: time.ended,
            last_result: time.ended,
            failed: Vec::new(),
            next: None,
            early: 0,
            reserved_until: time.ended,
        });
        known.last_result = time.ended;
        known
    }

    /// Forgets the sender with the oldest result, preferably one that is not paused.
    fn forget_one(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_, known)| (known.pause.is_paused(), known.last_result));
        if let Some(sender) = oldest.map(|(sender, _)| sender.clone()) {
            self.known.remove(&sender);
        }
    }
}

impl Sender {
    /// The message's place in the order of probes. Messages that have not failed come first, then those with the oldest failures.
    fn turn(&self, id: DeliveryId) -> usize {
        self.failed.iter().position(|failed| *failed == id).map_or(0, |place| place + 1)
    }

    fn fail(&mut self, reason: &str, asked: Option<Duration>, random: f64, call: Call<'_>) -> Option<Duration> {
        let pause = self.pause.record_failure(reason.to_owned(), asked, random, call.time)?;
        self.reserved_until = call.time.ended + pause * 2;
        Some(pause)
    }
}

/// The domain with its `@`, or an empty text if there is no `@`. It is never the key of a sender, because no address begins with `@`.
fn domain(sender: &str) -> &str {
    sender.rfind('@').map_or("", |at| &sender[at..])
}

fn hash(sender: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    sender.hash(&mut hasher);
    hasher.finish()
}
