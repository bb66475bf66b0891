//! What the overview shows, read once for all viewers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failures::{self, FailureGroup};
use super::reader::{LIMIT, ReadError, Reader};
use crate::store::AdminStore;
use crate::{Filter, HourlyCount, Outbox, Pause, State, Stats};

/// How long a snapshot is shown.
const TTL: Duration = Duration::from_secs(2);

/// How many hours the chart covers, with the current one.
pub(super) const HOURS: u64 = 24;

/// How many deliveries of each kind are grouped by their errors.
pub(super) const SAMPLE: u32 = 200;

pub(super) struct Snapshot {
    /// The database's time.
    pub(super) now: SystemTime,
    pub(super) stats: Stats,
    /// The pauses by operators.
    pub(super) pauses: Vec<Pause>,
    pub(super) hourly: Vec<HourlyCount>,
    pub(super) failures: Vec<FailureGroup>,
}

/// The last snapshot.
pub(super) struct SnapshotCache {
    last: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl SnapshotCache {
    pub(super) fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// Returns the last snapshot, or reads a new one if it is too old. Viewers who come meanwhile wait for the same one.
    pub(super) async fn get<S: AdminStore>(
        &self,
        reader: &Reader<S>,
        outbox: &Outbox<S>,
    ) -> Result<Arc<Snapshot>, ReadError> {
        // If the database does not answer, the viewers must not wait for one failure after the other.
        let mut last = tokio::time::timeout(LIMIT, self.last.lock()).await.map_err(|_| ReadError::Slow)?;
        if let Some((read_at, snapshot)) = &*last
            && read_at.elapsed() < TTL
        {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(reader.run(read(outbox)).await?);
        *last = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }
}

async fn read<S: AdminStore>(outbox: &Outbox<S>) -> Result<Snapshot, crate::StoreError> {
    let now = outbox.store().now().await?;
    let stats = outbox.stats().await?;
    let pauses = outbox.controls().await?.pauses;
    let since = now.checked_sub(Duration::from_secs((HOURS - 1) * 3600)).unwrap_or(SystemTime::UNIX_EPOCH);
    let hourly = outbox.hourly(since).await?;
    let mut failed = Vec::new();
    for (state, count) in [(State::Dead, stats.dead), (State::InDoubt, stats.in_doubt)] {
        if count > 0 {
            failed.extend(outbox.list(&Filter::new().state(state).newest_first().limit(SAMPLE)).await?);
        }
    }
    if stats.pending > 0 {
        // The oldest first: those that were enqueued last were not attempted yet.
        failed.extend(outbox.list(&Filter::new().state(State::Pending).limit(SAMPLE)).await?);
    }
    Ok(Snapshot { now, stats, pauses, hourly, failures: failures::group(&failed) })
}
