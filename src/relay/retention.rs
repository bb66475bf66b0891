//! Deletes old data of finished deliveries, in small steps while the relay sends. One relay at a time does it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{DeliveryId, Transport};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::observe::Event;
use crate::prune::Prune;
use crate::store::{AdminStore, StoreError};

/// The name of the task, for the election of its leader.
const TASK: &str = "retention";

/// How long a relay is the leader. It extends the term after a third of it.
const TERM: Duration = Duration::from_secs(60);

/// The number of deliveries that one transaction looks at.
const STEP: u32 = 500;

/// The wait between two steps, as a multiple of the duration of the last one, so that most of the database's time is left for sending.
const WAIT_FACTOR: u32 = 4;
const MIN_WAIT: Duration = Duration::from_millis(10);

/// The wait after a complete round of deletions.
const REST: Duration = Duration::from_secs(600);
/// The wait after a failure, and of a relay that is not the leader.
const RETRY: Duration = Duration::from_secs(30);

/// The task of a relay with a retention.
pub(super) type Task<S, T> =
    Box<dyn FnOnce(Arc<Shared<S, T>>, CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

pub(super) fn task<S: AdminStore, T: Transport>(prunes: Vec<Prune>) -> Task<S, T> {
    Box::new(move |shared, stop| Box::pin(run(shared, prunes, stop)))
}

async fn run<S: AdminStore, T: Transport>(shared: Arc<Shared<S, T>>, prunes: Vec<Prune>, stop: CancellationToken) {
    let mut retention = Retention { shared, prunes, leads_since: None, current: 0, after: None, deleted: 0 };
    while !stop.is_cancelled() {
        let wait = match retention.step().await {
            Ok(wait) => wait,
            // The relay reports an outage once, whichever call meets it.
            Err(error) if error.kind().is_transient() => {
                retention.shared.store_failed(&error);
                RETRY
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "retention failed; it will retry");
                retention.shared.emit(&Event::RetentionFailed { error: &error });
                RETRY
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    if retention.leads_since.is_some() {
        // Otherwise another relay would wait for the end of the term.
        let resigned = retention.shared.store.lead(TASK, retention.shared.id, Duration::ZERO).await;
        if let Err(error) = resigned {
            tracing::debug!(error = &error as &dyn std::error::Error, "the leader of the retention could not resign");
        }
    }
}

struct Retention<S, T> {
    shared: Arc<Shared<S, T>>,
    prunes: Vec<Prune>,
    /// When the term was last extended. `None` if another relay leads.
    leads_since: Option<Instant>,
    /// The index of the current deletion. After the last one, unused blobs are deleted.
    current: usize,
    /// The last delivery that the current deletion looked at. `None` at its beginning.
    after: Option<DeliveryId>,
    /// The number of deliveries that lost data in the current deletion.
    deleted: u64,
}

impl<S: AdminStore, T: Transport> Retention<S, T> {
    /// Does one step, and returns the wait until the next one.
    async fn step(&mut self) -> Result<Duration, StoreError> {
        let shared = &self.shared;
        if self.leads_since.is_none_or(|since| since.elapsed() > TERM / 3) {
            self.leads_since = None;
            let asked = Instant::now();
            if !shared.call_store(|| shared.store.lead(TASK, shared.id, TERM)).await? {
                return Ok(RETRY);
            }
            self.leads_since = Some(asked);
        }
        let began = Instant::now();
        let rests = match self.prunes.get(self.current) {
            Some(prune) => {
                let step = shared.call_store(|| shared.store.prune_step(prune, self.after, STEP)).await?;
                self.deleted += step.affected;
                self.after = step.last;
                if step.last.is_none() {
                    if self.deleted > 0 {
                        tracing::info!(part = ?prune.part, deliveries = self.deleted, "deleted old data");
                        shared.emit(&Event::Pruned { part: prune.part, deliveries: self.deleted });
                    }
                    (self.current, self.deleted) = (self.current + 1, 0);
                }
                false
            }
            None => {
                let swept = shared.call_store(|| shared.store.sweep_blobs(STEP)).await?;
                let is_last = swept < u64::from(STEP);
                if is_last {
                    self.current = 0;
                }
                is_last
            }
        };
        Ok(if rests { REST } else { MIN_WAIT.max(began.elapsed() * WAIT_FACTOR) })
    }
}
