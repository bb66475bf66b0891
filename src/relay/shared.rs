//! The state that the tasks of one relay share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_transport::{Admit, Breaker, DeliveryId, Failure, Receipt, Transport, mask_addresses};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::controls::{ControlState, reason};
use super::evidence::{Admission, Call, Change, Evidence, Verdict};
use super::in_flight::InFlight;
use super::outage::Outage;
use super::{PausedSender, PausedTransport, RelayHandle, RunSummary, Settings};
use crate::observe::Event;
use crate::store::{RelayId, RelayReport, Store};

pub(super) struct Shared<S, T> {
    pub(super) id: RelayId,
    /// The name of the host. `None` if it is unknown.
    host: Option<String>,
    pub(super) store: S,
    pub(super) transport: Arc<T>,
    pub(super) settings: Settings,
    /// Whether this is a pass: a drain or a tick, which ends by itself.
    pub(super) ends_by_itself: bool,
    pub(super) outage: Outage,
    /// Whether results wait because the database does not answer. The relay claims nothing until they are written: their leases may have
    /// expired, and it would claim its own deliveries.
    pub(super) unsettled: AtomicBool,
    /// Whether results are being written. Permits become free after that.
    pub(super) settling: AtomicBool,
    evidence: Mutex<Evidence>,
    /// Since when this relay has been paused after failures.
    paused_since: Mutex<Option<Instant>>,
    /// Notified when a pause begins or ends, so that the change is reported.
    pub(super) pause_changed: Notify,
    /// Notified when a permit is free.
    pub(super) permit_freed: Notify,
    pub(super) in_flight: InFlight,
    /// The controls of operators.
    pub(super) control_state: ControlState,
    /// When leases were last renewed.
    pub(super) renewed: Mutex<Instant>,
    summary: Mutex<RunSummary>,
}

impl<S: Store, T: Transport> Shared<S, T> {
    pub(super) fn new(
        handle: &RelayHandle,
        store: S,
        transport: Arc<T>,
        settings: Settings,
        ends_by_itself: bool,
    ) -> Self {
        // The server's limit is shorter than the relay's, so that a call cannot commit after the relay has stopped waiting for it.
        let store = store.with_call_limit(settings.call_limit().mul_f64(0.8));
        Self {
            id: handle.id(),
            host: handle.host(),
            store,
            transport,
            outage: Outage::default(),
            unsettled: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            evidence: Mutex::new(Evidence::new(settings.pause, Instant::now().into_std())),
            paused_since: Mutex::default(),
            pause_changed: Notify::new(),
            permit_freed: Notify::new(),
            in_flight: InFlight::default(),
            control_state: ControlState::default(),
            renewed: Mutex::new(Instant::now()),
            summary: Mutex::default(),
            settings,
            ends_by_itself,
        }
    }

    /// From -1 to 1, for jitter.
    pub(super) fn random(&self) -> f64 {
        self.settings.jitter.draw()
    }

