//! Several transports, one of which carries each message.
//!
//! [`Failover`](crate::Failover) and [`RoundRobin`](crate::RoundRobin) share this code. They differ in their [`Policy`].

mod all_failed;
mod attempts;

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    Admission, Backoff, BoxTransport, Breaker, Change, Failure, Message, Outgoing, Probe, Receipt, Scope, Transport,
};

pub use all_failed::AllFailed;
use attempts::Attempts;

/// Picks a transport for each message.
///
/// Candidates are the indices of the transports that can carry a message now, in ascending order. There is at least one.
pub(super) trait Policy: Send + Sync {
    /// Picks one of the candidates for a message.
    fn pick(&self, candidates: &[usize]) -> usize;

    /// Whether another message with these candidates may join a call of `picked`.
    fn accepts(&self, candidates: &[usize], picked: usize) -> bool;

    /// Counts `more` messages that joined a call of `picked`.
    fn added(&self, candidates: &[usize], picked: usize, more: usize);
}

/// The transports, each with a breaker.
pub(super) struct Routes<M> {
    list: Vec<Route<M>>,
    backoff: Backoff,
}

struct Route<M> {
    /// The unique name among the routes.
    label: String,
    transport: BoxTransport<M>,
    breaker: Breaker,
}

/// One call of one transport.
struct Call {
    /// The index of the route.
    route: usize,
    /// The indices of the messages in the batch.
    messages: Vec<usize>,
    probe: Option<Probe>,
}

impl<M: Message> Routes<M> {
    pub(super) fn new() -> Self {
        // The default of the relay.
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        Self { list: Vec::new(), backoff }
    }

    /// Adds a transport. Appends a number to its name if the name is taken.
    pub(super) fn add(&mut self, transport: impl Transport<Message = M>) {
        let name = transport.name();
        let taken = |label: &str| self.list.iter().any(|route| route.label == label);
        let mut label = name.to_owned();
        let mut number = 1;
        while taken(&label) {
            number += 1;
            label = format!("{name}#{number}");
        }
        self.list.push(Route { label, transport: BoxTransport::new(transport), breaker: Breaker::new(self.backoff) });
    }

