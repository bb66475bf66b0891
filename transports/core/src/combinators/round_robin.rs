//! Distributes messages among transports.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::routes::{Policy, Routes};
use crate::{Backoff, Failure, Message, Outgoing, Receipt, Transport};

/// Distributes messages among transports by weight.
///
/// The distribution is smooth: with weights 3 and 1, every fourth message takes the second transport.
///
/// ```
/// use postrider_transport::{Email, RoundRobin, Transport};
/// # fn example(eu: impl Transport<Message = Email>, us: impl Transport<Message = Email>) {
/// let transport = RoundRobin::new(eu, 3).and(us, 1);
/// # }
/// ```
///
/// A transport is skipped if it is paused or does not support the message. When a transport fails, another one is tried, by the rules of
/// [`Failover`](crate::Failover). Otherwise the failure of one transport would pause the relay, and with it the transports that work.
///
/// A batch goes to one transport, up to its limit, and counts as that many messages. The other messages go to the next
/// transport concurrently.
///
/// # Cancel safety
/// As for [`Failover`](crate::Failover). A dropped call counts towards the share of its transport.
pub struct RoundRobin<M> {
    routes: Routes<M>,
    shares: Shares,
}

impl<M: Message> RoundRobin<M> {
    /// Starts with a transport and its weight. A transport with weight 0 is used only when no other can send.
    pub fn new(first: impl Transport<Message = M>, weight: u32) -> Self {
        Self { routes: Routes::new(), shares: Shares::default() }.and(first, weight)
    }

    /// Adds a transport with its weight.
    #[must_use]
    pub fn and(mut self, transport: impl Transport<Message = M>, weight: u32) -> Self {
        self.routes.add(transport);
        self.shares.add(weight);
        self
    }

    /// Sets how long a transport is paused: see [`Failover::pause`](crate::Failover::pause).
    #[must_use]
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.routes.set_backoff(backoff);
        self
    }
}

/// Smooth weighted round robin, the algorithm of nginx. For each message, every candidate's credit grows by its weight. The candidate
/// with the most credit is picked, and pays the sum of the weights.
#[derive(Default)]
struct Shares {
    weights: Vec<i64>,
    credits: Mutex<Vec<i64>>,
}

impl Shares {
    fn add(&mut self, weight: u32) {
        self.weights.push(i64::from(weight));
        self.credits.get_mut().unwrap_or_else(PoisonError::into_inner).push(0);
    }

    fn transfer(&self, credits: &mut [i64], candidates: &[usize], picked: usize, messages: i64) {
        for &index in candidates {
            let credit = self.weights[index].saturating_mul(messages);
            credits[index] = credits[index].saturating_add(credit);
            credits[picked] = credits[picked].saturating_sub(credit);
        }
    }
}

impl Policy for Shares {
    fn pick(&self, candidates: &[usize]) -> usize {
        let mut credits = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let weighted = candidates.iter().copied().filter(|index| self.weights[*index] > 0);
        // On a tie, the first one.
        let picked = weighted.rev().max_by_key(|index| credits[*index].saturating_add(self.weights[*index]));
        let picked = picked.or_else(|| candidates.first().copied()).unwrap_or_default();
        self.transfer(&mut credits, candidates, picked, 1);
        picked
    }

    fn accepts(&self, candidates: &[usize], picked: usize) -> bool {
        candidates.contains(&picked)
    }

    fn added(&self, candidates: &[usize], picked: usize, more: usize) {
        let mut credits = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
        self.transfer(&mut credits, candidates, picked, i64::try_from(more).unwrap_or(i64::MAX));
    }
}

#[deny(clippy::missing_trait_methods)]
impl<M: Message> Transport for RoundRobin<M> {
    type Message = M;

    fn name(&self) -> &str {
        "round-robin"
    }

    async fn send(&self, outgoing: &Outgoing<M>) -> Result<Receipt, Failure> {
        self.routes.send(&self.shares, outgoing).await
    }

    /// Succeeds if one transport supports the message.
    fn check(&self, message: &M) -> Result<(), Failure> {
        self.routes.check(message)
    }

    fn max_batch(&self) -> usize {
        self.routes.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<M>]) -> Vec<Result<Receipt, Failure>> {
        self.routes.send_batch(&self.shares, batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.routes.paused()
    }
}

impl<M> fmt::Debug for RoundRobin<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RoundRobin").field(&self.shares.weights).field(&self.routes).finish()
    }
}
