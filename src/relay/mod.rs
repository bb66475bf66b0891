//! The worker: claim, send, decide, settle.

mod call;
mod capacity;
mod claimer;
mod completer;
mod controls;
mod decide;
mod evidence;
mod executor;
mod handle;
mod heartbeat;
mod host;
mod in_flight;
mod jitter;
mod outage;
mod probe;
mod producer;
mod retention;
mod run;
mod shared;
mod store_call;
mod summary;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{Backoff, TraceParent, Transport};
use tokio_util::sync::CancellationToken;

pub use handle::{RelayHandle, RelayHealth, RelayState};
pub use summary::{PausedSender, PausedTransport, RunSummary};

use crate::observe::{Event, Observer};
use crate::prune::Prune;
use crate::retry::RetryPolicy;
use crate::store::{AdminStore, Store, StoreError};
use jitter::Jitter;
use run::RunMode;
use shared::Shared;

/// Sends the messages of an outbox through its transport, until it is stopped.
///
/// [`Outbox::relay`](crate::Outbox::relay) makes a relay with the default settings. Change them with the methods below, and run it. Any
/// number of relays may run on one outbox, in one process or in many.
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
    retention: Option<retention::Task<S, T>>,
    handle: RelayHandle,
}

/// The smallest time limit of a call to the store. A slow answer of a busy database is not an outage.
const MIN_CALL_LIMIT: Duration = Duration::from_secs(30);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Links a span to the trace context of a message.
type LinkSpans = Box<dyn Fn(&tracing::Span, TraceParent) + Send + Sync>;

