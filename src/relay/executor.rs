//! Calls the transport and decides what follows.

use std::collections::VecDeque;
use std::fmt;
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
    CallTime, Class, Classify, CodecError, Failure, Message, Outgoing, Receipt, Refusal, Scope, Transport,
    mask_addresses,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::Instrument;

use super::completer::Completion;
use super::decide::{Circumstances, Judged, decide, decide_before_sending, honest};
use super::evidence::{Admission, Before, Call, Probing, Verdict};
use super::shared::{SenderProbe, Shared};
use crate::delivery::Attempt;
use crate::observe::Event;
use crate::state::Outcome;
use crate::store::{Lease, Next, RecipientOutcome, Settlement, Store};

/// A claimed delivery, and when this process claimed it. The relay adds its own elapsed time to the database's time of the claim, and never
/// compares the two clocks.
#[derive(Debug)]
pub(super) struct ClaimedDelivery {
    pub(super) lease: Lease,
    pub(super) asked: Instant,
    /// When the answer came. The database's time in the lease is earlier.
    pub(super) answered: Instant,
    /// The permit of one message, released when its result is written.
    pub(super) permit: OwnedSemaphorePermit,
}

impl ClaimedDelivery {
    /// The time of the database's clock at a moment of this process.
    fn at(&self, moment: Instant) -> SystemTime {
        self.lease.claimed_at + moment.saturating_duration_since(self.answered)
    }

    /// The last attempt of this cycle, by this process's clock.
    pub(super) fn before(&self) -> Option<Before> {
        let last =
            self.lease.last.as_ref().filter(|last| last.cycle == self.lease.cycle && last.outcome != Outcome::Lost)?;
        let ago = self.lease.claimed_at.duration_since(last.finished_at).unwrap_or_default();
        let ended = self.answered.checked_sub(ago).map(Instant::into_std);
        Some(Before { ended, scope: last.scope })
    }
}

/// A task that sends a part of one claim, in groups no larger than the transport's batch.
pub(super) struct SendTask<S, T> {
    pub(super) shared: Arc<Shared<S, T>>,
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    pub(super) groups: Mutex<IntoIter<Vec<ClaimedDelivery>>>,
}

impl<S: Store, T: Transport> SendTask<S, T> {
    /// Sends all groups concurrently, and returns when the last is done. Calls that are ready at once reuse one allocation; only a call that
    /// has to wait gets its own.
    pub(super) async fn run(self) {
        let waiting = FuturesUnordered::new();
        loop {
            let mut line = Box::pin(self.send_in_turn());
            if poll_fn(|context| Poll::Ready(line.as_mut().poll(context).is_ready())).await {
                break;
            }
            waiting.push(line);
        }
        waiting.for_each(|()| ready(())).await;
    }

    async fn send_in_turn(&self) {
        while let Some(group) = self.next() {
            let call = pin!(send(&self.shared, group, &self.completions));
            // A panic in one call must not end the others.
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
    // Once they are judged, and before that where a call was dropped.
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
            let result = honest(result, message.recipients());
            let verdict = judge(shared, claimed, &result, &message, time, Probing::No);
            claimed.lease.recipients = message.into_recipients();
            settle_call(shared, claimed, time, &result, Judged::from(&verdict), verdict.note)
        }
        CallResult::Interrupted(why) => {
            claimed.lease.recipients = message.into_recipients();
            settle_call(shared, claimed, time, &Err(why.into()), Judged::own(), None)
        }
        CallResult::NotSent => give_back(&claimed.lease, Duration::ZERO),
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
        before: claimed.before(),
        probe,
    };
    shared.judge(result, call)
}

/// Cleans up after a group, however its task ends: no lease is renewed for ever, and whoever waits for a permit is notified.
pub(super) struct InFlightGuard<'a, S: Store, T: Transport> {
    pub(super) shared: &'a Shared<S, T>,
    pub(super) completions: &'a mpsc::UnboundedSender<Completion>,
    /// What is not passed on yet.
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
            // The completer has ended. The producer sees that too and ends the relay, and the lease expires.
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
    /// The sender's probe, if this message is one.
    Send(Outgoing<T::Message>, Option<SenderProbe<S, T>>),
    Settle(Settlement),
}

