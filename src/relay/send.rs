//! Calling the transport, and deciding what follows.

use std::collections::VecDeque;
use std::future::{Future, poll_fn, ready};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use std::vec::IntoIter;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use postrider_transport::{
    Class, Classify, CodecError, Failure, Message, Outgoing, Probe, Receipt, Refusal, Scope, Transport, mask_addresses,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::Instrument;

use super::settle::Finished;
use super::shared::{Shared, random};
use crate::decide::{Circumstances, decide, decide_before_sending};
use crate::delivery::{Attempt, Lease, Next, Settlement};
use crate::observe::Event;
use crate::store::Store;

/// A lease, and when this process asked for it. The database's time is its own, so that this relay counts on from the moment of
/// the claim instead of comparing clocks.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) lease: Lease,
    pub(super) asked: Instant,
    /// When the answer came. The database's time in the lease is from a moment before this.
    pub(super) answered: Instant,
    /// Room for one message, given back when its result is written.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Claimed {
    /// What the database's clock showed at a moment of this process.
    fn at(&self, moment: Instant) -> SystemTime {
        self.lease.claimed_at + moment.saturating_duration_since(self.answered)
    }
}

/// What one task sends: some of what was claimed together, in groups no larger than the transport's batch.
pub(super) struct Share<S, T> {
    pub(super) shared: Arc<Shared<S, T>>,
    pub(super) finished: mpsc::UnboundedSender<Finished>,
    /// With the probe that the first of them is, where it is one.
    pub(super) groups: Mutex<(IntoIter<Vec<Claimed>>, Option<Probe>)>,
}

impl<S: Store, T: Transport> Share<S, T> {
    /// Sends all of them side by side, to the end of the last. Those that are over at once, as calls of a fast transport are, take turns
    /// in one place; only one that has to wait costs a place of its own.
    pub(super) async fn send(self) {
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
        while let Some((group, probe)) = self.next() {
            let call = pin!(send(&self.shared, group, probe, &self.finished));
            // Caught, so that what panics in one call takes no other along.
            let _ = AssertUnwindSafe(call).catch_unwind().await;
        }
    }

    fn next(&self) -> Option<(Vec<Claimed>, Option<Probe>)> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.0.next()?;
        Some((group, groups.1.take()))
    }
}

/// Sends a group and passes the results on.
async fn send<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    group: Vec<Claimed>,
    probe: Option<Probe>,
    finished: &mpsc::UnboundedSender<Finished>,
) {
    let mut messages = Vec::with_capacity(group.len());
    let mut desk = Desk { shared, finished, claims: group.into(), probe };
    while let Some(claimed) = desk.claims.get_mut(messages.len()) {
        match prepare(shared, claimed) {
            Prepared::Send(outgoing) => messages.push(outgoing),
            Prepared::Settle(settlement) => desk.pass_on(messages.len(), settlement),
        }
    }
    let Some(first) = desk.claims.front() else {
        return;
    };
    let began = Instant::now();
    let results = call(shared, &first.lease, &messages).await;
    let ended = Instant::now();
    for (result, message) in results.into_iter().zip(messages) {
        shared.judge(&result, began);
        let Some(claimed) = desk.claims.front_mut() else {
            return;
        };
        claimed.lease.recipients = message.into_recipients();
        let mut settlement = conclude(shared, claimed, began, ended, &result);
        if let Some(attempt) = &mut settlement.attempt {
            attempt.transport = Some(path(shared.transport.name(), &result));
        }
        desk.pass_on(0, settlement);
    }
}

/// Sees to it that a group leaves nothing behind, however its task ends: no lease that is renewed for ever, no probe that is waited
/// for in vain, nobody waiting for room who is not told.
struct Desk<'a, S: Store, T: Transport> {
    shared: &'a Shared<S, T>,
    finished: &'a mpsc::UnboundedSender<Finished>,
    /// What is not passed on yet.
    claims: VecDeque<Claimed>,
    /// Kept until the call is judged, where it is a probe.
    probe: Option<Probe>,
}

impl<S: Store, T: Transport> Desk<'_, S, T> {
    fn pass_on(&mut self, place: usize, mut settlement: Settlement) {
        let Some(Claimed { lease, permit, .. }) = self.claims.remove(place) else {
            return;
        };
        settlement.make_storable();
        let finished = Finished { settlement, template_id: lease.template_id, permit };
        if self.finished.send(finished).is_err() {
            // Nobody receives any more: the driver is to see it and end the relay. The lease runs out.
            self.shared.room_freed.notify_one();
        }
    }
}

impl<S: Store, T: Transport> Drop for Desk<'_, S, T> {
    fn drop(&mut self) {
        let left = !self.claims.is_empty();
        self.shared.let_go(self.claims.drain(..).map(|claimed| claimed.lease.key));
        // Before anybody is told to look again.
        let probed = self.probe.take().is_some();
        if left || probed {
            self.shared.room_freed.notify_one();
        }
    }
}

enum Prepared<M> {
    Send(Outgoing<M>),
    Settle(Settlement),
}

