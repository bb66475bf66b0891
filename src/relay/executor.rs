//! Sends claimed deliveries: prepares each message, calls the transport, and passes the results to the completer.

use std::collections::VecDeque;
use std::future::{poll_fn, ready};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};
use std::vec::IntoIter;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use postrider_transport::{
    CallTime, CodecError, Failure, Message, Outgoing, Receipt, Refusal, Scope, Transport, mask_addresses,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::call::{CallResult, call};
use super::completer::Completion;
use super::decide::{DecisionInput, Judged, decide, decide_before_sending, reject_empty_receipt};
use super::evidence::{Admission, Call, PreviousAttempt, Probing, Verdict};
use super::shared::{SenderProbe, Shared};
use crate::delivery::Attempt;
use crate::observe::Event;
use crate::state::Outcome;
use crate::store::{Lease, Next, RecipientOutcome, Settlement, Store};

/// A claimed delivery with the times of its claim. The relay never compares its clock with the database's: it adds its own elapsed time to
/// the database's time of the claim.
#[derive(Debug)]
pub(super) struct ClaimedDelivery {
    pub(super) lease: Lease,
    /// When the claim was sent.
    pub(super) claim_sent_at: Instant,
    /// When the answer arrived. The database's time in the lease is earlier.
    pub(super) claim_answered_at: Instant,
    /// The permit of this message. Released when its result is written.
    pub(super) permit: OwnedSemaphorePermit,
}

impl ClaimedDelivery {
    /// Converts a time of this process to the database's clock.
    fn at(&self, moment: Instant) -> SystemTime {
        self.lease.claimed_at + moment.saturating_duration_since(self.claim_answered_at)
    }

    /// How long the delivery was due before this call. `None` if it is not the first call of the cycle.
    fn waited(&self, began: Instant) -> Option<Duration> {
        let lease = &self.lease;
        let tried = lease.last.as_ref().is_some_and(|last| last.cycle == lease.cycle);
        let first = !tried && !lease.lost && lease.charged_attempts == 0;
        first.then(|| self.at(began).duration_since(lease.cycle_started_at).unwrap_or_default())
    }

    /// The last attempt of this cycle, with its time by this process's clock. `None` if there is none or it was lost.
    pub(super) fn previous_attempt(&self) -> Option<PreviousAttempt> {
        let last =
            self.lease.last.as_ref().filter(|last| last.cycle == self.lease.cycle && last.outcome != Outcome::Lost)?;
        let ago = self.lease.claimed_at.duration_since(last.finished_at).unwrap_or_default();
        let ended = self.claim_answered_at.checked_sub(ago).map(Instant::into_std);
        Some(PreviousAttempt { ended, scope: last.scope })
    }
}

/// A task that sends a part of one claim, in groups within the transport's batch limit.
pub(super) struct SendTask<S, T> {
    pub(super) shared: Arc<Shared<S, T>>,
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    pub(super) groups: Mutex<IntoIter<Vec<ClaimedDelivery>>>,
}

impl<S: Store, T: Transport> SendTask<S, T> {
    /// Sends all groups concurrently. Calls that complete at their first poll share one allocation, and each other call has its own.
    pub(super) async fn run(self) {
        let waiting = FuturesUnordered::new();
        loop {
            let mut sender = Box::pin(self.send_groups());
            if poll_fn(|context| Poll::Ready(sender.as_mut().poll(context).is_ready())).await {
                break;
            }
            waiting.push(sender);
        }
        waiting.for_each(|()| ready(())).await;
    }

    async fn send_groups(&self) {
        while let Some(group) = self.next() {
            let call = pin!(send(&self.shared, group, &self.completions));
            // A panic must not end the other calls.
            let _ = AssertUnwindSafe(call).catch_unwind().await;
        }
    }

    fn next(&self) -> Option<Vec<ClaimedDelivery>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Sends one group and passes the results to the completer.
async fn send<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    group: Vec<ClaimedDelivery>,
    completions: &mpsc::UnboundedSender<Completion>,
) {
    let mut messages = Vec::with_capacity(group.len());
    let mut probes = Vec::new();
    let mut guard = InFlightGuard { shared, completions, claims: group.into() };
    while let Some(claimed) = guard.claims.get_mut(messages.len()) {
        match prepare(shared, claimed) {
            Prepared::Send(outgoing, probe) => {
                messages.push(outgoing);
                probes.extend(probe);
            }
            Prepared::Settle(settlement) => guard.complete(messages.len(), settlement),
        }
    }
    let Some(first) = guard.claims.front() else {
        return;
    };
    let began = Instant::now();
    let results = call(shared, &first.lease, &messages).await;
    let ended = Instant::now();
    for (result, message) in results.into_iter().zip(messages) {
        let Some(claimed) = guard.claims.front_mut() else {
            return;
        };
        let settlement = judge_and_settle(shared, claimed, result, message, (began, ended));
        guard.complete(0, settlement);
    }
    // Release the probes after the results are judged. If this call is dropped, they are released with it.
    drop(probes);
}

fn judge_and_settle<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &mut ClaimedDelivery,
    result: CallResult,
    message: Outgoing<T::Message>,
    time: (Instant, Instant),
) -> Settlement {
    match result {
        CallResult::Answered(result) => {
            let result = reject_empty_receipt(result, message.recipients());
            let verdict = judge(shared, claimed, &result, &message, time, Probing::No);
            claimed.lease.recipients = message.into_recipients();
            settle_call(shared, claimed, time, &result, Judged::from(&verdict), verdict.note)
        }
        CallResult::Interrupted(why) => {
            claimed.lease.recipients = message.into_recipients();
            settle_call(shared, claimed, time, &Err(why.into()), Judged::own(), None)
        }
        CallResult::NotSent => release(&claimed.lease, Duration::ZERO),
    }
}

