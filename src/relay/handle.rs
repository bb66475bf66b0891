//! A handle to a relay, for health checks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use postrider_transport::Transport;

use super::shared::Shared;
use super::{PausedTransport, host};
use crate::pause::Pause;
use crate::store::{RelayId, Store};

/// A relay is unhealthy if the database has not answered any of its calls for this long. It makes a call every five seconds.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Shows the id, the host, the state and the health of a relay, for instance in a service's own `/healthz`.
///
/// [`Relay::handle`](crate::Relay::handle) returns it before the relay runs. Clones are cheap and show the same relay. Its methods read
/// memory: they do not wait, and make no call to the database. A handle does not keep its relay alive.
///
/// ```no_run
/// # async fn demo<S: postrider::Store, T: postrider::Transport>(outbox: postrider::Outbox<S, T>) {
/// let relay = outbox.relay();
/// let handle = relay.handle();
/// tokio::spawn(relay.run(std::future::pending()));
///
/// // In the service's health check:
/// let health = handle.health();
/// let status = if health.is_healthy() { 200 } else { 503 };
/// println!("{status}: relay {} is {}, {} in flight", handle.id(), health.state, health.in_flight);
/// # }
/// ```
#[derive(Clone)]
pub struct RelayHandle {
    id: RelayId,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    state: RelayState,
    host: Option<String>,
    /// `None` until the relay runs.
    relay: Option<Weak<dyn RunningRelay>>,
}

/// What a relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RelayState {
    /// It was made and does not run yet.
    #[default]
    Created,
    /// It claims and sends.
    Running,
    /// It was told to stop. It claims no more, and finishes the calls under way.
    Stopping,
    /// It has ended, or its future was dropped.
    Stopped,
}

impl RelayState {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for RelayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The health of a relay at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RelayHealth {
    /// What the relay is doing. While it does not run, the other fields are empty.
    pub state: RelayState,
    /// The transport's name. `None` while the relay does not run.
    pub transport: Option<String>,
    /// The number of deliveries that it holds.
    pub in_flight: usize,
    /// How long ago the database last answered one of its calls. `None` before the first answer.
    pub store_answered_ago: Option<Duration>,
    /// How long the current outage of the database has lasted. `None` if the database answers.
    pub store_unavailable_for: Option<Duration>,
    /// The transport, if it is paused: the relay sends nothing but probes. `None` otherwise.
    pub paused: Option<PausedTransport>,
    /// The paused inner transports of a combined one that still sends by others. Their names are paths: `failover/ses`.
    pub paused_inner: Vec<PausedTransport>,
    /// The number of senders and domains whose mail is paused.
    pub paused_senders: usize,
    /// How long it has had one of these pauses without interruption, to a few seconds. `None` if it has none now.
    pub paused_for: Option<Duration>,
    /// The pauses by operators that keep mail from this relay: of the outbox, its transport, a sender or a template. They are as the relay
    /// last read them, at most two seconds ago while the database answers. The fields above have pauses after failures only.
    pub operator_pauses: Vec<Pause>,
}

impl RelayHealth {
    /// Whether the relay runs and the database answers: it is not in an outage, and answered within the last minute.
    ///
    /// A pause does not count. If it follows from failures, it is the next hop's condition: a restart of the relay does not help, and an
    /// alert should watch the age of the oldest mail instead. If an operator set it, the relay does what it should.
    pub fn is_healthy(&self) -> bool {
        let silent = self.store_answered_ago.is_some_and(|ago| ago > UNHEALTHY_AFTER);
        self.state == RelayState::Running && self.store_unavailable_for.is_none() && !silent
    }
}

impl RelayHandle {
    pub(super) fn new() -> Self {
        let inner = Inner { host: host::name(), ..Inner::default() };
        Self { id: RelayId::new(), inner: Arc::new(Mutex::new(inner)) }
    }

    pub(super) fn set_host(&self, host: Option<String>) {
        self.inner().host = host;
    }

    /// Unique id of the relay, new for each [`Outbox::relay`](crate::Outbox::relay). [`Stats::relays`](crate::Stats::relays) shows it too.
    pub fn id(&self) -> RelayId {
        self.id
    }

    /// The name of the host on which the relay runs: see [`Relay::host`](crate::Relay::host). `None` if it is unknown.
    pub fn host(&self) -> Option<String> {
        self.inner().host.clone()
    }

    /// What the relay is doing.
    pub fn state(&self) -> RelayState {
        self.inner().state
    }

    /// The health of the relay now.
    pub fn health(&self) -> RelayHealth {
        let (state, relay) = {
            let inner = self.inner();
            (inner.state, inner.relay.as_ref().and_then(Weak::upgrade))
        };
        match relay {
            Some(relay) if state != RelayState::Stopped => RelayHealth { state, ..relay.health() },
            _ => RelayHealth { state, ..RelayHealth::default() },
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows this relay as running until the guard is dropped.
    pub(super) fn running<S: Store, T: Transport>(&self, shared: &Arc<Shared<S, T>>) -> impl Drop + use<S, T> {
        let relay: Weak<dyn RunningRelay> = Arc::downgrade(shared) as _;
        let mut inner = self.inner();
        (inner.state, inner.relay) = (RelayState::Running, Some(relay));
        drop(inner);
        StopGuard(self.clone())
    }

    pub(super) fn stopping(&self) {
        self.inner().state = RelayState::Stopping;
    }
}

impl fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayHandle").field("id", &self.id).field("state", &self.state()).finish()
    }
}

/// Shows the relay as stopped, also if its future is dropped.
struct StopGuard(RelayHandle);

impl Drop for StopGuard {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        (inner.state, inner.relay) = (RelayState::Stopped, None);
    }
}

/// A running relay, without the types of its store and transport.
trait RunningRelay: Send + Sync {
    /// The health. The caller sets the state.
    fn health(&self) -> RelayHealth;
}

impl<S: Store, T: Transport> RunningRelay for Shared<S, T> {
    fn health(&self) -> RelayHealth {
        let (store_answered_ago, store_unavailable_for) = self.outage.ages();
        let name = self.transport.name();
        let (paused, paused_senders) = {
            let evidence = self.evidence();
            let paused = |reason: &str| PausedTransport { transport: name.to_owned(), reason: reason.to_owned() };
            (evidence.reason().map(paused), evidence.paused_senders().len())
        };
        let inner = if paused.is_some() { Vec::new() } else { self.transport.paused() };
        let inner = inner.into_iter();
        RelayHealth {
            state: RelayState::Running,
            transport: Some(name.to_owned()),
            in_flight: self.in_flight.len(),
            store_answered_ago,
            store_unavailable_for,
            paused,
            paused_inner: inner
                .map(|(inner, reason)| PausedTransport { transport: format!("{name}/{inner}"), reason })
                .collect(),
            paused_senders,
            paused_for: self.paused_for(),
            operator_pauses: self.pauses_by_operators(),
        }
    }
}
