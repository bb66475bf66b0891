//! The worker: claim, send, decide, settle.

mod capacity;
mod chance;
mod claimer;
mod completer;
mod decide;
mod evidence;
mod executor;
mod heartbeat;
mod in_flight;
mod outage;
mod pass;
mod probe;
mod producer;
mod run;
mod shared;
mod store_call;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{Backoff, Transport};
use tokio_util::sync::CancellationToken;

pub use pass::{PausedSender, PausedTransport, RunSummary};

use crate::observe::{Event, Observer};
use crate::retry::RetryPolicy;
use crate::store::{Store, StoreError};
use chance::Chance;
use run::RunMode;
use shared::Shared;

/// Carries messages from the store to the transport, until it is told to stop.
///
/// Get one from [`Outbox::relay`](crate::Outbox::relay), set what should differ from the defaults, and run it. Any number of
/// relays may run on one outbox, in one process or in many.
///
/// ```no_run
/// # async fn demo<S: postrider::Store, T: postrider::Transport>(outbox: postrider::Outbox<S, T>) -> Result<(), postrider::StoreError> {
/// use postrider::RetryPolicy;
///
/// let relay = outbox.relay().concurrency(64).retry(RetryPolicy::default().attempts(10));
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let worker = tokio::spawn(relay.run(async { _ = stopped.await }));
/// // … until the service stops:
/// drop(stop);
/// worker.await.expect("the relay does not panic")?;
/// # Ok(()) }
/// ```
#[must_use = "a relay does nothing until it is run"]
pub struct Relay<S, T> {
    store: S,
    transport: Arc<T>,
    settings: Settings,
    abandon: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The smallest time limit of a call to the store. A busy database must not be taken for one that is gone.
const MIN_CALL_LIMIT: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What can be set.
struct Settings {
    concurrency: usize,
    lease: Duration,
    poll: Duration,
    retry: RetryPolicy,
    pause: Backoff,
    send_timeout: Duration,
    grace: Duration,
    /// Cancelled when a stopping relay is to wait no longer.
    abandon: CancellationToken,
    memory: u64,
    observers: Vec<Arc<dyn Observer>>,
    chance: Chance,
}

impl<S: Store, T: Transport> Relay<S, T> {
    pub(crate) fn new(store: S, transport: Arc<T>) -> Self {
        let settings = Settings {
            concurrency: 32,
            lease: Duration::from_secs(60),
            poll: Duration::from_secs(1),
            retry: RetryPolicy::default(),
            pause: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            send_timeout: Duration::from_secs(30 * 60),
            grace: Duration::from_secs(25),
            abandon: CancellationToken::new(),
            memory: 256 * 1024 * 1024,
            observers: Vec::new(),
            chance: Chance::default(),
        };
        Self { store, transport, settings, abandon: None }
    }

    /// How many messages are sent at once, at the most: from 1 to 65,536; 0 counts as 1. Default: 32. So many deliveries are claimed
    /// together and are in memory, and no more than this are in doubt when the process is killed. A message counts until its result is
    /// written. To find out whether a paused transport works again, up to three more are claimed.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.settings.concurrency = messages.clamp(1, 65_536);
        self
    }

