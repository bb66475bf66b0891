//! Several transports, of which one carries each message: what [`Failover`](crate::Failover) and
//! [`RoundRobin`](crate::RoundRobin) have in common. They differ in the [`Order`] alone.

mod all_failed;
mod job;

use std::fmt;
use std::time::{Duration, Instant};

use crate::{Admission, Backoff, BoxTransport, Breaker, Change, Failure, Message, Outgoing, Receipt, Transport};

pub use all_failed::AllFailed;
use job::Job;

/// Which of the transports that could carry a message now is asked.
pub(super) trait Order: Send + Sync {
    /// One of `able`, which is not empty and ascends, for a message.
    fn pick(&self, able: &[usize]) -> usize;

    /// Whether a message that these could carry may go along with one for which `picked` was picked.
    fn joins(&self, able: &[usize], picked: usize) -> bool;

    /// So many more messages went along.
    fn joined(&self, able: &[usize], picked: usize, more: usize);
}

/// The transports, each with its own pause.
pub(super) struct Children<M> {
    list: Vec<Child<M>>,
    backoff: Backoff,
}

struct Child<M> {
    label: String,
    transport: BoxTransport<M>,
    breaker: Breaker,
}

impl<M: Message> Children<M> {
    pub(super) fn new() -> Self {
        // As the relay's own.
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        Self { list: Vec::new(), backoff }
    }

    /// Adds a transport. Where its name is taken, it is told apart by a number.
    pub(super) fn add(&mut self, transport: impl Transport<Message = M>) {
        let name = transport.name();
        let taken = |label: &str| self.list.iter().any(|child| child.label == label);
        let mut label = name.to_owned();
        let mut number = 1;
        while taken(&label) {
            number += 1;
            label = format!("{name}#{number}");
        }
        self.list.push(Child { label, transport: BoxTransport::new(transport), breaker: Breaker::new(self.backoff) });
    }

    /// Takes another backoff, for those that are here and those that come.
    pub(super) fn set_backoff(&mut self, backoff: Backoff) {
        self.backoff = backoff;
        for child in &mut self.list {
            child.breaker = Breaker::new(backoff);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// As large as any of them takes: for those that take less, a batch is divided.
    pub(super) fn max_batch(&self) -> usize {
        self.list.iter().map(|child| child.transport.max_batch()).max().unwrap_or(1).max(1)
    }

    /// One that can express the message is enough.
    pub(super) fn check(&self, message: &M) -> Result<(), Failure> {
        let mut said = Vec::new();
        for child in &self.list {
            match child.transport.check(message) {
                Ok(()) => return Ok(()),
                Err(failure) => said.push((child.label.clone(), failure)),
            }
        }
        Err(AllFailed::never(said))
    }

    /// Finds a transport for one message.
    pub(super) async fn send(&self, order: &impl Order, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        let mut results = self.carry(order, std::slice::from_ref(outgoing)).await;
        results.pop().unwrap_or_else(|| Err(unanswered()))
    }

    /// Finds a transport for each message. One result for each, in their order.
    pub(super) async fn carry(&self, order: &impl Order, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        let mut jobs: Vec<_> = batch.iter().map(|outgoing| Job::new(outgoing, self.len())).collect();
        while let Some(first) = jobs.iter().position(Job::is_open) {
            let able = self.able(&mut jobs[first]);
            if able.is_empty() {
                let failure = self.nobody_for(&mut jobs[first]);
                jobs[first].end(Err(failure));
                continue;
            }
            let picked = order.pick(&able);
            let child = &self.list[picked];
            let (room, probe) = match child.breaker.admit() {
                Admission::All => (child.transport.max_batch().max(1), None),
                Admission::Probe(probe) => (1, Some(probe)),
                // Another call was quicker, and it is no longer able.
                Admission::NotBefore(_) | Admission::Probing => continue,
            };
            let mut group = vec![first];
            for (index, job) in jobs.iter_mut().enumerate().skip(first + 1).filter(|(_, job)| job.is_open()) {
                if group.len() == room {
                    break;
                }
                if order.joins(&self.able(job), picked) {
                    group.push(index);
                }
            }
            order.joined(&able, picked, group.len() - 1);
            let began = Instant::now();
            let mut answers = child.call(&jobs, &group).await.into_iter();
            for index in group {
                let answer = answers.next().unwrap_or_else(|| Err(unanswered()));
                child.judge(&answer, began);
                jobs[index].take(picked, &child.label, answer);
            }
            // The right to probe ends with the judgement, not before.
            drop(probe);
        }
        jobs.into_iter().map(|job| job.into_result().unwrap_or_else(|| Err(unanswered()))).collect()
    }

    /// Which could carry the message now: they have not failed at it, are not paused, and can express it.
    fn able(&self, job: &mut Job<'_, M>) -> Vec<usize> {
        let mut able = Vec::with_capacity(self.len());
        for (index, child) in self.list.iter().enumerate() {
            if child.breaker.would_admit() && self.can_express(job, index) {
                able.push(index);
            }
        }
        able
    }

    /// Whether a transport that has not failed at the message yet can express it.
    fn can_express(&self, job: &mut Job<'_, M>, index: usize) -> bool {
        let child = &self.list[index];
        job.can_be_expressed_by(index, &child.label, |message| child.transport.check(message))
    }

    /// What it means that none is able to carry the message now.
    fn nobody_for(&self, job: &mut Job<'_, M>) -> Failure {
        let mut paused = Vec::new();
        for (index, child) in self.list.iter().enumerate() {
            if self.can_express(job, index) {
                let reason = child.breaker.reason().unwrap_or_else(|| "it is being tried".to_owned());
                let failure = Failure::transient(format!("paused: {reason}")).with_blame(crate::Blame::Transport);
                paused.push((child.label.clone(), failure));
            }
        }
        let waits: Option<Vec<_>> = self.list.iter().map(|child| child.breaker.remaining()).collect();
        // Where one is up, and merely not for this message, others need not wait. Where one may be tried at any moment, nobody
        // knows how long it takes.
        let wait = waits.and_then(|waits| waits.into_iter().min()).filter(|wait| !wait.is_zero());
        job.nobody(paused, wait)
    }
}

impl<M: Message> Child<M> {
    async fn call(&self, jobs: &[Job<'_, M>], group: &[usize]) -> Vec<Result<Receipt, Failure>> {
        match group {
            [one] => vec![self.transport.send(jobs[*one].outgoing()).await],
            many => {
                let batch: Vec<_> = many.iter().map(|index| jobs[*index].outgoing().clone()).collect();
                self.transport.send_batch(&batch).await
            }
        }
    }

    fn judge(&self, result: &Result<Receipt, Failure>, began: Instant) {
        let transport = self.label.as_str();
        match self.breaker.judge(result, began) {
            Change::None => {}
            Change::Paused(pause) => {
                let reason = self.breaker.reason().unwrap_or_default();
                tracing::warn!(transport, reason, ?pause, "one of several transports cannot send; pausing it");
            }
            Change::Resumed => tracing::info!(transport, "one of several transports works again"),
        }
    }
}

impl<M> fmt::Debug for Children<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.list.iter().map(|child| (&child.label, &child.breaker))).finish()
    }
}

/// A transport gave fewer results than it was given messages.
fn unanswered() -> Failure {
    Failure::transient("the transport did not answer for each message of a batch").with_doubt()
}