    /// Sets the backoff of all transports, present and future.
    pub(super) fn set_backoff(&mut self, backoff: Backoff) {
        self.backoff = backoff;
        for route in &mut self.list {
            route.breaker = Breaker::new(backoff);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The largest limit of the transports. Batches are split for the others.
    pub(super) fn max_batch(&self) -> usize {
        self.list.iter().map(|route| route.transport.max_batch()).max().unwrap_or(1).max(1)
    }

    /// The paused transports, nested ones included, each with the reason.
    pub(super) fn paused(&self) -> Vec<(String, String)> {
        let each = self.list.iter().map(|Route { label, transport, breaker }| match breaker.reason() {
            Some(reason) => vec![(label.clone(), reason)],
            None => {
                let nested = transport.paused().into_iter();
                nested.map(|(inner, reason)| (format!("{label}/{inner}"), reason)).collect()
            }
        });
        each.flatten().collect()
    }

    /// Succeeds if one transport supports the message.
    pub(super) fn check(&self, message: &M) -> Result<(), Failure> {
        let mut errors = Vec::new();
        for route in &self.list {
            match route.transport.check(message) {
                Ok(()) => return Ok(()),
                Err(failure) => errors.push((route.label.clone(), failure)),
            }
        }
        Err(AllFailed::unsupported(errors))
    }

    pub(super) async fn send(&self, policy: &impl Policy, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        let mut results = self.send_batch(policy, std::slice::from_ref(outgoing)).await;
        results.pop().unwrap_or_else(|| Err(missing_result()))
    }

    /// Sends each message through one of the transports. Returns one result per message, in the same order.
    pub(super) async fn send_batch(
        &self,
        policy: &impl Policy,
        batch: &[Outgoing<M>],
    ) -> Vec<Result<Receipt, Failure>> {
        let mut all_attempts: Vec<_> = batch.iter().map(|outgoing| Attempts::new(outgoing, self.len())).collect();
        while all_attempts.iter().any(Attempts::is_open) {
            let mut calls = self.plan_calls(policy, &mut all_attempts);
            let running = calls
                .iter_mut()
                .map(|call| self.list[call.route].call(&all_attempts, &call.messages, call.probe.take()));
            let results = join_all(running).await;
            for (call, results) in calls.iter().zip(results) {
                for (index, result) in call.messages.iter().zip(results) {
                    all_attempts[*index].record(call.route, &self.list[call.route].label, result);
                }
            }
        }
        all_attempts
            .into_iter()
            .map(|attempts| attempts.into_result().unwrap_or_else(|| Err(missing_result())))
            .collect()
    }

    /// Splits the open messages into calls that run concurrently, within the transports' limits. A probe is the last call: the messages
    /// after it wait for its result.
    fn plan_calls(&self, policy: &impl Policy, all_attempts: &mut [Attempts<'_, M>]) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut open: Vec<_> = (0..all_attempts.len()).filter(|index| all_attempts[*index].is_open()).collect();
        while let Some(&first) = open.first() {
            let candidates = self.candidates(&mut all_attempts[first]);
            if candidates.is_empty() {
                let failure = self.no_candidate_failure(&mut all_attempts[first]);
                all_attempts[first].end(Err(failure));
                open.remove(0);
                continue;
            }
            let picked = policy.pick(&candidates);
            let route = &self.list[picked];
            let (limit, probe) = match route.breaker.admit() {
                Admission::All => (route.transport.max_batch().max(1), None),
                Admission::Probe(probe) => (1, Some(probe)),
                // A concurrent call paused it, so it is no longer a candidate.
                Admission::NotBefore(_) | Admission::Probing => continue,
            };
            let mut messages = Vec::with_capacity(limit.min(open.len()));
            open.retain(|&index| {
                let joins = index == first
                    || (messages.len() < limit && policy.accepts(&self.candidates(&mut all_attempts[index]), picked));
                if joins {
                    messages.push(index);
                }
                !joins
            });
            policy.added(&candidates, picked, messages.len() - 1);
            let is_probe = probe.is_some();
            calls.push(Call { route: picked, messages, probe });
            if is_probe {
                break;
            }
        }
        calls
    }

    /// The transports that are not paused, support the message, and have not failed with it.
    fn candidates(&self, attempts: &mut Attempts<'_, M>) -> Vec<usize> {
        let mut candidates = Vec::with_capacity(self.len());
        for (index, route) in self.list.iter().enumerate() {
            if route.breaker.would_admit() && self.can_use(attempts, index) {
                candidates.push(index);
            }
        }
        candidates
    }

    fn can_use(&self, attempts: &mut Attempts<'_, M>, index: usize) -> bool {
        let route = &self.list[index];
        attempts.can_use(index, &route.label, |message| route.transport.check(message))
    }

    fn no_candidate_failure(&self, attempts: &mut Attempts<'_, M>) -> Failure {
        let mut paused = Vec::new();
        for (index, route) in self.list.iter().enumerate() {
            if self.can_use(attempts, index) {
                let reason = route.breaker.reason().unwrap_or_else(|| "a probe is running".to_owned());
                let failure = Failure::transient(Scope::Transport, format!("paused: {reason}"));
                paused.push((route.label.clone(), failure));
            }
        }
        let waits: Option<Vec<_>> = self.list.iter().map(|route| route.breaker.remaining()).collect();
        // No wait if a transport works for other messages. No wait either while a probe runs or is due: its end is unknown.
        let wait = waits.and_then(|waits| waits.into_iter().min()).filter(|wait| !wait.is_zero());
        attempts.no_candidate(paused, wait)
    }
}

impl<M: Message> Route<M> {
    /// Calls the transport and records the results in the breaker. Returns one result per message.
    async fn call(
        &self,
        all_attempts: &[Attempts<'_, M>],
        messages: &[usize],
        probe: Option<Probe>,
    ) -> Vec<Result<Receipt, Failure>> {
        let began = Instant::now();
        let mut results = match messages {
            [one] => vec![self.transport.send(all_attempts[*one].outgoing()).await],
            many => {
                let batch: Vec<_> = many.iter().map(|index| all_attempts[*index].outgoing().clone()).collect();
                self.transport.send_batch(&batch).await
            }
        };
        results.resize_with(messages.len(), || Err(missing_result()));
        for result in &results {
            self.record(result, began);
        }
        // Not before the results are recorded.
        drop(probe);
        results
    }

    fn record(&self, result: &Result<Receipt, Failure>, began: Instant) {
        let transport = self.label.as_str();
        match self.breaker.record(result, began) {
            Change::None => {}
            Change::Paused(pause) => {
                let reason = self.breaker.reason().unwrap_or_default();
                tracing::warn!(transport, reason, ?pause, "one of several transports cannot send; pausing it");
            }
            Change::Resumed => tracing::info!(transport, "one of several transports works again"),
        }
    }
}

impl<M> fmt::Debug for Routes<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.list.iter().map(|route| (&route.label, &route.breaker))).finish()
    }
}

/// A transport returned fewer results than it got messages.
fn missing_result() -> Failure {
    Failure::maybe_accepted("the transport did not answer for each message of a batch")
}