    /// For how long a delivery belongs to this relay once it is claimed; from 100 ms to a day. Default: 60 s. The lease of a message
    /// that takes longer is renewed as long as this relay lives, so this is how soon others take over when it dies. A call to the
    /// database that is not answered within half of it, or 30 s if that is longer, is given up and tried again on another connection.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(100), DAY);
        self
    }

    /// How often to look for due deliveries when no signal comes, ± 20 %; from 1 ms to a day. Default: 1 s. What falls due by itself is
    /// met within 20 ms of its time whatever the poll.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.settings.poll = interval.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// How many octets of memory the mails in hand may take, as an estimate: six for each octet of a stored mail. Default: 256 MiB. Large
    /// mails are claimed one after the other where they do not fit together, and one is claimed in any case.
    pub fn memory(mut self, octets: u64) -> Self {
        self.settings.memory = octets;
        self
    }

    /// When to try again, and when to give up.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// How long the transport, or a sender, is paused after a failure that is its condition, and then after each round of probes that
    /// fares no better. What the next hop asks for is a lower bound, and a day the most. Default: from 1 s to 5 minutes.
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.settings.pause = backoff;
        self
    }

    /// How long one call of the transport may take. One that takes longer is dropped, and its message is in doubt. Default: 30
    /// minutes, a last resort: a transport has shorter limits of its own.
    pub fn send_timeout(mut self, limit: Duration) -> Self {
        self.settings.send_timeout = limit;
        self
    }

    /// How long a stopping relay waits for messages that are being sent. Then their calls are dropped, and they are in doubt; those that
    /// only waited within the transport, for a rate limit or a connection, are given back uncharged.
    /// Default: 25 s, within the half minute that service managers usually grant.
    pub fn grace(mut self, wait: Duration) -> Self {
        self.settings.grace = wait;
        self
    }

    /// A second signal: once this future completes, a stopping relay waits no longer, as if its grace were over. The last one given counts.
    pub fn abandon_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.abandon = Some(Box::pin(signal));
        self
    }

    /// Draws all chance, which is the jitter of waits, from a seed. With this, and on paused time, a simulation repeats itself to the last
    /// millisecond.
    #[cfg(feature = "testkit")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.chance = Chance::seeded(seed);
        self
    }

    /// Adds a listener.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.observers.push(Arc::new(observer));
        self
    }

    /// Calls back for each dead letter, once, after it is committed; not where the database's answer to the commit was lost. The event
    /// is always an [`Event::DeadLettered`].
    pub fn on_dead_letter(self, callback: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        struct DeadLetters<F>(F);
        impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for DeadLetters<F> {
            fn on_event(&self, event: &Event<'_>) {
                if matches!(event, Event::DeadLettered { .. }) {
                    (self.0)(event);
                }
            }
        }
        self.observer(DeadLetters(callback))
    }

    /// Works until `shutdown` completes: first through all that is due, then on what comes.
    ///
    /// `shutdown` is any future: `std::future::pending()` for a relay that never stops, `tokio::signal::ctrl_c()` mapped to `()`, or
    /// `token.cancelled_owned()` of tokio-util's `CancellationToken`. On shutdown the relay stops claiming, waits for what is being sent
    /// (see [`grace`](Self::grace)), settles it, and returns what it did. A database that does not answer is waited for.
    ///
    /// # Errors
    /// When the outbox's tables are missing or the pool is closed ([`StoreErrorKind::is_final`](crate::StoreErrorKind::is_final)); and
    /// on shutdown, when the last results could not be written within the grace and five seconds more. Their mails are taken over when
    /// their leases run out, each with a `lost` attempt.
    ///
    /// # Cancel safety
    /// Let `shutdown` complete instead of dropping the future. If it is dropped, calls under way are dropped with it, and their
    /// deliveries are taken over when their leases run out, each with a `lost` attempt.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Run, shutdown).await
    }

    /// One round for tests and cron: claims once, up to [`concurrency`](Self::concurrency) and at most 1,024, and returns when all of it
    /// is settled.
    ///
    /// # Errors
    /// When the database does not answer. After a conflict with other transactions it is asked again, a few times.
    pub async fn tick(self) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Tick, std::future::pending()).await
    }

    /// Sends all that was due when it began, then returns. A delivery that fails is not tried again in the same pass, and one that
    /// is enqueued meanwhile waits for the next. It ends early when the transport is paused: [`RunSummary::paused`] says why.
    ///
    /// # Errors
    /// When the database does not answer; after a conflict with other transactions it is asked again, a few times. What was being sent is
    /// settled as far as possible.
    pub async fn drain(self) -> Result<RunSummary, StoreError> {
        self.drain_until(std::future::pending()).await
    }

    /// [`drain`](Self::drain) that a future can stop, as it does [`run`](Self::run).
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    pub async fn drain_until(self, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Drain, shutdown).await
    }

    async fn work(self, mode: RunMode, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        let abandon = self.settings.abandon.clone();
        let shared = Arc::new(Shared::new(self.store, self.transport, self.settings, mode != RunMode::Run));
        let background = heartbeat::start(&shared);
        let stop = CancellationToken::new();
        let working = run::run(&shared, mode, stop.clone());
        let signals = async {
            let stopped = async {
                shutdown.await;
                stop.cancel();
            };
            let abandoned = async {
                if let Some(signal) = self.abandon {
                    signal.await;
                    abandon.cancel();
                }
            };
            tokio::join!(stopped, abandoned);
            std::future::pending::<std::convert::Infallible>().await
        };
        let result = tokio::select! {
            biased;
            never = signals => match never {},
            result = working => result,
        };
        background.stop().await;
        result
    }
}

impl Settings {
    /// The time limit of a call to the store.
    fn call_limit(&self) -> Duration {
        MIN_CALL_LIMIT.max(self.lease / 2)
    }
}

impl<S, T> fmt::Debug for Relay<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("concurrency", &self.settings.concurrency)
            .field("lease", &self.settings.lease)
            .field("poll", &self.settings.poll)
            .finish_non_exhaustive()
    }
}