/// Makes the outgoing message of a lease. It holds the lease's recipients until the call is over.
pub(super) fn prepare<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    claimed: &mut ClaimedDelivery,
) -> Prepared<S, T> {
    let now = Instant::now();
    let lease = &claimed.lease;
    if now.saturating_duration_since(claimed.asked) >= shared.settings.lease {
        // The claim took longer than the lease, and another relay may hold the delivery now. If none does, it is released.
        tracing::warn!(id = %lease.key.id, "the lease ran out before the message could be sent");
        return Prepared::Settle(give_back(lease, Duration::ZERO));
    }
    if let Some(why) = &lease.malformed {
        let failure = Failure::permanent(Scope::Message, format!("the stored row cannot be read: {why}"));
        return Prepared::Settle(settle(shared, claimed, (now, now), &Err(failure), Judged::own(), None));
    }
    if let Some(end) = decide_before_sending(circumstances(shared, claimed, now)) {
        return Prepared::Settle(uncalled(lease, end.next, end.recipients));
    }
    // The message's type may be the user's, and a panic in its decoder must not end the relay.
    let failure = match catch_unwind(AssertUnwindSafe(|| read::<T::Message>(lease))) {
        Ok(Ok(message)) => match shared.admit_sender(message.sender(), lease.key.id, now) {
            Admission::Wait(wait) => return Prepared::Settle(give_back(lease, wait)),
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
                return Prepared::Send(outgoing.with_attempt(lease.attempts + 1, lease.cycle), probe);
            }
        },
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::transient(Scope::Message, "reading the stored message panicked"),
    };
    Prepared::Settle(settle(shared, claimed, (now, now), &Err(failure), Judged::own(), None))
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

/// A settlement without an attempt and without a charge, since there was no call.
pub(super) fn give_back(lease: &Lease, after: Duration) -> Settlement {
    uncalled(lease, Next::Pending { after }, Vec::new())
}

fn uncalled(lease: &Lease, next: Next, recipients: Vec<RecipientOutcome>) -> Settlement {
    Settlement { key: lease.key, attempt: None, charged_attempts: lease.charged_attempts, recipients, next }
}

fn circumstances<'a, S: Store, T: Transport>(
    shared: &'a Shared<S, T>,
    claimed: &'a ClaimedDelivery,
    now: Instant,
) -> Circumstances<'a> {
    let (lease, policy) = (&claimed.lease, &shared.settings.retry);
    Circumstances { lease, policy, now: claimed.at(now), random: shared.random() }
}

/// The result of one message of a call.
#[derive(Debug)]
pub(super) enum CallResult {
    /// The transport answered.
    Answered(Result<Receipt, Failure>),
    /// The relay ended the call, which says nothing about the transport.
    Interrupted(Interrupted),
    /// The relay ended the call while the message only waited in it. The message was certainly not sent.
    NotSent,
}