/// Judges a result, and announces the pauses that begin or end with it.
pub(super) fn judge<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &ClaimedDelivery,
    result: &Result<Receipt, Failure>,
    message: &Outgoing<T::Message>,
    (began, ended): (Instant, Instant),
    probe: Probing,
) -> Verdict {
    let call = Call {
        id: claimed.lease.key.id,
        sender: message.message().sender(),
        recipients: message.recipients(),
        time: CallTime { began: began.into_std(), ended: ended.into_std() },
        previous: claimed.previous_attempt(),
        probe,
    };
    shared.judge(result, call)
}

/// Cleans up after a group, even if its task panics or is dropped: removes the leases, so that they are not renewed, and notifies the
/// producer about free permits.
pub(super) struct InFlightGuard<'a, S: Store, T: Transport> {
    pub(super) shared: &'a Shared<S, T>,
    pub(super) completions: &'a mpsc::UnboundedSender<Completion>,
    /// The deliveries that were not passed to the completer yet.
    pub(super) claims: VecDeque<ClaimedDelivery>,
}

impl<S: Store, T: Transport> InFlightGuard<'_, S, T> {
    pub(super) fn complete(&mut self, place: usize, mut settlement: Settlement) {
        let Some(ClaimedDelivery { lease, permit, .. }) = self.claims.remove(place) else {
            return;
        };
        settlement.make_storable();
        let (attempts, charged_attempts) = (lease.attempts, lease.charged_attempts);
        let completion = Completion { settlement, attempts, charged_attempts, template_id: lease.template_id, permit };
        if self.completions.send(completion).is_err() {
            // The completer has ended. The producer notices that and ends the relay. The lease expires.
            self.shared.permit_freed.notify_one();
        }
    }
}

impl<S: Store, T: Transport> Drop for InFlightGuard<'_, S, T> {
    fn drop(&mut self) {
        let left = !self.claims.is_empty();
        self.shared.in_flight.remove(self.claims.drain(..).map(|claimed| claimed.lease.key));
        if left {
            self.shared.permit_freed.notify_one();
        }
    }
}

pub(super) enum Prepared<S: Store, T: Transport> {
    /// The message to send, and the probe of its sender if this message is the probe.
    Send(Outgoing<T::Message>, Option<SenderProbe<S, T>>),
    /// The delivery is not sent.
    Settle(Settlement),
}

/// Makes the outgoing message of a lease, and moves the lease's recipients into it. The caller moves them back after the call.
pub(super) fn prepare<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    claimed: &mut ClaimedDelivery,
) -> Prepared<S, T> {
    let now = Instant::now();
    let lease = &claimed.lease;
    if now.saturating_duration_since(claimed.claim_sent_at) >= shared.settings.lease {
        // The claim took longer than the lease, so another relay may hold the delivery. The settlement releases it if none does.
        tracing::warn!(id = %lease.key.id, "the lease expired before the message could be sent");
        return Prepared::Settle(release(lease, Duration::ZERO));
    }
    if let Some(why) = &lease.malformed {
        let failure = Failure::permanent(Scope::Message, format!("the stored row cannot be read: {why}"));
        return Prepared::Settle(settle(shared, claimed, (now, now), &Err(failure), Judged::own(), None, None));
    }
    if let Some(end) = decide_before_sending(decision_input(shared, claimed, now)) {
        return Prepared::Settle(settlement_without_call(lease, end.next, end.recipients));
    }
    // The message's type may be a custom one. A panic in its decoder must not end the relay.
    let failure = match catch_unwind(AssertUnwindSafe(|| read::<T::Message>(lease))) {
        Ok(Ok(message)) if let Some(wait) = shared.wait_by_operator(message.sender(), lease.template_id.as_deref()) => {
            return Prepared::Settle(release(lease, wait));
        }
        Ok(Ok(message)) => match shared.admit_sender(message.sender(), lease.key.id, now) {
            Admission::Wait(wait) => return Prepared::Settle(release(lease, wait)),
            admission => {
                let probe = SenderProbe::new(shared, message.sender(), admission);
                let lease = &mut claimed.lease;
                let recipients = mem::take(&mut lease.recipients);
                let outgoing = Outgoing::for_recipients(
                    lease.key.id,
                    lease.dated_at,
                    message,
                    recipients,
                    lease.has_completed_recipients,
                );
                let outgoing =
                    outgoing.with_attempt(lease.attempts + 1, lease.cycle).with_traceparent(lease.traceparent);
                return Prepared::Send(outgoing, probe);
            }
        },
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::transient(Scope::Message, "decoding the stored message panicked"),
    };
    Prepared::Settle(settle(shared, claimed, (now, now), &Err(failure), Judged::own(), None, None))
}

