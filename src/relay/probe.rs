//! Probes a paused transport.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use postrider_transport::{CallTime, Failure, Message, Outgoing, Receipt, Recipient, Scope, Transport};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::capacity::RESERVE;
use super::claimer::Claimer;
use super::completer::Completion;
use super::decide::{Judged, honest};
use super::evidence::{Probing, Verdict};
use super::executor::{
    CallResult, ClaimedDelivery, InFlightGuard, Prepared, call, give_back, judge, prepare, settle_call,
};
use super::shared::{SenderProbe, Shared, TransportProbe};
use crate::store::Store;

/// Deliveries in one claim of a probe.
pub(super) const LOOKED_AT: usize = 32;

/// Messages of different senders and recipients that are tried, one after the other, before the pause grows: one,
/// and one for each extra permit.
const TRIED: usize = RESERVE + 1;

/// At most this many of them have the same sender, since the sender may be what is refused.
const OF_ONE_SENDER: usize = 2;

/// At most this many deliveries are claimed to find another sender.
const MOST: usize = 2048;

/// One round of probes: candidates are called one after the other until one is accepted. Only if none is does the pause grow.
pub(super) struct ProbeTask<S: Store, T: Transport> {
    pub(super) shared: Arc<Shared<S, T>>,
    pub(super) claimer: Arc<Claimer<S, T>>,
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    /// Only messages that differ from the one that paused the transport: a round before the end of the pause.
    pub(super) early: bool,
    /// Released at the end, unless a result has used it.
    pub(super) probe: TransportProbe<S, T>,
}

/// A message that may be tried. Its claim is in the [`InFlightGuard`].
struct Candidate<S: Store, T: Transport> {
    outgoing: Outgoing<T::Message>,
    /// Whether its last attempt failed, perhaps for a condition of its own.
    failed: bool,
    sender: Option<SenderProbe<S, T>>,
}

/// A candidate that was called, to be settled when the round is over.
struct Tried<M> {
    claimed: ClaimedDelivery,
    outgoing: Outgoing<M>,
    result: Result<Receipt, Failure>,
    verdict: Verdict,
    time: (Instant, Instant),
}

/// What was tried in this round.
#[derive(Default)]
struct Round {
    calls: usize,
    of_sender: HashMap<Option<String>, usize>,
    recipients: Vec<Vec<Recipient>>,
    domains: Vec<String>,
}

impl<S: Store, T: Transport> ProbeTask<S, T> {
    pub(super) async fn run(self, first: Vec<ClaimedDelivery>) {
        // A panic must not keep the probe or the leases.
        let _ = AssertUnwindSafe(self.rounds(first)).catch_unwind().await;
    }

    async fn rounds(self, first: Vec<ClaimedDelivery>) {
        let mut round = Round::default();
        let mut tried = Vec::new();
        let mut batch = first;
        let mut resumed = false;
        let mut looked_at = 0;
        while looked_at < MOST {
            looked_at += batch.len();
            let more = self.try_some(batch, &mut round, &mut tried, &mut resumed).await;
            if !more {
                break;
            }
            // A released delivery keeps its permit until that is written.
            tokio::select! {
                biased;
                () = self.shared.settings.abandon.cancelled() => break,
                () = self.claimer.capacity.wait_for_permit() => {}
            }
            let free = self.claimer.capacity.free_for_probe();
            if free == 0 {
                break;
            }
            match self.claimer.claim(LOOKED_AT.min(free)).await {
                Ok((_, claimed)) if !claimed.is_empty() => batch = claimed,
                _ => break,
            }
        }
        self.conclude(tried, resumed);
    }

    /// Tries candidates of one claim. Returns whether to claim and try more.
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
                    let failed = claimed.before().is_some_and(|before| before.scope.is_some());
                    candidates.push(Candidate { outgoing, failed, sender });
                }
                Prepared::Settle(settlement) => guard.complete(candidates.len(), settlement),
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
                Some(CallResult::Answered(result)) => honest(result, outgoing.recipients()),
                other => {
                    // The relay ended the call: the round is over and proves nothing.
                    claimed.lease.recipients = outgoing.into_recipients();
                    let settlement = match other {
                        Some(CallResult::Interrupted(why)) => {
                            settle_call(&self.shared, &claimed, time, &Err(why.into()), Judged::own(), None)
                        }
                        _ => give_back(&claimed.lease, Duration::ZERO),
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
        // Each further claim that looks for another sender would return the rest of this sender's mail.
        let wait = self.shared.evidence().next_pause(self.shared.random());
        let mut exhausted = 0;
        let left = candidates.len();
        for candidate in candidates {
            let sender = candidate.outgoing.message().sender().map(str::to_owned);
            let put_off = !*resumed && round.is_exhausted(&sender);
            exhausted += usize::from(put_off);
            if let Some(claimed) = guard.claims.front_mut() {
                claimed.lease.recipients = candidate.outgoing.into_recipients();
                let settlement = give_back(&claimed.lease, if put_off { wait } else { Duration::ZERO });
                guard.complete(0, settlement);
            }
        }
        !*resumed && round.calls < TRIED && exhausted == left && (left > 0 || round.calls > 0)
    }

    /// The best candidate left: preferably one that has not failed, of another sender and to another domain.
    fn pick(&self, candidates: &[Candidate<S, T>], round: &Round) -> Option<usize> {
        if round.calls >= TRIED {
            return None;
        }
        let fit = |candidate: &Candidate<S, T>| {
            let outgoing = &candidate.outgoing;
            let differs =
                !self.early || self.shared.evidence().differs_from_culprit(outgoing.id(), outgoing.recipients());
            let sender = outgoing.message().sender().map(str::to_owned);
            let of_sender = round.of_sender.get(&sender).copied().unwrap_or_default();
            let fits = differs
                && (of_sender < OF_ONE_SENDER || sender.is_none())
                && !round.recipients.iter().any(|recipients| recipients == outgoing.recipients());
            fits.then(|| (candidate.failed, of_sender, round.domains.contains(&domain(outgoing.recipients()))))
        };
        let fits = candidates.iter().enumerate().filter_map(|(place, candidate)| Some((fit(candidate)?, place)));
        fits.min().map(|(_, place)| place)
    }

    /// Settles what was tried, at the end of the round.
    fn conclude(self, tried: Vec<Tried<T::Message>>, resumed: bool) {
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
                // No longer than others wait: the transport works, or the pause has an end.
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

    /// Whether enough messages of this sender were tried.
    fn is_exhausted(&self, sender: &Option<String>) -> bool {
        sender.is_some() && self.of_sender.get(sender).is_some_and(|count| *count >= OF_ONE_SENDER)
    }
}

/// The domain of the first recipient, or its whole text if it has none.
fn domain(recipients: &[Recipient]) -> String {
    let first = recipients.first().map(Recipient::as_str).unwrap_or_default();
    first.rsplit('@').next().unwrap_or_default().to_ascii_lowercase()
}