/// Calls the transport once for the whole group. Returns one result for each message, whatever happens. `lease` is the first message's.
pub(super) async fn call<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    lease: &Lease,
    messages: &[Outgoing<T::Message>],
) -> Vec<CallResult> {
    let span = tracing::info_span!(
        "delivery",
        id = %lease.key.id,
        template_id = lease.template_id.as_deref(),
        attempt = lease.attempts + 1,
        cycle_attempt = lease.charged_attempts + 1,
        batch = messages.len(),
    );
    let transport = &shared.transport;
    let sending = async {
        match messages {
            [one] => vec![transport.send(one).await],
            many => transport.send_batch(many).await,
        }
    };
    // It stays where it is: those around it would copy it, each in turn.
    let sending = pin!(sending.instrument(span.clone()));
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let mut sending = pin!(tokio::time::timeout(shared.settings.send_timeout, sending));
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut sending => break match outcome {
                Ok(Ok(results)) => Ok(results),
                Ok(Err(_)) => Err(Interrupted::Panicked),
                Err(_) => Err(Interrupted::TimedOut),
            },
            () = shared.settings.abandon.cancelled() => break Err(Interrupted::Stopped),
            () = shared.in_flight.some_lost() => {
                // Another relay sends what it took over. A request that has begun must finish, since it cannot be undone.
                let lost = messages.iter().any(|message| shared.in_flight.is_lost(message.id()));
                if lost && messages.iter().all(Outgoing::is_waiting) {
                    break Err(Interrupted::LeaseLost);
                }
            }
        }
    };
    match outcome {
        Ok(results) if results.len() == messages.len() => results.into_iter().map(CallResult::Answered).collect(),
        Ok(_) => messages.iter().map(|_| CallResult::Answered(Err(Interrupted::Miscounted.into()))).collect(),
        Err(why) => {
            span.in_scope(|| tracing::error!("{why}"));
            // Read the marks while the call still exists. A call that panicked leaves its marks.
            let culprit = messages.iter().any(|message| !message.is_waiting());
            let each = messages.iter().map(|message| match why {
                // Nobody else can have been the reason.
                Interrupted::Panicked if !culprit => CallResult::Answered(Err(why.into())),
                _ if message.is_waiting() => CallResult::NotSent,
                Interrupted::Panicked => CallResult::Answered(Err(why.into())),
                Interrupted::TimedOut => CallResult::Answered(Err(why.into())),
                _ => CallResult::Interrupted(why),
            });
            each.collect()
        }
    }
}

/// The settlement after a call.
pub(super) fn settle_call<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &ClaimedDelivery,
    time: (Instant, Instant),
    result: &Result<Receipt, Failure>,
    judged: Judged,
    note: Option<&'static str>,
) -> Settlement {
    let mut settlement = settle(shared, claimed, time, result, judged, note);
    if let Some(attempt) = &mut settlement.attempt {
        attempt.transport = Some(path(shared.transport.name(), result));
    }
    settlement
}

/// The settlement where no transport was called, because the stored message could not be decoded.
fn settle<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &ClaimedDelivery,
    (began, ended): (Instant, Instant),
    result: &Result<Receipt, Failure>,
    judged: Judged,
    note: Option<&'static str>,
) -> Settlement {
    let lease = &claimed.lease;
    let decision = decide(result, judged, circumstances(shared, claimed, ended));
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
    shared.tell(&Event::AttemptFinished { id: lease.key.id, number, outcome: decision.outcome, result, took });
    Settlement {
        key: lease.key,
        attempt: Some(attempt),
        charged_attempts: decision.charged_attempts,
        recipients: decision.recipients,
        next: decision.next,
    }
}

/// The transport's name, followed by the transport that it chose, as in `failover/ses`.
fn path(name: &str, result: &Result<Receipt, Failure>) -> String {
    let via = match result {
        Ok(receipt) => receipt.via.as_deref(),
        Err(failure) => failure.via(),
    };
    via.map_or_else(|| name.to_owned(), |via| format!("{name}/{via}"))
}

/// The next hop's replies for refused recipients, with masked addresses.
fn refusals(refused: &[Refusal]) -> Option<String> {
    let said = refused.iter().map(|refusal| format!("{:?}: {}", refusal.recipient, mask_addresses(&refusal.reply)));
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| format!("not taken for {}", said.join("; ")))
}

/// A call that ended without an answer. The message may have been accepted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Interrupted {
    Panicked,
    TimedOut,
    Stopped,
    LeaseLost,
    Miscounted,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panicked => "the transport panicked",
            Self::TimedOut => "the transport did not answer within the relay's time limit",
            Self::Stopped => "the relay was stopped while the message was being sent",
            Self::LeaseLost => "the lease was lost while the message waited to be sent",
            Self::Miscounted => "the transport did not answer for each message of a batch",
        })
    }
}

impl std::error::Error for Interrupted {}

impl Classify for Interrupted {
    fn class(&self) -> Class {
        Class::Transient
    }

    /// A message that crashes the transport says nothing about others. Whoever does not answer may answer nobody.
    fn scope(&self) -> Scope {
        match self {
            Self::Panicked | Self::Stopped | Self::LeaseLost => Scope::Message,
            Self::TimedOut | Self::Miscounted => Scope::Transport,
        }
    }

    fn in_doubt(&self) -> bool {
        true
    }
}
