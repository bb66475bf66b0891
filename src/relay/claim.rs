//! The driver: finds room, claims, hands out, waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use postrider_transport::{Admission, Probe, Transport};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::send::{Claimed, Share};
use super::settle::{Finished, settle};
use super::shared::{Shared, random};
use super::{Pass, outage};
use crate::observe::Event;
use crate::store::{Store, StoreError, StoreErrorKind};

/// When the work is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When the token says so.
    Stopped,
    /// When all that was due at the start is settled, or the transport is paused.
    Drained,
    /// When one claim is settled.
    Claimed,
}

/// The most that is claimed at once. More takes longer than it saves, and the results of one claim are written during the next.
pub(super) const MOST: usize = 1024;

/// Among so many tasks the calls of one claim are divided. One for each call would cost more than the call of a fast transport.
const TASKS: usize = 32;

/// What becomes due may wait so long for a look that comes anyway.
const SOON: Duration = Duration::from_millis(20);

/// How long to leave the claiming alone while results wait for the database.
const UNSETTLED: Duration = Duration::from_millis(50);

/// How long results may wait for the database in a pass that is to end by itself.
const PASS_PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn work<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    until: Until,
    shutdown: CancellationToken,
) -> Result<Pass, StoreError> {
    // What is in it has its room, which bounds it.
    let (sender, receiver) = mpsc::unbounded_channel();
    let patience = if until == Until::Stopped { Duration::MAX } else { PASS_PATIENCE };
    let mut settling = JoinSet::new();
    settling.spawn(settle(Arc::clone(shared), receiver, patience));

    let mut driver = Driver {
        shared,
        until,
        room: Arc::new(Semaphore::new(shared.settings.concurrency)),
        sends: JoinSet::new(),
        finished: sender,
        horizon: None,
        hints: Hints::default(),
    };
    // One deadline for the whole of a stop, from the moment at which it is asked for.
    let stopping = end_of_grace(shared, &shutdown);
    let work = async {
        let claiming = driver.drive(&shutdown).await;
        let Driver { mut sends, finished, .. } = driver;
        drop(finished);
        while sends.join_next().await.is_some() {}
        let settled = finish_settling(shared, &mut settling, until).await;
        claiming.and(settled)
    };
    tokio::pin!(stopping, work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = &mut stopping, if !shared.settings.abandon.is_cancelled() => shared.settings.abandon.cancel(),
        }
    };
    done?;
    Ok(shared.pass())
}

/// Returns when a relay that was told to stop has had its grace.
async fn end_of_grace<S: Store, T: Transport>(shared: &Shared<S, T>, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(shared.settings.grace).await;
    tracing::warn!("the grace is over; what is still being sent is in doubt");
}

/// Waits for the last results. Once the relay was told to wait no longer, they have a last moment; in a pass, as long as patience
/// lasts.
async fn finish_settling<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    settling: &mut JoinSet<Result<(), StoreError>>,
    until: Until,
) -> Result<(), StoreError> {
    let hurried = async {
        tokio::select! {
            () = tokio::time::sleep(PASS_PATIENCE * 2), if until != Until::Stopped => {}
            () = shared.settings.abandon.cancelled() => tokio::time::sleep(LAST_MOMENT).await,
        }
    };
    tokio::select! {
        joined = settling.join_next() => match joined {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(unwritten("the task that writes results has died")),
        },
        () = hurried => Err(unwritten("the last results could not be written in time")),
    }
}

fn unwritten(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, why)
}

/// How long the last results have to be written once the relay was told to wait no longer.
const LAST_MOMENT: Duration = Duration::from_secs(5);

struct Driver<'a, S, T> {
    shared: &'a Arc<Shared<S, T>>,
    until: Until,
    room: Arc<Semaphore>,
    sends: JoinSet<()>,
    finished: mpsc::UnboundedSender<Finished>,
    /// Of a pass that ends by itself: when it began, by the database's clock.
    horizon: Option<SystemTime>,
    hints: Hints,
}

