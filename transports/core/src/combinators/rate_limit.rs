//! No more messages than so many in a while.

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

/// A hundred years. The limiter counts nanoseconds in 64 bits, and reckons with the time since its beginning, a burst that is spent
/// and one that is asked for: three of these are as much as it can hold.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Holds messages back so that no more of them reach a transport than so many in a while, such as a provider's quota.
///
/// ```
/// use std::time::Duration;
/// use postrider_transport::{Email, RateLimit, Transport};
/// # fn example(ses: impl Transport<Message = Email>) {
/// // 14 in a second, evenly; after a rest, up to 5 at once.
/// let transport = RateLimit::new(ses, 14, Duration::from_secs(1)).burst(5);
/// # }
/// ```
///
/// The wait is part of the call, so that it costs neither an attempt nor a lease: a relay keeps the lease of what it is sending
/// alive, and takes a message back uncharged that still waits when it stops. Whoever waits is served in the order of coming. The limit is this value's own: several processes need each their share.
///
/// A relay's own time limit for a call, and the room that a message takes in it, include the wait. Where messages wait for long, let it
/// send fewer at once.
///
/// A batch counts each of its messages, and goes out once there is room for the last of them.
///
/// Needs a tokio runtime with time.
///
/// # Cancel safety
/// A dropped wait has taken nothing for a single message. One for a batch larger than the burst may have taken a part: fewer messages
/// than allowed go out then, never more.
pub struct RateLimit<T> {
    inner: T,
    quota: Quota,
    limiter: Limiter,
    /// Held by the one that waits, so that those who come later do not overtake it.
    queue: Mutex<()>,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

impl<T: Transport> RateLimit<T> {
    /// At most `messages` in `period`, spread evenly: one after the other, each a `messages`th of the period after the last.
    /// 0 counts as 1. No distance is shorter than a nanosecond, or longer than a hundred years.
    pub fn new(inner: T, messages: u32, period: Duration) -> Self {
        let distance = (period / messages.max(1)).clamp(Duration::from_nanos(1), LONGEST);
        let quota = quota(distance, 1);
        Self { inner, quota, limiter: limiter(quota), queue: Mutex::new(()) }
    }

    /// How many may go out at once after a rest that was long enough for them. Default: 1. 0 counts as 1, and more than would take a
    /// rest of a hundred years as what that rest allows.
    #[must_use]
    pub fn burst(mut self, messages: u32) -> Self {
        self.quota = quota(self.quota.replenish_interval(), messages);
        self.limiter = limiter(self.quota);
        self
    }

    /// Waits until so many messages may go out.
    async fn wait_for(&self, messages: usize) {
        let _turn = self.queue.lock().await;
        let mut left = u32::try_from(messages).unwrap_or(u32::MAX);
        while let Some(part) = NonZeroU32::new(left.min(self.quota.burst_size().get())) {
            match self.limiter.check_n(part) {
                Ok(Ok(())) => left -= part.get(),
                Ok(Err(not_yet)) => {
                    let wait = not_yet.wait_time_from(self.limiter.clock().now());
                    tokio::time::sleep(wait).await;
                }
                // More than the burst, which a part is not.
                Err(_) => return,
            }
        }
    }
}

/// A quota that the limiter can count. The distance is neither zero nor longer than the longest.
fn quota(distance: Duration, burst: u32) -> Quota {
    let most = u32::try_from(LONGEST.as_nanos() / distance.as_nanos().max(1)).unwrap_or(u32::MAX);
    // The other branch, for a distance of zero, is the strictest of all.
    let quota = Quota::with_period(distance).unwrap_or(Quota::per_hour(NonZeroU32::MIN));
    quota.allow_burst(NonZeroU32::new(burst.min(most)).unwrap_or(NonZeroU32::MIN))
}

fn limiter(quota: Quota) -> Limiter {
    RateLimiter::direct_with_clock(quota, TokioClock { origin: Instant::now() })
}

/// The clock that the waits go by as well.
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
        let (burst, distance) = (self.quota.burst_size(), self.quota.replenish_interval());
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("burst", &burst)
            .field("distance", &distance)
            .finish()
    }
}
