//! Obeys the controls of operators: pauses, and requests for a probe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_transport::{Transport, mask_addresses};
use tokio::time::Instant;

use super::shared::Shared;
use crate::pause::{Controls, Pause, PauseTarget};
use crate::store::{Store, StoreError};

/// Before a claim, the controls are read again if they are older than this. So a relay obeys within two seconds, and an idle one asks no more
/// often than it claims.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);

/// How often a relay that may not claim looks whether it may again.
pub(super) const CHECK: Duration = Duration::from_millis(250);

/// How long mail of a paused sender or template waits before it is claimed again: a quarter of the time that the pause has lasted, within
/// these limits. When the pause ends, the mail follows within the longest wait.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// The controls as they were last read.
#[derive(Default)]
pub(super) struct ControlState {
    known: Mutex<Option<Known>>,
    /// Whether an operator has asked for a probe since the relay last probed.
    probe: AtomicBool,
}

struct Known {
    controls: Controls,
    read_at: Instant,
    /// For each pause, when this relay first saw it.
    seen: Vec<(PauseTarget, Instant)>,
}

impl ControlState {
    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the controls that were read. Returns whether the pauses changed.
    fn update(&self, controls: Controls) -> bool {
        let mut known = self.known();
        let now = Instant::now();
        let before = known.take();
        // A request from before the start of the relay is ignored.
        if before.as_ref().is_some_and(|before| before.controls.probe_requested_at < controls.probe_requested_at) {
            self.probe.store(true, Ordering::SeqCst);
        }
        let since = |target: &PauseTarget| {
            let seen = before.iter().flat_map(|before| &before.seen).find(|(seen, _)| seen == target);
            seen.map_or(now, |(_, since)| *since)
        };
        let seen: Vec<_> = controls.pauses.iter().map(|pause| (pause.target.clone(), since(&pause.target))).collect();
        let changed =
            before.as_ref().map_or(!controls.pauses.is_empty(), |before| before.controls.pauses != controls.pauses);
        *known = Some(Known { controls, read_at: now, seen });
        changed
    }

    /// Whether an operator has asked for a probe. The next call returns `false`.
    pub(super) fn take_probe(&self) -> bool {
        self.probe.swap(false, Ordering::SeqCst)
    }

    /// Keeps a request for which no call was made.
    pub(super) fn keep_probe(&self) {
        self.probe.store(true, Ordering::SeqCst);
    }

    /// The pause of the whole outbox or of this transport.
    fn of_relay(&self, transport: &str) -> Option<Pause> {
        let known = self.known();
        let stops = |pause: &&Pause| match &pause.target {
            PauseTarget::Outbox => true,
            PauseTarget::Transport(name) => name == transport,
            PauseTarget::Sender(_) | PauseTarget::Template(_) => false,
        };
        known.as_ref()?.controls.pauses.iter().find(stops).cloned()
    }

    /// The pauses that keep mail from a relay with this transport.
    fn for_relay(&self, transport: &str) -> Vec<Pause> {
        let known = self.known();
        let pauses = known.iter().flat_map(|known| &known.controls.pauses);
        let concerns = |pause: &&Pause| !matches!(&pause.target, PauseTarget::Transport(name) if name != transport);
        pauses.filter(concerns).cloned().collect()
    }

    /// How long a mail must wait because its sender or its template is paused. `None`: it may be sent.
    fn wait_of(&self, sender: Option<&str>, template: Option<&str>) -> Option<Duration> {
        let known = self.known();
        let stops = |target: &PauseTarget| match target {
            PauseTarget::Sender(name) => sender.is_some_and(|sender| is_from(sender, name)),
            PauseTarget::Template(name) => template == Some(name.as_str()),
            PauseTarget::Outbox | PauseTarget::Transport(_) => false,
        };
        let (_, since) = known.as_ref()?.seen.iter().find(|(target, _)| stops(target))?;
        Some((since.elapsed() / 4).clamp(WAITS.0, WAITS.1))
    }
}

impl<S: Store, T: Transport> Shared<S, T> {
    /// Reads the controls, unless they were read a moment ago.
    pub(super) async fn read_controls(&self) -> Result<(), StoreError> {
        if self.control_state.known().as_ref().is_some_and(|known| known.read_at.elapsed() < MAX_AGE) {
            return Ok(());
        }
        let controls = self.call_store(|| self.store.controls()).await?;
        if self.control_state.update(controls) {
            self.pause_changed.notify_one();
            match self.paused_by_operator() {
                Some(pause) => {
                    let operator = mask_addresses(&pause.operator);
                    tracing::warn!(target = %pause.target, %operator, "an operator paused the relay");
                }
                None => tracing::info!("the pauses by operators changed; the relay is not paused"),
            }
        }
        Ok(())
    }

    /// The pause by an operator that keeps this relay from claiming.
    pub(super) fn paused_by_operator(&self) -> Option<Pause> {
        self.control_state.of_relay(self.transport.name())
    }

    /// All pauses by operators that keep mail from this relay.
    pub(super) fn pauses_by_operators(&self) -> Vec<Pause> {
        self.control_state.for_relay(self.transport.name())
    }

    /// How long a mail must wait because an operator paused its sender or its template.
    pub(super) fn wait_by_operator(&self, sender: Option<&str>, template: Option<&str>) -> Option<Duration> {
        let wait = self.control_state.wait_of(sender, template)?;
        // A pass does not wait. The delivery is due for the next pass.
        Some(if self.ends_by_itself { Duration::ZERO } else { wait })
    }

    /// The pause by an operator that keeps this relay from claiming, as a text for its report. A paused sender or template does not pause
    /// the relay.
    pub(super) fn operator_pause(&self) -> Option<String> {
        self.paused_by_operator().map(|pause| pause.to_string())
    }
}

/// Whether a sender is this address, or is at this domain, which begins with an at sign.
fn is_from(sender: &str, name: &str) -> bool {
    let wanted = if name.starts_with('@') { sender.rfind('@').and_then(|at| sender.get(at..)) } else { Some(sender) };
    wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(name))
}

/// The text of a pause by an operator, for the summary.
pub(super) fn reason(pause: &Pause) -> String {
    let note = pause.note.iter().map(|note| format!(": {note}"));
    format!("paused by {}{}", pause.operator, note.collect::<String>())
}
