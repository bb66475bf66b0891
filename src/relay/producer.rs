//! The producer: claims deliveries while permits are free, starts tasks that send them, and waits for due deliveries.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_transport::{Admit, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claimer::Claimer;
use super::completer::Completion;
use super::controls;
use super::executor::{ClaimedDelivery, SendTask};
use super::outage;
use super::probe::{CANDIDATES_PER_CLAIM, ProbeTask};
use super::run::RunMode;
use super::shared::{Shared, TransportProbe};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The largest claim. Larger ones are slower: the results of one claim are written during the next.
pub(super) const MAX_CLAIM: usize = 1024;

/// The number of tasks for the calls of one claim. A task for each call would cost more than a call of a fast transport.
const TASKS: usize = 32;

/// Skip `next_due` if the next poll is this close.
const POLL_SLACK: Duration = Duration::from_millis(20);

/// The wait before the next claim while results cannot be written.
const UNSETTLED_WAIT: Duration = Duration::from_millis(50);

pub(super) struct Producer<'a, S, T> {
    shared: &'a Arc<Shared<S, T>>,
    mode: RunMode,
    claimer: Arc<Claimer<S, T>>,
    sends: JoinSet<()>,
    /// `None` once the relay claims no more.
    completions: Option<mpsc::UnboundedSender<Completion>>,
    post_notify: PostNotifyPolling,
    /// Whether this pass has probed with other messages since the transport was paused.
    tried_early: bool,
}

