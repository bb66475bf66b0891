//! The lifecycle of a relay: start, work, grace period, end.

use std::sync::Arc;
use std::time::Duration;

use postrider_transport::Transport;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RunSummary;
use super::completer::complete;
use super::producer::Producer;
use super::shared::Shared;
use crate::store::{Store, StoreError, StoreErrorKind};

/// When a relay ends. A drain and a tick are passes: they end by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunMode {
    /// On shutdown.
    Run,
    /// When all that was due at the start is settled, or the transport is paused.
    Drain,
    /// When one claim is settled.
    Tick,
}

/// How long a pass retries a write of results.
const PASS_SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// The time limit for writing the last results after the grace period.
const SHUTDOWN_SETTLE_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn run<S: Store, T: Transport>(
    shared: &Arc<Shared<S, T>>,
    mode: RunMode,
    shutdown: CancellationToken,
) -> Result<RunSummary, StoreError> {
    // The channel needs no bound: each entry holds a permit.
    let (sender, receiver) = mpsc::unbounded_channel();
    let retry_limit = if mode == RunMode::Run { Duration::MAX } else { PASS_SETTLE_LIMIT };
    let mut completing = JoinSet::new();
    completing.spawn(complete(Arc::clone(shared), receiver, retry_limit));

    let mut producer = Producer::new(shared, mode, sender);
    // The whole shutdown has one deadline, which is fixed when it begins.
    let stopping = end_of_grace(shared, &shutdown);
    let work = async {
        let produced = producer.run(&shutdown).await;
        producer.finish().await;
        let completed = finish_completing(shared, &mut completing, mode).await;
        produced.and(completed)
    };
    tokio::pin!(stopping, work);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            () = &mut stopping, if !shared.settings.abandon.is_cancelled() => shared.settings.abandon.cancel(),
        }
    };
    done?;
    Ok(shared.summary())
}

/// Returns when the grace period is over.
async fn end_of_grace<S: Store, T: Transport>(shared: &Shared<S, T>, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(shared.settings.grace).await;
    tracing::warn!(
        "the grace period is over: dropping the calls under way; their messages are in doubt, unless they only waited"
    );
}

/// Waits until the last results are written, within the time limits above.
async fn finish_completing<S: Store, T: Transport>(
    shared: &Shared<S, T>,
    completing: &mut JoinSet<Result<(), StoreError>>,
    mode: RunMode,
) -> Result<(), StoreError> {
    let limit = async {
        tokio::select! {
            biased;
            () = tokio::time::sleep(PASS_SETTLE_LIMIT * 2), if mode != RunMode::Run => {}
            () = shared.settings.abandon.cancelled() => tokio::time::sleep(SHUTDOWN_SETTLE_LIMIT).await,
        }
    };
    tokio::select! {
        biased;
        joined = completing.join_next() => match joined {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(unwritten("the task that writes results panicked")),
        },
        () = limit => Err(unwritten("the last results could not be written in time")),
    }
}

fn unwritten(why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, why)
}