/// Makes the message of a lease. Until the call is over, the lease's recipients are with it.
fn prepare<S: Store, T: Transport>(shared: &Shared<S, T>, claimed: &mut Claimed) -> Prepared<T::Message> {
    let now = Instant::now();
    let lease = &claimed.lease;
    let unsent = |next, recipients| {
        Prepared::Settle(Settlement { key: lease.key, attempt: None, charge: false, recipients, next })
    };
    if now.saturating_duration_since(claimed.asked) >= shared.settings.lease {
        // The claim took longer than the lease: somebody else may hold the delivery by now. If not, it is given back.
        tracing::warn!(id = %lease.key.id, "the lease ran out before the message could be sent");
        return unsent(Next::Pending { after: Duration::ZERO }, Vec::new());
    }
    if let Some(why) = &lease.unreadable {
        let failure = Failure::permanent(Scope::Message, format!("the stored row cannot be read: {why}"));
        return Prepared::Settle(conclude(shared, claimed, now, now, &Err(failure)));
    }
    if let Some(end) = decide_before_sending(circumstances(shared, claimed, now)) {
        return unsent(end.next, end.recipients);
    }
    // Messages may be of a type that is not ours, and reading one must not take the relay down.
    let failure = match catch_unwind(AssertUnwindSafe(|| read(lease))) {
        Ok(Ok(message)) => {
            let lease = &mut claimed.lease;
            let recipients = mem::take(&mut lease.recipients);
            let outgoing = Outgoing::addressed(lease.key.id, lease.dated_at, message, recipients, lease.partial);
            return Prepared::Send(outgoing.with_attempt(lease.attempts + 1, lease.cycle));
        }
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::transient(Scope::Message, "reading the stored message panicked"),
    };
    Prepared::Settle(conclude(shared, claimed, now, now, &Err(failure)))
}

/// Reads the message, and looks at whom it is for.
fn read<M: Message>(lease: &Lease) -> Result<M, CodecError> {
    let message = M::decode(&lease.message)?;
    let all = lease.recipients.len();
    for (place, recipient) in (1..).zip(&lease.recipients) {
        M::check_recipient(recipient)
            .map_err(|error| CodecError::new(format!("recipient {place} of {all}: {error}")))?;
    }
    Ok(message)
}

fn circumstances<'a, S: Store, T: Transport>(
    shared: &'a Shared<S, T>,
    claimed: &'a Claimed,
    now: Instant,
) -> Circumstances<'a> {
    let (lease, policy) = (&claimed.lease, &shared.settings.retry);
    // A pass ends with the pause; what it gives back is there for the next pass at once.
    let pause =
        if shared.settings.ends_by_itself { Duration::ZERO } else { shared.breaker.remaining().unwrap_or_default() };
    Circumstances { lease, policy, now: claimed.at(now), random: random(), pause }
}

/// One call of the transport for the whole group, with one result for each message whatever happens. The lease is the first one's.
async fn call<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    lease: &Lease,
    messages: &[Outgoing<T::Message>],
) -> Vec<Result<Receipt, Failure>> {
    let span = tracing::info_span!(
        "delivery",
        id = %lease.key.id,
        template_id = lease.template_id.as_deref(),
        attempt = lease.attempts + 1,
        cycle_attempt = lease.spent + 1,
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
    let outcome = tokio::select! {
        biased;
        outcome = tokio::time::timeout(shared.settings.send_timeout, sending) => match outcome {
            Ok(Ok(results)) => Ok(results),
            Ok(Err(_)) => Err(Interrupted::Panicked),
            Err(_) => Err(Interrupted::TimedOut),
        },
        () = shared.settings.abandon.cancelled() => Err(Interrupted::Stopped),
    };
    let interrupted = |why: Interrupted| (0..messages.len()).map(|_| Err(why.into())).collect();
    match outcome {
        Ok(results) if results.len() == messages.len() => results,
        Ok(_) => interrupted(Interrupted::Miscounted),
        Err(why) => {
            span.in_scope(|| tracing::error!("{why}"));
            interrupted(why)
        }
    }
}

fn conclude<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    claimed: &Claimed,
    began: Instant,
    ended: Instant,
    result: &Result<Receipt, Failure>,
) -> Settlement {
    let lease = &claimed.lease;
    let decision = decide(result, circumstances(shared, claimed, ended));
    let number = lease.attempts + 1;
    let mut attempt = Attempt::new(number, lease.cycle, claimed.at(began), claimed.at(ended), decision.outcome);
    match result {
        Ok(receipt) => {
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
    attempt.charged = decision.charge;
    let took = ended.saturating_duration_since(began);
    shared.tell(&Event::AttemptFinished { id: lease.key.id, number, outcome: decision.outcome, result, took });
    Settlement {
        key: lease.key,
        attempt: Some(attempt),
        charge: decision.charge,
        recipients: decision.recipients,
        next: decision.next,
    }
}

/// The transport's name with what it says of its choice, joined as transports of transports join theirs.
fn path(name: &str, result: &Result<Receipt, Failure>) -> String {
    let via = match result {
        Ok(receipt) => receipt.via.as_deref(),
        Err(failure) => failure.via(),
    };
    via.map_or_else(|| name.to_owned(), |via| format!("{name}/{via}"))
}

/// What the next hop said of the recipients that it did not take, with addresses masked.
fn refusals(refused: &[Refusal]) -> Option<String> {
    let said = refused.iter().map(|refusal| format!("{:?}: {}", refusal.recipient, mask_addresses(&refusal.reply)));
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| format!("not taken for {}", said.join("; ")))
}

/// A call that ended without an answer. The message may have been accepted.
#[derive(Debug, Clone, Copy)]
enum Interrupted {
    Panicked,
    TimedOut,
    Stopped,
    Miscounted,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Panicked => "the transport panicked",
            Self::TimedOut => "the transport did not answer within the relay's time limit",
            Self::Stopped => "the relay was stopped while the message was being sent",
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
            Self::Panicked | Self::Stopped => Scope::Message,
            Self::TimedOut | Self::Miscounted => Scope::Transport,
        }
    }

    fn in_doubt(&self) -> bool {
        true
    }
}
