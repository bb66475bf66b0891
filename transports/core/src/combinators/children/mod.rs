//! Several transports, of which one carries each message: what [`Failover`](crate::Failover) and
//! [`RoundRobin`](crate::RoundRobin) have in common. They differ in the [`Order`] alone.

mod all_failed;
mod job;

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    Admission, Backoff, BoxTransport, Breaker, Change, Failure, Message, Outgoing, Probe, Receipt, Scope, Transport,
};

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

/// One call of one transport.
struct Part {
    picked: usize,
    /// The messages, by their place in the batch.
    group: Vec<usize>,
    probe: Option<Probe>,
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

    /// Those that are paused, and those within the others, each with the reason.
    pub(super) fn paused(&self) -> Vec<(String, String)> {
        let each = self.list.iter().map(|Child { label, transport, breaker }| match breaker.reason() {
            Some(reason) => vec![(label.clone(), reason)],
            None => {
                let within = transport.paused().into_iter();
                within.map(|(inner, reason)| (format!("{label}/{inner}"), reason)).collect()
            }
        });
        each.flatten().collect()
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
        while jobs.iter().any(Job::is_open) {
            let mut parts = self.divide(order, &mut jobs);
            let calls = parts.iter_mut().map(|part| self.list[part.picked].call(&jobs, &part.group, part.probe.take()));
            let answers = join_all(calls).await;
            for (part, answers) in parts.iter().zip(answers) {
                for (index, answer) in part.group.iter().zip(answers) {
                    jobs[*index].take(part.picked, &self.list[part.picked].label, answer);
                }
            }
        }
        jobs.into_iter().map(|job| job.into_result().unwrap_or_else(|| Err(unanswered()))).collect()
    }

    /// Divides what is open into calls that are made side by side, none larger than its transport takes. Where one of them is to find
    /// out whether its transport works again, the messages after it wait for that.
    fn divide(&self, order: &impl Order, jobs: &mut [Job<'_, M>]) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut open: Vec<_> = (0..jobs.len()).filter(|index| jobs[*index].is_open()).collect();
        while let Some(&first) = open.first() {
            let able = self.able(&mut jobs[first]);
            if able.is_empty() {
                let failure = self.nobody_for(&mut jobs[first]);
                jobs[first].end(Err(failure));
                open.remove(0);
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
            let mut group = Vec::with_capacity(room.min(open.len()));
            open.retain(|&index| {
                let joins = index == first || (group.len() < room && order.joins(&self.able(&mut jobs[index]), picked));
                if joins {
                    group.push(index);
                }
                !joins
            });
            order.joined(&able, picked, group.len() - 1);
            let is_probe = probe.is_some();
            parts.push(Part { picked, group, probe });
            if is_probe {
                break;
            }
        }
        parts
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
                let failure = Failure::transient(Scope::Transport, format!("paused: {reason}"));
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
    /// One call, judged as soon as it is through. One result for each message.
    async fn call(&self, jobs: &[Job<'_, M>], group: &[usize], probe: Option<Probe>) -> Vec<Result<Receipt, Failure>> {
        let began = Instant::now();
        let mut answers = match group {
            [one] => vec![self.transport.send(jobs[*one].outgoing()).await],
            many => {
                let batch: Vec<_> = many.iter().map(|index| jobs[*index].outgoing().clone()).collect();
                self.transport.send_batch(&batch).await
            }
        };
        answers.resize_with(group.len(), || Err(unanswered()));
        for answer in &answers {
            self.judge(answer, began);
        }
        // The right to probe ends with the judgement, not before.
        drop(probe);
        answers
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
    Failure::maybe_accepted("the transport did not answer for each message of a batch")
}
