//! Probes a paused transport, to find out whether it works again.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use postrider_transport::{CallTime, Failure, Message, Outgoing, Receipt, Recipient, Scope, Transport};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::call::{CallResult, call};
use super::capacity::PROBE_PERMITS;
use super::claimer::Claimer;
use super::completer::Completion;
use super::decide::{Judged, reject_empty_receipt};
use super::evidence::{Probing, Verdict};
use super::executor::{ClaimedDelivery, InFlightGuard, Prepared, judge, prepare, release, settle_call};
use super::shared::{SenderProbe, Shared, TransportProbe};
use crate::store::Store;

/// The number of deliveries in one claim of a round.
pub(super) const CANDIDATES_PER_CLAIM: usize = 32;

/// The largest number of calls in one round, one after the other, before the pause grows: one, and one for each extra permit.
const MAX_CALLS: usize = PROBE_PERMITS + 1;

/// The largest number of calls for one sender in a round. The sender may be what the next hop refuses.
const MAX_CALLS_PER_SENDER: usize = 2;

/// The largest number of deliveries to claim in a round, to find another sender.
const MAX_CANDIDATES: usize = 2048;

/// One round of probes. It sends candidates one after the other until one is accepted. If none is accepted, the pause grows.
pub(super) struct ProbeTask<S: Store, T: Transport> {
    pub(super) shared: Arc<Shared<S, T>>,
    pub(super) claimer: Arc<Claimer<S, T>>,
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    /// Whether the round begins before the end of the pause. It then sends only messages that differ from the one that paused the transport.
    pub(super) early: bool,
    /// Released at the end, unless a result has ended the probe.
    pub(super) probe: TransportProbe<S, T>,
}

/// A message that the round may send. Its claim is in the [`InFlightGuard`].
struct Candidate<S: Store, T: Transport> {
    outgoing: Outgoing<T::Message>,
    /// Whether its last attempt failed. Its own condition may be the reason.
    failed: bool,
    sender: Option<SenderProbe<S, T>>,
}

/// A candidate that was sent. It is settled at the end of the round.
struct Tried<M> {
    claimed: ClaimedDelivery,
    outgoing: Outgoing<M>,
    result: Result<Receipt, Failure>,
    verdict: Verdict,
    time: (Instant, Instant),
}

/// The calls of this round so far.
#[derive(Default)]
struct Round {
    calls: usize,
    /// The deliveries that were settled without a call, for instance because an operator paused their template.
    settled: usize,
    of_sender: HashMap<Option<String>, usize>,
    recipients: Vec<Vec<Recipient>>,
    domains: Vec<String>,
}

impl<S: Store, T: Transport> ProbeTask<S, T> {
    pub(super) async fn run(self, first: Vec<ClaimedDelivery>) {
        // After a panic, the guards still release the probe and the leases.
        let _ = AssertUnwindSafe(self.run_round(first)).catch_unwind().await;
    }

    async fn run_round(self, first: Vec<ClaimedDelivery>) {
        let mut round = Round::default();
        let mut tried = Vec::new();
        let mut batch = first;
        let mut resumed = false;
        let mut claimed_count = 0;
        while claimed_count < MAX_CANDIDATES {
            claimed_count += batch.len();
            let more = self.try_some(batch, &mut round, &mut tried, &mut resumed).await;
            if !more {
                break;
            }
            // Released deliveries keep their permits until the release is written.
            tokio::select! {
                biased;
                () = self.shared.settings.abandon.cancelled() => break,
                () = self.claimer.capacity.wait_for_permit() => {}
            }
            let free = self.claimer.capacity.free_for_probe();
            if free == 0 {
                break;
            }
            match self.claimer.claim(CANDIDATES_PER_CLAIM.min(free)).await {
                Ok((_, claimed)) if !claimed.is_empty() => batch = claimed,
                _ => break,
            }
        }
        // The released deliveries are behind other mail now, so the next round reaches others.
        if round.calls == 0 && round.settled > 0 && !self.shared.ends_by_itself {
            self.shared.control_state.keep_probe();
        }
        self.finish_round(tried, resumed);
    }