impl<'a, S: Store, T: Transport> Producer<'a, S, T> {
    pub(super) fn new(
        shared: &'a Arc<Shared<S, T>>,
        mode: RunMode,
        completions: mpsc::UnboundedSender<Completion>,
    ) -> Self {
        Self {
            shared,
            mode,
            claimer: Arc::new(Claimer::new(shared)),
            sends: JoinSet::new(),
            completions: Some(completions),
            post_notify: PostNotifyPolling::default(),
            tried_early: false,
        }
    }

    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let mut failures = 0;
        loop {
            if shutdown.is_cancelled() {
                return Ok(());
            }
            let abandon = self.shared.settings.abandon.clone();
            let step = tokio::select! {
                biased;
                step = self.step() => step,
                // Shutdown does not drop a claim, which could leave deliveries leased. The end of the grace period does.
                () = abandon.cancelled() => return Ok(()),
            };
            let wait = match step {
                Ok(Step::Over) => return Ok(()),
                Ok(Step::Again) => continue,
                Ok(Step::Wait(wait)) => {
                    failures = 0;
                    wait
                }
                Err(error) if self.mode != RunMode::Run || error.kind().is_final() => return Err(error),
                Err(error) => {
                    self.shared.store_failed(&error);
                    failures += 1;
                    Wait::For(outage::wait(failures, self.shared.random()))
                }
            };
            self.wait(wait, shutdown).await;
        }
    }

    /// Waits for the calls under way.
    pub(super) async fn finish(&mut self) {
        self.completions = None;
        while self.sends.join_next().await.is_some() {}
    }

    /// Claims once, if a permit is free and the transport is not paused.
    async fn step(&mut self) -> Result<Step, StoreError> {
        if self.completions.as_ref().is_none_or(mpsc::UnboundedSender::is_closed) {
            return Err(StoreError::new(StoreErrorKind::Closed, "the task that writes results panicked"));
        }
        if self.shared.unsettled.load(Ordering::SeqCst) {
            return Ok(Step::Wait(Wait::For(UNSETTLED_WAIT)));
        }
        self.shared.read_controls().await?;
        if self.shared.paused_by_operator().is_some() {
            let is_over = self.mode != RunMode::Run;
            return Ok(if is_over { Step::Over } else { Step::Wait(Wait::For(controls::CHECK)) });
        }
        let free = self.claimer.capacity.free();
        if free == 0 {
            return Ok(Step::Wait(Wait::ForPermit));
        }
        let admitted = self.shared.evidence().admit(Instant::now().into_std());
        let limit = match admitted {
            // More permits become free when the current results are written, and a large claim costs little more than a small one.
            Admit::All if free < self.min_claim() && self.shared.settling.load(Ordering::SeqCst) => 0,
            Admit::All => {
                self.tried_early = false;
                // Nothing is paused, so there is nothing to probe.
                self.shared.control_state.take_probe();
                free.min(MAX_CLAIM)
            }
            Admit::Probe(_) => return self.probe(admitted, false).await,
            Admit::NotBefore(_) | Admit::Probing if self.mode != RunMode::Run => return self.when_paused().await,
            Admit::NotBefore(_) if self.shared.control_state.take_probe() => {
                let admitted = self.shared.evidence().admit_early();
                return self.probe(admitted, false).await;
            }
            Admit::NotBefore(time) => {
                // An operator may ask for a probe meanwhile.
                let wait = time.saturating_duration_since(Instant::now().into_std()).min(controls::MAX_AGE);
                return Ok(Step::Wait(Wait::For(wait)));
            }
            Admit::Probing => return Ok(Step::Wait(Wait::ForPermit)),
        };
        if limit == 0 {
            return Ok(Step::Wait(Wait::ForPermit));
        }
        let (count, claimed) = self.claimer.claim(limit).await?;
        self.spawn_sends(claimed);
        self.after_claim(count).await
    }

    async fn after_claim(&mut self, count: usize) -> Result<Step, StoreError> {
        match self.mode {
            RunMode::Tick => Ok(Step::Over),
            RunMode::Drain if count == 0 => Ok(Step::Over),
            RunMode::Drain => Ok(Step::Again),
            RunMode::Run if count > 0 => Ok(Step::Again),
            RunMode::Run => Ok(Step::Wait(self.idle_wait().await?)),
        }
    }

    /// The smallest claim while results are being written. With fewer free permits, the producer waits for more.
    fn min_claim(&self) -> usize {
        (self.shared.settings.concurrency / 2).min(MAX_CLAIM / 2)
    }

    /// Handles a pause of the transport during a pass, which does not wait for the pause to end. After the calls under way, the pass probes
    /// once with messages that differ from the one that paused the transport. If they fail too, the pass ends.
    async fn when_paused(&mut self) -> Result<Step, StoreError> {
        if !self.claimer.capacity.is_idle() {
            return Ok(Step::Wait(Wait::ForPermit));
        }
        if self.mode == RunMode::Tick || std::mem::replace(&mut self.tried_early, true) {
            return Ok(Step::Over);
        }
        let admitted = self.shared.evidence().admit_early();
        self.probe(admitted, true).await
    }

    /// Claims candidates and starts a round of probes.
    async fn probe(&mut self, admitted: Admit, early: bool) -> Result<Step, StoreError> {
        let Some(probe) = TransportProbe::new(self.shared, admitted) else {
            return Ok(Step::Wait(Wait::ForPermit));
        };
        let (count, claimed) =
            self.claimer.claim(self.claimer.capacity.free_for_probe().min(CANDIDATES_PER_CLAIM)).await?;
        if !claimed.is_empty()
            && let Some(completions) = self.completions.clone()
        {
            let shared = Arc::clone(self.shared);
            let task = ProbeTask { shared, claimer: Arc::clone(&self.claimer), completions, early, probe };
            self.sends.spawn(task.run(claimed));
        }
        if early && count == 0 {
            return Ok(Step::Over);
        }
        self.after_claim(count).await
    }

    fn spawn_sends(&mut self, claimed: Vec<ClaimedDelivery>) {
        let Some(completions) = &self.completions else {
            return;
        };
        let size = self.shared.transport.max_batch().max(1);
        let calls = claimed.len().div_ceil(size);
        let mut claimed = claimed.into_iter();
        while claimed.len() > 0 {
            let groups = (0..calls.div_ceil(TASKS)).map(|_| claimed.by_ref().take(size).collect::<Vec<_>>());
            let groups: Vec<_> = groups.filter(|group| !group.is_empty()).collect();
            let task = SendTask {
                shared: Arc::clone(self.shared),
                completions: completions.clone(),
                groups: Mutex::new(groups.into_iter()),
            };
            self.sends.spawn(task.run());
        }
    }

    /// The wait before the next claim, after one that found nothing due.
    async fn idle_wait(&mut self) -> Result<Wait, StoreError> {
        let notified = self.post_notify.next();
        if notified <= POLL_SLACK {
            // The next poll is so close that a query for the next due time is not worth its cost.
            return Ok(Wait::For(notified.min(self.shared.settings.poll)));
        }
        let poll = self.shared.settings.poll.mul_f64(1.0 + 0.2 * self.shared.random());
        let due = self.shared.call_store(|| self.shared.store.next_due()).await?;
        // If a due delivery was not claimed, another relay has locked it.
        let due = due.map_or(poll, |due| due.max(Duration::from_millis(10)));
        Ok(Wait::For(poll.min(due).min(notified)))
    }

    async fn wait(&mut self, wait: Wait, shutdown: &CancellationToken) {
        match wait {
            Wait::ForPermit => tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.shared.permit_freed.notified() => {}
            },
            Wait::For(time) => tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(time) => {}
                () = self.shared.store.notified() => self.post_notify.notified(),
            },
        }
        while self.sends.try_join_next().is_some() {}
    }
}

enum Step {
    Over,
    Again,
    Wait(Wait),
}

#[derive(Clone, Copy)]
enum Wait {
    For(Duration),
    /// Until a permit is free.
    ForPermit,
}

/// A notification may come before its transaction commits. For a while after one, the relay polls more often.
#[derive(Debug, Default)]
struct PostNotifyPolling {
    polls_left: u32,
}

impl PostNotifyPolling {
    const POLLS: u32 = 6;

    fn notified(&mut self) {
        self.polls_left = Self::POLLS;
    }

    /// The wait before the next poll after a notification: 2, 6, 18, 54 … milliseconds.
    fn next(&mut self) -> Duration {
        match self.polls_left {
            0 => Duration::MAX,
            left => {
                self.polls_left = left - 1;
                Duration::from_millis(2 * 3_u64.pow(Self::POLLS - left))
            }
        }
    }
}