/// The settings of a relay.
struct Settings {
    concurrency: usize,
    lease: Duration,
    poll: Duration,
    retry: RetryPolicy,
    pause: Backoff,
    send_timeout: Duration,
    grace: Duration,
    /// Cancelled when a stopping relay must no longer wait for its calls.
    abandon: CancellationToken,
    memory: u64,
    observers: Vec<Arc<dyn Observer>>,
    link_spans: Option<LinkSpans>,
    jitter: Jitter,
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
            link_spans: None,
            jitter: Jitter::default(),
        };
        Self { store, transport, settings, abandon: None, retention: None, handle: RelayHandle::new() }
    }

    /// Sets how many messages are in flight at most: from 1 to 65,536. 0 counts as 1. Default: 32.
    ///
    /// A message is in flight from its claim until its result is written. If the process is killed, at most this many messages are in
    /// doubt. While the relay probes a paused transport, it may hold three more.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.settings.concurrency = messages.clamp(1, 65_536);
        self
    }

    /// Sets the duration of a lease, from 100 ms to a day. Default: 60 s.
    ///
    /// While the relay runs, it renews the leases of messages that take longer. If it dies, other relays take its deliveries over after
    /// this time. A call to the database has a time limit of half a lease, and at least 30 s. The relay then repeats it on another
    /// connection.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(100), DAY);
        self
    }

    /// Sets how often the relay polls for due deliveries without a notification, from 1 ms to a day, ± 20 %. Default: 1 s.
    ///
    /// Scheduled deliveries and retries do not wait for the next poll: the relay claims them within 20 ms of their due time.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.settings.poll = interval.clamp(Duration::from_millis(1), DAY);
        self
    }

    /// Sets the memory limit for mails in flight, in bytes. Default: 256 MiB.
    ///
    /// The relay estimates six bytes for each byte of a stored mail, and claims no more mails than fit. It always claims at least one.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.settings.memory = bytes;
        self
    }

    /// Sets when the relay retries a delivery, and when it gives up.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets how long the transport or a sender is paused after a failure that is its condition, and after each failed round of probes.
    /// Default: from 1 s to 5 minutes.
    ///
    /// A pause is at least as long as the next hop asks, and at most a day.
    pub fn pause(mut self, backoff: Backoff) -> Self {
        self.settings.pause = backoff;
        self
    }

    /// Sets the time limit of one call of the transport. Default: 30 minutes.
    ///
    /// A call that takes longer is dropped, and its message is in doubt. This limit is a last resort: transports have shorter limits.
    pub fn send_timeout(mut self, limit: Duration) -> Self {
        self.settings.send_timeout = limit;
        self
    }

    /// Sets the grace period: how long a stopping relay waits for its calls. Default: 25 s, because service managers usually allow 30 s.
    ///
    /// After the grace period the relay drops the calls, and their messages are in doubt. A message that only waited within the transport,
    /// for a rate limit or a connection, is released without a charge.
    pub fn grace(mut self, wait: Duration) -> Self {
        self.settings.grace = wait;
        self
    }

    /// Ends the grace period of a stopping relay when this future completes, such as on a second signal. A later call replaces the future.
    pub fn abandon_on(mut self, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        self.abandon = Some(Box::pin(signal));
        self
    }

    /// Seeds the random jitter of waits. On paused time, a simulation with the same seed then runs the same way, to the millisecond.
    #[cfg(feature = "testkit")]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.jitter = Jitter::seeded(seed);
        self
    }

    /// Sets the name of the host, which tells operators where the relay runs ([`RelayStatus::host`](crate::RelayStatus::host)). Default: the
    /// name of the system on Linux, otherwise the environment variable `HOSTNAME` or `COMPUTERNAME`, otherwise none.
    ///
    /// Control characters are removed, addresses are masked, and at most 64 characters are kept. An empty name counts as none.
    pub fn host(self, name: impl AsRef<str>) -> Self {
        self.handle.set_host(host::shown(name.as_ref()));
        self
    }

    /// Returns a handle that shows the relay's id, host, state and health, also while it runs.
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }

    /// Adds an observer of the relay's events.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.settings.observers.push(Arc::new(observer));
        self
    }

    /// Links the span of each call of the transport to the requests that enqueued its messages.
    ///
    /// The relay has a span of `tracing` for each call: `delivery`, with the id, the number of the attempt, and the trace context that is
    /// stored with the delivery. Before the call, it calls the function with the span and each different context of the messages, so that
    /// the function can add a link. (OpenTelemetry's conventions for messaging ask for links between producers and consumers, because a
    /// call may carry messages of several traces, and a message may need several calls.) `docs/monitoring.md` has the function for
    /// OpenTelemetry.
    ///
    /// It must return quickly. A panic is caught and logged. If no subscriber records the span, the function is not called.
    pub fn link_spans(mut self, link: impl Fn(&tracing::Span, TraceParent) + Send + Sync + 'static) -> Self {
        self.settings.link_spans = Some(Box::new(link));
        self
    }

    /// Calls a function once for each dead letter, after the commit. The event is always [`Event::DeadLettered`].
    ///
    /// The function is not called if the database's answer to the commit was lost.
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

    /// Sends due deliveries until `shutdown` completes.
    ///
    /// `shutdown` is any future: `std::future::pending()` for a relay that never stops, `tokio::signal::ctrl_c()` mapped to `()`, or
    /// `token.cancelled_owned()` of tokio-util's `CancellationToken`. On shutdown the relay stops claiming, waits for its calls (see
    /// [`grace`](Self::grace)), settles their results and returns a summary. If the database does not answer, the relay waits for it.
    ///
    /// # Errors
    /// If the outbox's tables are missing or the pool is closed ([`StoreErrorKind::is_final`](crate::StoreErrorKind::is_final)). On
    /// shutdown, also if the last results cannot be written within five seconds after the grace period. The leases of their deliveries
    /// then expire, and the next claim records a `lost` attempt for each.
    ///
    /// # Cancel safety
    /// Let `shutdown` complete instead of dropping the future. A dropped future drops the calls under way. The leases of their deliveries
    /// expire, and the next claim records a `lost` attempt for each.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Run, shutdown).await
    }

    /// Claims once, sends the claimed deliveries, and returns when all are settled. For tests and cron.
    ///
    /// It claims up to [`concurrency`](Self::concurrency) deliveries, and at most 1,024.
    ///
    /// # Errors
    /// If a call to the database fails. After a conflict with another transaction, the relay repeats the call a few times.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run): a dropped future drops the calls under way, and their attempts are recorded as `lost`.
    pub async fn tick(self) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Tick, std::future::pending()).await
    }

    /// Sends all deliveries that were due at its start, then returns.
    ///
    /// It does not retry a delivery that fails, and does not send deliveries that are enqueued meanwhile. It ends early if the transport is
    /// paused. [`RunSummary::paused`] then has the reason.
    ///
    /// # Errors
    /// As [`tick`](Self::tick). Results of calls under way are settled if the database allows it.
    ///
    /// # Cancel safety
    /// As [`tick`](Self::tick).
    pub async fn drain(self) -> Result<RunSummary, StoreError> {
        self.drain_until(std::future::pending()).await
    }

    /// As [`drain`](Self::drain), but also stops when `shutdown` completes, as [`run`](Self::run) does.
    ///
    /// # Errors
    /// As [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// As [`tick`](Self::tick). Let `shutdown` complete instead.
    pub async fn drain_until(self, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        self.work(RunMode::Drain, shutdown).await
    }

    async fn work(self, mode: RunMode, shutdown: impl Future<Output = ()> + Send) -> Result<RunSummary, StoreError> {
        let abandon = self.settings.abandon.clone();
        let ends_by_itself = mode != RunMode::Run;
        let shared = Shared::new(&self.handle, self.store, self.transport, self.settings, ends_by_itself);
        let shared = Arc::new(shared);
        let _running = self.handle.running(&shared);
        // A drain or a tick is too short for retention.
        let retention = self.retention.filter(|_| mode == RunMode::Run);
        let background = heartbeat::start(&shared, retention, mode);
        let stop = CancellationToken::new();
        let working = run::run(&shared, mode, stop.clone());
        let signals = async {
            let stopped = async {
                shutdown.await;
                self.handle.stopping();
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

impl<S: AdminStore, T: Transport> Relay<S, T> {
    /// Deletes finished, old data while the relay [runs](Self::run). The deletions run one after the other, and again ten minutes after the
    /// last one. A later call replaces the deletions.
    ///
    /// ```
    /// # fn demo<S: postrider::AdminStore, T: postrider::Transport>(outbox: postrider::Outbox<S, T>) {
    /// use std::time::Duration;
    /// use postrider::{Prune, State};
    ///
    /// const DAY: Duration = Duration::from_secs(24 * 3600);
    /// let relay = outbox.relay().retention([
    ///     Prune::messages(30 * DAY).state(State::Sent).state(State::Cancelled),
    ///     Prune::deliveries(365 * DAY).state(State::Sent).state(State::Cancelled).state(State::Dead),
    /// ]);
    /// # }
    /// ```
    ///
    /// It works in transactions of 500 deliveries, and waits between them for four times as long as they take. Of several relays with a
    /// retention, one at a time deletes. Another takes over when that one stops, or within a minute and a half if it dies. Attachments
    /// that no message carries any more are deleted too.
    ///
    /// Give all relays of an outbox the same deletions, since any of them may be the one that deletes.
    ///
    /// A failure, such as a missing right to delete, is logged and reported as [`Event::RetentionFailed`]. If the database does not answer,
    /// the relay reports that as for any other call ([`Event::StoreUnavailable`]). The relay keeps sending, and tries again after
    /// half a minute.
    ///
    /// A [`tick`](Self::tick) and a [`drain`](Self::drain) delete nothing: there, call [`Outbox::prune`](crate::Outbox::prune).
    pub fn retention(mut self, deletions: impl IntoIterator<Item = Prune>) -> Self {
        self.retention = Some(retention::task(deletions.into_iter().collect()));
        self
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