    pub(super) fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut RunSummary)) {
        add(&mut self.summary.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The summary so far.
    pub(super) fn summary(&self) -> RunSummary {
        let mut summary = self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let evidence = self.evidence();
        let by_operator = self.paused_by_operator().map(|pause| reason(&pause));
        let why = by_operator.or_else(|| evidence.reason().map(str::to_owned));
        summary.paused = why.map(|reason| PausedTransport { transport: self.transport.name().to_owned(), reason });
        let senders = evidence.paused_senders().into_iter();
        summary.paused_senders = senders.map(|(sender, reason)| PausedSender { sender, reason }).collect();
        summary
    }

    pub(super) fn report(&self) -> RelayReport {
        let paused_for = self.paused_for();
        let paused: Vec<_> = self.operator_pause().into_iter().chain(self.failure_pauses()).collect();
        let paused = (!paused.is_empty()).then(|| paused.join("; "));
        let host = self.host.clone();
        RelayReport { host, paused_for, ..RelayReport::new(self.id, self.in_flight.len(), paused) }
    }

    /// How long there have been pauses after failures without interruption, as far as the calls of this function show. `None` if there is
    /// none now.
    pub(super) fn paused_for(&self) -> Option<Duration> {
        let is_paused = !self.failure_pauses().is_empty();
        let mut since = self.paused_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = since.or_else(|| Some(Instant::now())).filter(|_| is_paused);
        since.map(|since| since.elapsed())
    }

    /// The pauses after failures, as texts for the report.
    pub(super) fn failure_pauses(&self) -> Vec<String> {
        let name = self.transport.name();
        let evidence = self.evidence();
        let mut paused: Vec<String> = match evidence.reason() {
            Some(reason) => vec![format!("{name}: {reason}")],
            None => {
                let within = self.transport.paused();
                within.iter().map(|(inner, reason)| format!("{name}/{inner}: {reason}")).collect()
            }
        };
        let senders = evidence.paused_senders();
        paused
            .extend(senders.iter().take(REPORTED_SENDERS).map(|(sender, reason)| format!("sender {sender}: {reason}")));
        if senders.len() > REPORTED_SENDERS {
            paused.push(format!("and {} more senders", senders.len() - REPORTED_SENDERS));
        }
        paused
    }

    /// Judges the result of a call, and announces the pauses that begin or end with it.
    pub(super) fn judge(&self, result: &Result<Receipt, Failure>, call: Call<'_>) -> Verdict {
        let mut verdict = self.evidence().judge(result, call, self.random());
        if self.ends_by_itself && verdict.wait.is_some() {
            // A pass does not wait for the end of a pause. The delivery is due for the next pass.
            verdict.wait =
                Some(result.as_ref().err().and_then(Failure::retry_after).unwrap_or_default().min(Breaker::MAX_PAUSE));
        }
        verdict.changes.iter().for_each(|change| self.announce(change));
        verdict
    }

    pub(super) fn admit_sender(&self, sender: Option<&str>, id: DeliveryId, now: Instant) -> Admission {
        match self.evidence().admit_sender(sender, id, self.ends_by_itself, now.into_std()) {
            Admission::Wait(_) if self.ends_by_itself => Admission::Wait(Duration::ZERO),
            admission => admission,
        }
    }

    pub(super) fn announce(&self, change: &Change) {
        let transport = self.transport.name();
        match change {
            Change::TransportPaused { reason, pause } => {
                tracing::warn!(transport, reason, pause_ms = millis(*pause), "the transport cannot send; it is paused");
                self.emit(&Event::TransportPaused { transport, reason, pause: *pause });
            }
            Change::TransportResumed => {
                tracing::info!(transport, "the transport works again");
                self.emit(&Event::TransportResumed { transport });
            }
            Change::SenderPaused { sender, reason, pause } => {
                let masked = mask_addresses(sender);
                tracing::warn!(transport, sender = %masked, reason, pause_ms = millis(*pause), "the next hop refuses a sender; its mail is paused");
                self.emit(&Event::SenderPaused { transport, sender, reason, pause: *pause });
            }
            Change::SenderResumed { sender } => {
                tracing::info!(transport, sender = %mask_addresses(sender), "the next hop accepts a sender again");
                self.emit(&Event::SenderResumed { transport, sender });
            }
        }
        self.pause_changed.notify_one();
    }

    pub(super) fn emit(&self, event: &Event<'_>) {
        for observer in &self.settings.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.on_event(event))).is_err() {
                tracing::error!("an observer panicked; it still gets later events");
            }
        }
    }
}

/// The largest number of paused senders in a report.
const REPORTED_SENDERS: usize = 20;

/// The right to probe the transport. If it is dropped without a result, the next message gets it.
pub(super) struct TransportProbe<S: Store, T: Transport> {
    shared: Arc<Shared<S, T>>,
    number: u64,
}

impl<S: Store, T: Transport> TransportProbe<S, T> {
    /// Returns `None` if the admission is not a probe.
    pub(super) fn new(shared: &Arc<Shared<S, T>>, admitted: Admit) -> Option<Self> {
        match admitted {
            Admit::Probe(number) => Some(Self { shared: Arc::clone(shared), number }),
            _ => None,
        }
    }
}

impl<S: Store, T: Transport> Drop for TransportProbe<S, T> {
    fn drop(&mut self) {
        self.shared.evidence().release_probe(self.number);
        self.shared.permit_freed.notify_one();
    }
}

/// The right to probe a sender. If it is dropped without a result, the next message gets it.
pub(super) struct SenderProbe<S: Store, T: Transport> {
    shared: Arc<Shared<S, T>>,
    sender: String,
    of_domain: bool,
    number: u64,
}

impl<S: Store, T: Transport> SenderProbe<S, T> {
    /// Returns `None` if the admission is not a probe.
    pub(super) fn new(shared: &Arc<Shared<S, T>>, sender: Option<&str>, admission: Admission) -> Option<Self> {
        match (sender, admission) {
            (Some(sender), Admission::SenderProbe { of_domain, number }) => {
                Some(Self { shared: Arc::clone(shared), sender: sender.to_owned(), of_domain, number })
            }
            _ => None,
        }
    }
}

impl<S: Store, T: Transport> Drop for SenderProbe<S, T> {
    fn drop(&mut self) {
        self.shared.evidence().release_sender_probe(&self.sender, self.of_domain, self.number);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