    /// Sends candidates of one claim. Returns whether to claim more.
    async fn try_some(
        &self,
        batch: Vec<ClaimedDelivery>,
        round: &mut Round,
        tried: &mut Vec<Tried<T::Message>>,
        resumed: &mut bool,
    ) -> bool {
        let mut guard = InFlightGuard { shared: &self.shared, completions: &self.completions, claims: batch.into() };
        let mut candidates: Vec<Candidate<S, T>> = Vec::new();
        while let Some(claimed) = guard.claims.get_mut(candidates.len()) {
            match prepare(&self.shared, claimed) {
                Prepared::Send(outgoing, sender) => {
                    let failed = claimed.previous_attempt().is_some_and(|before| before.scope.is_some());
                    candidates.push(Candidate { outgoing, failed, sender });
                }
                Prepared::Settle(settlement) => {
                    guard.complete(candidates.len(), settlement);
                    round.settled += 1;
                }
            }
        }
        while let Some(place) = self.pick(&candidates, round) {
            let candidate = candidates.remove(place);
            let Some(mut claimed) = guard.claims.remove(place) else { break };
            round.note(&candidate.outgoing);
            let began = Instant::now();
            let result = call(&self.shared, &claimed.lease, std::slice::from_ref(&candidate.outgoing)).await.pop();
            let time = (began, Instant::now());
            let Candidate { outgoing, sender, .. } = candidate;
            let result = match result {
                Some(CallResult::Answered(result)) => reject_empty_receipt(result, outgoing.recipients()),
                other => {
                    // The relay ended the call. The round ends, and proves nothing.
                    claimed.lease.recipients = outgoing.into_recipients();
                    let settlement = match other {
                        Some(CallResult::Interrupted(why)) => {
                            settle_call(&self.shared, &claimed, time, &Err(why.into()), Judged::own(), None)
                        }
                        _ => release(&claimed.lease, Duration::ZERO),
                    };
                    guard.claims.push_front(claimed);
                    guard.complete(0, settlement);
                    break;
                }
            };
            let verdict = judge(&self.shared, &claimed, &result, &outgoing, time, Probing::Candidate);
            drop(sender);
            *resumed |= result.is_ok();
            tried.push(Tried { claimed, outgoing, result, verdict, time });
            if *resumed || self.shared.settings.abandon.is_cancelled() {
                break;
            }
        }
        // The other mail of a sender with enough failed calls waits as long as the next pause. Otherwise the next claim, which looks for
        // another sender, would return it again.
        let wait = self.shared.evidence().next_pause(self.shared.random());
        let mut exhausted = 0;
        let left = candidates.len();
        for candidate in candidates {
            let sender = candidate.outgoing.message().sender().map(str::to_owned);
            let put_off = !*resumed && round.is_exhausted(&sender);
            exhausted += usize::from(put_off);
            if let Some(claimed) = guard.claims.front_mut() {
                claimed.lease.recipients = candidate.outgoing.into_recipients();
                let settlement = release(&claimed.lease, if put_off { wait } else { Duration::ZERO });
                guard.complete(0, settlement);
            }
        }
        // A pass would claim the deliveries that it has released again.
        let skipped = round.settled > 0 && !self.shared.ends_by_itself;
        !*resumed && round.calls < MAX_CALLS && exhausted == left && (left > 0 || round.calls > 0 || skipped)
    }

    /// Picks the best candidate: preferably one that has not failed, has another sender, and goes to another domain.
    fn pick(&self, candidates: &[Candidate<S, T>], round: &Round) -> Option<usize> {
        if round.calls >= MAX_CALLS {
            return None;
        }
        let fit = |candidate: &Candidate<S, T>| {
            let outgoing = &candidate.outgoing;
            let differs = !self.early
                || self.shared.evidence().differs_from_pausing_message(outgoing.id(), outgoing.recipients());
            let sender = outgoing.message().sender().map(str::to_owned);
            let of_sender = round.of_sender.get(&sender).copied().unwrap_or_default();
            let fits = differs
                && (of_sender < MAX_CALLS_PER_SENDER || sender.is_none())
                && !round.recipients.iter().any(|recipients| recipients == outgoing.recipients());
            fits.then(|| (candidate.failed, of_sender, round.domains.contains(&domain(outgoing.recipients()))))
        };
        let fits = candidates.iter().enumerate().filter_map(|(place, candidate)| Some((fit(candidate)?, place)));
        fits.min().map(|(_, place)| place)
    }

    /// Prolongs the pause if no candidate was accepted, and settles the calls of the round.
    fn finish_round(self, tried: Vec<Tried<T::Message>>, resumed: bool) {
        let blamed = tried.iter().rev().find(|tried| tried.verdict.scope == Scope::Transport);
        if let Some(Tried { result: Err(failure), time, .. }) = blamed
            && !resumed
        {
            let time = CallTime { began: time.0.into_std(), ended: time.1.into_std() };
            let change = self.shared.evidence().probe_failed(failure, self.shared.random(), time);
            if let Some(change) = change {
                self.shared.announce(&change);
            }
        }
        for Tried { mut claimed, outgoing, result, verdict, time } in tried {
            let mut judged = Judged::from(&verdict);
            if verdict.scope == Scope::Transport && result.is_err() {
                // It waits until the pause ends or, if another candidate was accepted, as long as a first pause.
                let now = Instant::now().into_std();
                let wait = (!self.shared.ends_by_itself)
                    .then(|| self.shared.evidence().wait_of_probe(now, self.shared.random()));
                judged.wait = wait.or(judged.wait);
            }
            claimed.lease.recipients = outgoing.into_recipients();
            let settlement = settle_call(&self.shared, &claimed, time, &result, judged, verdict.note);
            let mut guard = InFlightGuard {
                shared: &self.shared,
                completions: &self.completions,
                claims: [claimed].into_iter().collect(),
            };
            guard.complete(0, settlement);
        }
        drop(self.probe);
    }
}

impl Round {
    fn note<M: Message>(&mut self, outgoing: &Outgoing<M>) {
        self.calls += 1;
        *self.of_sender.entry(outgoing.message().sender().map(str::to_owned)).or_default() += 1;
        self.recipients.push(outgoing.recipients().to_vec());
        self.domains.push(domain(outgoing.recipients()));
    }

    /// Whether the round has made the largest number of calls for this sender.
    fn is_exhausted(&self, sender: &Option<String>) -> bool {
        sender.is_some() && self.of_sender.get(sender).is_some_and(|count| *count >= MAX_CALLS_PER_SENDER)
    }
}

/// The domain of the first recipient. If it has no domain, its whole text.
fn domain(recipients: &[Recipient]) -> String {
    let first = recipients.first().map(Recipient::as_str).unwrap_or_default();
    first.rsplit('@').next().unwrap_or_default().to_ascii_lowercase()
}
