//! A limit on the rate of messages.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::{Failure, Outgoing, Receipt, Transport};

/// A hundred years. The limiter adds up to three of these (its age, a spent burst and a requested one) as nanoseconds in 64 bits.
const MAX_INTERVAL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Limits the rate of messages to a transport, for example to a provider's quota.
///
/// ```
/// use std::time::Duration;
/// use postrider_transport::{Email, RateLimit, Transport};
/// # fn example(ses: impl Transport<Message = Email>) {
/// // 14 messages per second, evenly spaced; after a pause, up to 5 at once.
/// let transport = RateLimit::new(ses, 14, Duration::from_secs(1)).burst(5);
/// # }
/// ```
///
/// A call waits for its turn, first come, first served. The relay renews the message's lease meanwhile. If the relay stops, a message
/// that still waits returns to the queue, and the attempt does not count.
///
/// Each `RateLimit` counts its own messages. Give each of several processes a share of the quota.
///
/// A waiting message holds a permit of the relay, and the wait counts towards the relay's time limit for a call. If messages wait for
/// long, lower the relay's concurrency.
///
/// Each message of a batch counts. A batch is sent when the limit allows its last message.
///
/// Needs a tokio runtime with time.
///
/// # Cancel safety
/// A dropped wait for a single message uses nothing up. A dropped wait for a batch larger than the burst may use up a part of the
/// quota: then fewer messages than allowed are sent, never more.
pub struct RateLimit<T> {
    inner: T,
    quota: Quota,
    limiter: Limiter,
    /// Held by the call that waits, so that later calls do not overtake it.
    queue: Mutex<()>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

impl<T: Transport> RateLimit<T> {
    /// Allows `messages` per `period`, evenly spaced.
    ///
    /// 0 messages count as 1. The interval between two messages is at least a nanosecond and at most a hundred years.
    pub fn new(inner: T, messages: u32, period: Duration) -> Self {
        let interval = (period / messages.max(1)).clamp(Duration::from_nanos(1), MAX_INTERVAL);
        let quota = quota(interval, 1);
        Self { inner, quota, limiter: limiter(quota), queue: Mutex::new(()) }
    }

    /// Sets how many messages may be sent at once after a pause. Default: 1.
    ///
    /// 0 counts as 1. The largest burst is what accumulates in a hundred years.
    #[must_use]
    pub fn burst(mut self, messages: u32) -> Self {
        self.quota = quota(self.quota.replenish_interval(), messages);
        self.limiter = limiter(self.quota);
        self
    }

    /// Waits until the limit allows this many messages.
    async fn wait_for(&self, messages: usize) {
        let _guard = self.queue.lock().await;
        let mut left = u32::try_from(messages).unwrap_or(u32::MAX);
        while let Some(part) = NonZeroU32::new(left.min(self.quota.burst_size().get())) {
            match self.limiter.check_n(part) {
                Ok(Ok(())) => left -= part.get(),
                Ok(Err(not_yet)) => {
                    let wait = not_yet.wait_time_from(self.limiter.clock().now());
                    tokio::time::sleep(wait).await;
                }
                // Larger than the burst; `part` never is.
                Err(_) => return,
            }
        }
    }
}

/// The quota, with a burst that the limiter can count. The interval is above zero and at most [`MAX_INTERVAL`].
fn quota(interval: Duration, burst: u32) -> Quota {
    let max_burst = u32::try_from(MAX_INTERVAL.as_nanos() / interval.as_nanos().max(1)).unwrap_or(u32::MAX);
    // The default is for an interval of zero, and is the strictest quota.
    let quota = Quota::with_period(interval).unwrap_or(Quota::per_hour(NonZeroU32::MIN));
    quota.allow_burst(NonZeroU32::new(burst.min(max_burst)).unwrap_or(NonZeroU32::MIN))
}

fn limiter(quota: Quota) -> Limiter {
    RateLimiter::direct_with_clock(quota, TokioClock { origin: Instant::now() })
}

/// Tokio's clock, which the waits use too.
#[derive(Debug, Clone)]
struct TokioClock {
    origin: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.origin.elapsed().into()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> Transport for RateLimit<T> {
    type Message = T::Message;

    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn send(&self, outgoing: &Outgoing<T::Message>) -> Result<Receipt, Failure> {
        let waiting = outgoing.waiting();
        self.wait_for(1).await;
        drop(waiting);
        self.inner.send(outgoing).await
    }

    fn check(&self, message: &T::Message) -> Result<(), Failure> {
        self.inner.check(message)
    }

    fn max_batch(&self) -> usize {
        self.inner.max_batch()
    }

    async fn send_batch(&self, batch: &[Outgoing<T::Message>]) -> Vec<Result<Receipt, Failure>> {
        let waiting: Vec<_> = batch.iter().map(Outgoing::waiting).collect();
        self.wait_for(batch.len()).await;
        drop(waiting);
        self.inner.send_batch(batch).await
    }

    fn paused(&self) -> Vec<(String, String)> {
        self.inner.paused()
    }
}

impl<T: fmt::Debug> fmt::Debug for RateLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (burst, interval) = (self.quota.burst_size(), self.quota.replenish_interval());
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("burst", &burst)
            .field("interval", &interval)
            .finish()
    }
}
