//! Claiming what there is room for, handing it out, and waiting for more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_transport::{Admit, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use super::completer::Completion;
use super::executor::{ClaimedDelivery, SendTask};
use super::outage;
use super::probe::{LOOKED_AT, ProbeTask};
use super::run::RunMode;
use super::shared::{Shared, TransportProbe};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The most that is claimed at once. More takes longer than it saves, and the results of one claim are written during the next.
pub(super) const MAX_CLAIM: usize = 1024;

/// Among so many tasks the calls of one claim are divided. One for each call would cost more than the call of a fast transport.
const TASKS: usize = 32;

/// Skip `next_due` if the next poll is this close.
const POLL_SLACK: Duration = Duration::from_millis(20);

/// How long to leave the claiming alone while results wait for the database.
const UNSETTLED: Duration = Duration::from_millis(50);

pub(super) struct Producer<'a, S, T> {
    shared: &'a Arc<Shared<S, T>>,
    mode: RunMode,
    claims: Arc<Claims<S, T>>,
    sends: JoinSet<()>,
    /// `None` once there is nothing more to send.
    completions: Option<mpsc::UnboundedSender<Completion>>,
    post_notify: PostNotifyPolling,
    /// Whether this pass has tried others since the transport was paused.
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
            claims: Arc::new(Claims::new(shared)),
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
                // To drop a claim may leave deliveries leased, so that it has until the end of the grace.
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

    /// Claims once, if there is room and the transport is up to it.
    async fn step(&mut self) -> Result<Step, StoreError> {
        if self.completions.as_ref().is_none_or(mpsc::UnboundedSender::is_closed) {
            return Err(StoreError::new(StoreErrorKind::Closed, "the task that writes results has died"));
        }
        if self.shared.unsettled.load(Ordering::SeqCst) {
            return Ok(Step::Wait(Wait::For(UNSETTLED)));
        }
        let room = self.claims.room();
        if room == 0 {
            return Ok(Step::Wait(Wait::ForRoom));
        }
        let admitted = self.shared.evidence().admit(Instant::now().into_std());
        let limit = match admitted {
            // What is being written makes more room in a moment, and one claim for all of it costs little more than one for a part.
            Admit::All if room < self.worth() && self.shared.settling.load(Ordering::SeqCst) => 0,
            Admit::All => {
                self.tried_early = false;
                room.min(MAX_CLAIM)
            }
            Admit::Probe(_) => return self.probe(admitted, false).await,
            Admit::NotBefore(_) | Admit::Probing if self.mode != RunMode::Run => return self.when_paused().await,
            Admit::NotBefore(time) => {
                return Ok(Step::Wait(Wait::For(time.saturating_duration_since(Instant::now().into_std()))));
            }
            Admit::Probing => return Ok(Step::Wait(Wait::ForRoom)),
        };
        if limit == 0 {
            return Ok(Step::Wait(Wait::ForRoom));
        }
        let (count, claimed) = self.claims.claim(limit).await?;
        self.hand_out(claimed);
        self.after_claim(count).await
    }

    async fn after_claim(&mut self, count: usize) -> Result<Step, StoreError> {
        match self.mode {
            RunMode::Tick => Ok(Step::Over),
            RunMode::Drain if count == 0 => Ok(Step::Over),
            RunMode::Drain => Ok(Step::Again),
            RunMode::Run if count > 0 => Ok(Step::Again),
            RunMode::Run => Ok(Step::Wait(self.next_look().await?)),
        }
    }

    /// How much room makes a claim worth its while, when there is soon to be more.
    fn worth(&self) -> usize {
        (self.shared.settings.concurrency / 2).min(MAX_CLAIM / 2)
    }

    /// A pass does not wait for the end of a pause. When the calls under way are over, it tries messages that differ from the one that
    /// paused the transport; if they fare no better, it ends.
    async fn when_paused(&mut self) -> Result<Step, StoreError> {
        if !self.claims.is_idle() {
            return Ok(Step::Wait(Wait::ForRoom));
        }
        if self.mode == RunMode::Tick || std::mem::replace(&mut self.tried_early, true) {
            return Ok(Step::Over);
        }
        let admitted = self.shared.evidence().admit_early();
        self.probe(admitted, true).await
    }

    /// Claims candidates and has them tried.
    async fn probe(&mut self, admitted: Admit, early: bool) -> Result<Step, StoreError> {
        let Some(probe) = TransportProbe::new(self.shared, admitted) else {
            return Ok(Step::Wait(Wait::ForRoom));
        };
        let (count, claimed) = self.claims.claim(self.claims.room_to_probe().min(LOOKED_AT)).await?;
        if !claimed.is_empty()
            && let Some(completions) = self.completions.clone()
        {
            let shared = Arc::clone(self.shared);
            let task = ProbeTask { shared, claims: Arc::clone(&self.claims), completions, early, probe };
            self.sends.spawn(task.run(claimed));
        }
        if early && count == 0 {
            return Ok(Step::Over);
        }
        self.after_claim(count).await
    }

    fn hand_out(&mut self, claimed: Vec<ClaimedDelivery>) {
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

    /// How long until it is worth looking again, when nothing was due.
    async fn next_look(&mut self) -> Result<Wait, StoreError> {
        let notified = self.post_notify.next();
        if notified <= POLL_SLACK {
            // Sooner than it is worth to ask the database for what else is to come.
            return Ok(Wait::For(notified.min(self.shared.settings.poll)));
        }
        let poll = self.shared.settings.poll.mul_f64(1.0 + 0.2 * self.shared.random());
        let due = self.shared.ask(|| self.shared.store.next_due()).await?;
        // What is due at once and was not claimed is in other hands at the moment.
        let due = due.map_or(poll, |due| due.max(Duration::from_millis(10)));
        Ok(Wait::For(poll.min(due).min(notified)))
    }

    async fn wait(&mut self, wait: Wait, shutdown: &CancellationToken) {
        match wait {
            Wait::ForRoom => tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = self.shared.room_freed.notified() => {}
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
    /// Until the result of a call under way is written.
    ForRoom,
}

/// A notification may come before the commit that it speaks of. So for a while after one, the relay polls more often.
#[derive(Debug, Default)]
struct PostNotifyPolling {
    polls_left: u32,
}

impl PostNotifyPolling {
    const POLLS: u32 = 6;

    fn notified(&mut self) {
        self.polls_left = Self::POLLS;
    }

    /// When to poll again on account of the last notification: after 2, 6, 18, 54 … milliseconds.
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