impl<S: Store, T: Transport> Driver<'_, S, T> {
    async fn drive(&mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let mut failures = 0;
        loop {
            if shutdown.is_cancelled() {
                return Ok(());
            }
            let abandon = self.shared.settings.abandon.clone();
            let turn = tokio::select! {
                turn = self.turn() => turn,
                // To drop a claim may leave deliveries leased, so that it has until the end of the grace.
                () = abandon.cancelled() => return Ok(()),
            };
            let wait = match turn {
                Ok(Turn::Over) => return Ok(()),
                Ok(Turn::Again) => continue,
                Ok(Turn::Wait(wait)) => {
                    failures = 0;
                    wait
                }
                Err(error) if self.until != Until::Stopped || error.kind().is_final() => return Err(error),
                Err(error) => {
                    self.shared.store_failed(&error);
                    failures += 1;
                    Wait::For(outage::wait(failures))
                }
            };
            self.wait(wait, shutdown).await;
        }
    }

    /// Claims once, if there is room and the transport is up to it.
    async fn turn(&mut self) -> Result<Turn, StoreError> {
        if self.finished.is_closed() {
            return Err(StoreError::new(StoreErrorKind::Closed, "the task that writes results has died"));
        }
        if self.shared.unsettled.load(Ordering::SeqCst) {
            return Ok(Turn::Wait(Wait::For(UNSETTLED)));
        }
        let room = self.room.available_permits();
        let (limit, probe) = match self.shared.breaker.admit() {
            // What is being written makes more room in a moment, and one claim for all of it costs little more than one for a part.
            Admission::All if room < self.worth() && self.shared.settling.load(Ordering::SeqCst) => (0, None),
            Admission::All => (room.min(MOST), None),
            Admission::Probe(probe) => (room.min(1), Some(probe)),
            Admission::NotBefore(_) | Admission::Probing if self.until != Until::Stopped => {
                return Ok(self.when_idle(Turn::Over));
            }
            Admission::NotBefore(time) => {
                return Ok(Turn::Wait(Wait::For(time.saturating_duration_since(Instant::now()))));
            }
            Admission::Probing => return Ok(Turn::Wait(Wait::ForRoom)),
        };
        if limit == 0 {
            return Ok(Turn::Wait(Wait::ForRoom));
        }
        let claimed = self.claim(limit, probe).await?;
        self.shared.store_answered();
        match self.until {
            Until::Claimed => Ok(Turn::Over),
            Until::Drained if claimed == 0 => Ok(Turn::Over),
            Until::Drained => Ok(Turn::Again),
            Until::Stopped if claimed > 0 => Ok(Turn::Again),
            Until::Stopped => Ok(Turn::Wait(self.next_look().await?)),
        }
    }

    /// How much room makes a claim worth its while, when there is soon to be more.
    fn worth(&self) -> usize {
        (self.shared.settings.concurrency / 2).min(MOST / 2)
    }

    /// In a pass that ends by itself, a pause ends it only once the calls under way have shown whether it lasts.
    fn when_idle(&self, turn: Turn) -> Turn {
        let idle = self.room.available_permits() == self.shared.settings.concurrency;
        if idle { turn } else { Turn::Wait(Wait::ForRoom) }
    }

    async fn claim(&mut self, limit: usize, mut probe: Option<Probe>) -> Result<usize, StoreError> {
        let shared = self.shared;
        let mut claim = shared.settings.claim(limit);
        if self.until != Until::Stopped {
            let horizon = match self.horizon {
                Some(horizon) => horizon,
                None => *self.horizon.insert(shared.in_time(shared.store.now()).await?),
            };
            claim = claim.due_by(horizon);
        }
        let asked = Instant::now();
        let leases = shared.in_time(shared.store.claim(claim)).await?;
        let answered = Instant::now();
        let count = leases.len();
        if count == 0 {
            return Ok(0);
        }
        shared.hold(leases.iter().map(|lease| lease.key));
        shared.tell(&Event::Claimed { count });
        let mut claims = Vec::with_capacity(count);
        for lease in leases {
            match Arc::clone(&self.room).try_acquire_owned() {
                Ok(permit) => claims.push(Claimed { lease, asked, answered, permit }),
                // A store that hands out more than was asked for; what is too much runs out.
                Err(_) => shared.let_go([lease.key]),
            }
        }
        let size = shared.transport.max_batch().max(1);
        let calls = count.div_ceil(size);
        let mut claims = claims.into_iter();
        while claims.len() > 0 {
            let groups = (0..calls.div_ceil(TASKS)).map(|_| claims.by_ref().take(size).collect::<Vec<_>>());
            let groups: Vec<_> = groups.filter(|group| !group.is_empty()).collect();
            let share = Share {
                shared: Arc::clone(shared),
                finished: self.finished.clone(),
                groups: Mutex::new((groups.into_iter(), probe.take())),
            };
            self.sends.spawn(share.send());
        }
        Ok(count)
    }

    /// How long until it is worth looking again, when nothing was due.
    async fn next_look(&mut self) -> Result<Wait, StoreError> {
        let hinted = self.hints.next();
        if hinted <= SOON {
            // Sooner than it is worth to ask the database for what else is to come.
            return Ok(Wait::For(hinted.min(self.shared.settings.poll)));
        }
        let poll = self.shared.settings.poll.mul_f64(1.0 + 0.2 * random());
        let due = self.shared.in_time(self.shared.store.next_due()).await?;
        // What is due at once and was not claimed is in other hands at the moment.
        let due = due.map_or(poll, |due| due.max(Duration::from_millis(10)));
        Ok(Wait::For(poll.min(due).min(hinted)))
    }

    async fn wait(&mut self, wait: Wait, shutdown: &CancellationToken) {
        match wait {
            Wait::ForRoom => tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.shared.room_freed.notified() => {}
            },
            Wait::For(time) => tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(time) => {}
                () = self.shared.store.woken() => self.hints.given(),
            },
        }
        while self.sends.try_join_next().is_some() {}
    }
}

enum Turn {
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

/// A hint may come before the commit that it speaks of. So for a while after one, the relay looks more often.
#[derive(Debug, Default)]
struct Hints {
    looks_left: u32,
}

impl Hints {
    const LOOKS: u32 = 6;

    fn given(&mut self) {
        self.looks_left = Self::LOOKS;
    }

    /// When to look again on account of the last hint: after 2, 6, 18, 54 … milliseconds.
    fn next(&mut self) -> Duration {
        match self.looks_left {
            0 => Duration::MAX,
            left => {
                self.looks_left = left - 1;
                Duration::from_millis(2 * 3_u64.pow(Self::LOOKS - left))
            }
        }
    }
}
