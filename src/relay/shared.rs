//! The state that the tasks of one relay share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_transport::{Admit, Breaker, DeliveryId, Failure, Receipt, Transport, mask_addresses};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::evidence::{Admission, Call, Change, Evidence, Verdict};
use super::in_flight::InFlight;
use super::outage::Outage;
use super::{PausedSender, PausedTransport, RunSummary, Settings};
use crate::observe::Event;
use crate::store::{RelayId, RelayReport, Store};

pub(super) struct Shared<S, T> {
    pub(super) id: RelayId,
    pub(super) store: S,
    pub(super) transport: Arc<T>,
    pub(super) settings: Settings,
    /// Whether this is a pass that ends by itself.
    pub(super) ends_by_itself: bool,
    pub(super) outage: Outage,
    /// Whether results wait because the database does not answer. Until they are written nothing is claimed, since the relay would claim its
    /// own deliveries after their leases expire.
    pub(super) unsettled: AtomicBool,
    /// Whether results are being written, which frees permits.
    pub(super) settling: AtomicBool,
    evidence: Mutex<Evidence>,
    /// Notified when a pause begins or ends, so that the change is reported.
    pub(super) pause_changed: Notify,
    /// Notified when a permit is free.
    pub(super) permit_freed: Notify,
    pub(super) in_flight: InFlight,
    /// When leases were last renewed.
    pub(super) renewed: Mutex<Instant>,
    pass: Mutex<RunSummary>,
}

impl<S: Store, T: Transport> Shared<S, T> {
    pub(super) fn new(store: S, transport: Arc<T>, settings: Settings, ends_by_itself: bool) -> Self {
        // The server must give up first, so that a call that this relay has given up cannot commit later.
        let store = store.with_call_limit(settings.call_limit().mul_f64(0.8));
        Self {
            id: RelayId::new(),
            store,
            transport,
            outage: Outage::default(),
            unsettled: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            evidence: Mutex::new(Evidence::new(settings.pause, Instant::now().into_std())),
            pause_changed: Notify::new(),
            permit_freed: Notify::new(),
            in_flight: InFlight::default(),
            renewed: Mutex::new(Instant::now()),
            pass: Mutex::default(),
            settings,
            ends_by_itself,
        }
    }

    /// From -1 to 1, for jitter.
    pub(super) fn random(&self) -> f64 {
        self.settings.chance.draw()
    }

    pub(super) fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut RunSummary)) {
        add(&mut self.pass.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The summary so far.
    pub(super) fn pass(&self) -> RunSummary {
        let mut pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let evidence = self.evidence();
        let transport = || self.transport.name().to_owned();
        pass.paused =
            evidence.reason().map(|reason| PausedTransport { transport: transport(), reason: reason.to_owned() });
        let senders = evidence.paused_senders().into_iter();
        pass.paused_senders = senders.map(|(sender, reason)| PausedSender { sender, reason }).collect();
        pass
    }

    pub(super) fn report(&self) -> RelayReport {
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
        let paused = (!paused.is_empty()).then(|| paused.join("; "));
        RelayReport::new(self.id, self.in_flight.len(), paused)
    }

    /// Judges the result of a call, and announces the pauses that begin or end with it.
    pub(super) fn judge(&self, result: &Result<Receipt, Failure>, call: Call<'_>) -> Verdict {
        let mut verdict = self.evidence().judge(result, call, self.random());
        if self.ends_by_itself && verdict.wait.is_some() {
            // A pass does not wait for the end of a pause, and the next one is to try for itself.
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
                tracing::warn!(transport, reason, pause_ms = millis(*pause), "the transport cannot send; pausing");
                self.tell(&Event::TransportPaused { transport, reason, pause: *pause });
            }
            Change::TransportResumed => {
                tracing::info!(transport, "the transport works again");
                self.tell(&Event::TransportResumed { transport });
            }
            Change::SenderPaused { sender, reason, pause } => {
                let masked = mask_addresses(sender);
                tracing::warn!(transport, sender = %masked, reason, pause_ms = millis(*pause), "a sender is refused; pausing it");
                self.tell(&Event::SenderPaused { transport, sender, reason, pause: *pause });
            }
            Change::SenderResumed { sender } => {
                tracing::info!(transport, sender = %mask_addresses(sender), "a sender is taken again");
                self.tell(&Event::SenderResumed { transport, sender });
            }
        }
        self.pause_changed.notify_one();
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        for observer in &self.settings.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.on_event(event))).is_err() {
                tracing::error!("an observer panicked; it goes on being told");
            }
        }
    }
}

/// At most this many paused senders are in a report.
const REPORTED_SENDERS: usize = 20;

/// The right to probe the transport. If it is dropped without a result, the next message gets it.
pub(super) struct TransportProbe<S: Store, T: Transport> {
    shared: Arc<Shared<S, T>>,
    number: u64,
}

impl<S: Store, T: Transport> TransportProbe<S, T> {
    /// `None` where this is no probe.
    pub(super) fn new(shared: &Arc<Shared<S, T>>, admitted: Admit) -> Option<Self> {
        match admitted {
            Admit::Probe(number) => Some(Self { shared: Arc::clone(shared), number }),
            _ => None,
        }
    }
}

impl<S: Store, T: Transport> Drop for TransportProbe<S, T> {
    fn drop(&mut self) {
        self.shared.evidence().give_back(self.number);
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
    /// `None` where this is no probe.
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
        self.shared.evidence().give_back_sender(&self.sender, self.of_domain, self.number);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