/// Decodes the message and checks its recipients.
fn read<M: Message>(lease: &Lease) -> Result<M, CodecError> {
    let message = M::decode(&lease.message)?;
    let all = lease.recipients.len();
    for (place, recipient) in (1..).zip(&lease.recipients) {
        M::check_recipient(recipient)
            .map_err(|error| CodecError::new(format!("recipient {place} of {all}: {error}")))?;
    }
    Ok(message)
}

/// Releases a delivery without an attempt and without a charge, because there was no call.
pub(super) fn release(lease: &Lease, after: Duration) -> Settlement {
    settlement_without_call(lease, Next::Pending { after }, Vec::new())
}

fn settlement_without_call(lease: &Lease, next: Next, recipients: Vec<RecipientOutcome>) -> Settlement {
    Settlement { key: lease.key, attempt: None, charged_attempts: lease.charged_attempts, recipients, next }
}

fn decision_input<'a, S: Store, T: Transport>(
    shared: &'a Shared<S, T>,
    claimed: &'a ClaimedDelivery,
    now: Instant,
) -> DecisionInput<'a> {
    let (lease, policy) = (&claimed.lease, &shared.settings.retry);
    DecisionInput { lease, policy, now: claimed.at(now), random: shared.random() }
}

/// The settlement after a call of the transport.
pub(super) fn settle_call<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &ClaimedDelivery,
    time: (Instant, Instant),
    result: &Result<Receipt, Failure>,
    judged: Judged,
    note: Option<&'static str>,
) -> Settlement {
    let transport = path(shared.transport.name(), result);
    settle(shared, claimed, time, result, judged, note, Some(transport))
}

/// The settlement of an attempt. Used directly, and without a transport, if the stored message could not be decoded.
fn settle<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &ClaimedDelivery,
    (began, ended): (Instant, Instant),
    result: &Result<Receipt, Failure>,
    judged: Judged,
    note: Option<&'static str>,
    transport: Option<String>,
) -> Settlement {
    let lease = &claimed.lease;
    let decision = decide(result, judged, decision_input(shared, claimed, ended));
    let number = lease.attempts.saturating_add(1);
    let mut attempt = Attempt::new(number, lease.cycle, claimed.at(began), claimed.at(ended), decision.outcome);
    match result {
        Ok(receipt) => {
            attempt.sure = receipt.refused.iter().all(|refusal| refusal.sure);
            attempt.error = refusals(&receipt.refused);
            attempt.reply.clone_from(&receipt.reply);
            attempt.provider_id.clone_from(&receipt.provider_id);
        }
        Err(failure) => {
            attempt.scope = Some(failure.scope());
            attempt.sure = failure.is_sure();
            attempt.error = Some(failure.to_string());
            attempt.reply = failure.reply().map(str::to_owned);
        }
    }
    attempt.charged = decision.charged;
    attempt.note = note.map(str::to_owned);
    let took = ended.saturating_duration_since(began);
    shared.emit(&Event::AttemptFinished {
        id: lease.key.id,
        number,
        outcome: decision.outcome,
        result,
        transport: transport.as_deref(),
        took,
        waited: claimed.waited(began),
    });
    attempt.transport = transport;
    Settlement {
        key: lease.key,
        attempt: Some(attempt),
        charged_attempts: decision.charged_attempts,
        recipients: decision.recipients,
        next: decision.next,
    }
}

/// The transport's name, followed by the name of the inner transport that it called, as in `failover/ses`.
fn path(name: &str, result: &Result<Receipt, Failure>) -> String {
    let via = match result {
        Ok(receipt) => receipt.via.as_deref(),
        Err(failure) => failure.via(),
    };
    via.map_or_else(|| name.to_owned(), |via| format!("{name}/{via}"))
}

/// The next hop's replies for refused recipients, with masked addresses.
fn refusals(refused: &[Refusal]) -> Option<String> {
    let replies = refused.iter().map(|refusal| format!("{:?}: {}", refusal.recipient, mask_addresses(&refusal.reply)));
    let replies: Vec<_> = replies.collect();
    (!replies.is_empty()).then(|| format!("refused for {}", replies.join("; ")))
}
