//! Several transports, each with its share.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::children::{Children, Order};
use crate::{Backoff, Failure, Message, Outgoing, Receipt, Transport};

/// Divides messages among several transports by weight, evenly in time: at 3 to 1, every fourth message takes the second, and not the
/// last quarter of them.
///
/// ```
/// use postrider_transport::{Email, RoundRobin, Transport};
/// # fn example(eu: impl Transport<Message = Email>, us: impl Transport<Message = Email>) {
/// let transport = RoundRobin::new(eu, 3).and(us, 1);
/// # }
/// ```
///
/// Transports that are paused, or that cannot express a message, have no share in it. One that fails by its own condition, or says that it
/// cannot express the message, is followed by another, in the terms of [`Failover`](crate::Failover). To leave that out would
/// serve nobody: a failure of the transport's condition pauses the relay, and with it all those that work.
///
/// A batch goes to one transport, as far as that takes so many, and counts as so many messages. What is left goes to the next in turn,
/// side by side with it.
///
/// # Cancel safety
/// As [`Failover`](crate::Failover)'s. A dropped call counts towards its transport's share.
pub struct RoundRobin<M> {
    children: Children<M>,
    shares: Shares,
}

impl<M: Message> RoundRobin<M> {
    /// Begins with a transport and its weight. A weight of 0 makes it a spare, which is asked only when no other can.
    pub fn new(first: impl Transport<Message = M>, weight: u32) -> Self {
        Self { children: Children::new(), shares: Shares::default() }.and(first, weight)
    }

    /// Adds a transport with its weight.
    #[must_use]
    pub fn and(mut self, transport: impl Transport<Message = M>, weight: u32) -> Self {
        self.children.add(transport);
        self.shares.add(weight);
        self
    }

    /// How long a transport is paused, as [`Failover::pause`](crate::Failover::pause).
    #[must_use]
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.children.set_backoff(backoff);
        self
    }
}

/// Smooth weighted round robin, as nginx has it: with each message every transport earns its weight, and the one that has most
/// pays for all.
#[derive(Default)]
struct Shares {
    weights: Vec<i64>,
    earned: Mutex<Vec<i64>>,
}

impl Shares {
    fn add(&mut self, weight: u32) {
        self.weights.push(i64::from(weight));
        self.earned.get_mut().unwrap_or_else(PoisonError::into_inner).push(0);
    }

    fn pay(&self, earned: &mut [i64], able: &[usize], picked: usize, messages: i64) {
        for &index in able {
            let wage = self.weights[index].saturating_mul(messages);
            earned[index] = earned[index].saturating_add(wage);
            earned[picked] = earned[picked].saturating_sub(wage);
        }
    }
}

impl Order for Shares {
    fn pick(&self, able: &[usize]) -> usize {
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);
        let weighty = able.iter().copied().filter(|index| self.weights[*index] > 0);
        // Of equals the first.
        let picked = weighty.rev().max_by_key(|index| earned[*index].saturating_add(self.weights[*index]));
        let picked = picked.or_else(|| able.first().copied()).unwrap_or_default();
        self.pay(&mut earned, able, picked, 1);
        picked
    }

    fn joins(&self, able: &[usize], picked: usize) -> bool {
        able.contains(&picked)
    }

    fn joined(&self, able: &[usize], picked: usize, more: usize) {
        let mut earned = self.earned.lock().unwrap_or_else(PoisonError::into_inner);
        self.pay(&mut earned, able, picked, i64::try_from(more).unwrap_or(i64::MAX));
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Message> Transport for RoundRobin<M> {
    type Message = M;

    fn name(&self) -> &str {
        "round-robin"
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        self.children.send(&self.shares, outgoing).await
    }

    /// One transport that can express the message is enough.
    fn check(&self, message: &M) -> Result<(), Failure> {
        self.children.check(message)
    }

    fn max_batch(&self) -> usize {
        self.children.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        self.children.carry(&self.shares, batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.children.paused()
    }
}

impl<M> fmt::Debug for RoundRobin<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoundRobin").field(&self.shares.weights).field(&self.children).finish()
    }
}
