//! Variants of prepared statements, by the size of the queue.
//!
//! The server plans a prepared statement a few times, and then keeps one plan until it gathers statistics again, a minute later or more. A
//! plan for an empty queue scans the table. Every idle relay has such plans, and with a backlog each claim and each settlement would then
//! scan the whole backlog. So the statements on the queue are prepared once for each of a few sizes of the queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use super::sql::Sql;
use crate::store::StoreError;

/// The sizes of the queue in bytes at which the next variant begins. The server chooses the index by itself from about sixty pages of 8
/// KiB on. At the upper end of a variant, a claim of 1,024 with a plan from its lower end takes 9 ms instead of 4.5. No other statement
/// slows down as much.
const THRESHOLDS: [i64; 3] = [64 << 10, 512 << 10, 4 << 20];

/// The size is checked again after this time.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A statement on the queue with a text for each size, since the driver keeps prepared statements by their text.
#[derive(Debug)]
pub(super) struct StatementVariants([Arc<str>; THRESHOLDS.len() + 1]);

impl StatementVariants {
    pub(super) fn new(text: &str) -> Self {
        Self(std::array::from_fn(|size| format!("/* queue size {size} */{text}").into()))
    }
}

/// The size of the queue at the last check.
#[derive(Debug, Default)]
pub(super) struct QueueSize {
    /// The index of the variant for the size.
    variant: AtomicUsize,
    /// The time of the last check. `None` before the first one.
    checked_at: Mutex<Option<Instant>>,
}

impl QueueSize {
    /// The text of a statement for this size.
    pub(super) fn variant<'a>(&self, statement: &'a StatementVariants) -> &'a Arc<str> {
        let [smallest, ..] = &statement.0;
        statement.0.get(self.variant.load(Ordering::Relaxed)).unwrap_or(smallest)
    }

    fn set(&self, bytes: i64) {
        self.variant.store(THRESHOLDS.iter().filter(|threshold| bytes >= **threshold).count(), Ordering::Relaxed);
    }

    /// Whether the caller must check the size now. This counts as the check.
    fn begin_check(&self) -> bool {
        let mut checked_at = self.checked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = checked_at.is_none_or(|checked_at| checked_at.elapsed() >= CHECK_INTERVAL);
        if is_due {
            *checked_at = Some(Instant::now());
        }
        is_due
    }
}

/// Checks the size of the queue, unless the last check is recent.
pub(super) async fn refresh_queue_size(connection: &mut PgConnection, sql: &Sql) -> Result<(), StoreError> {
    if sql.is_prepared() && sql.queue.begin_check() {
        // Null if the table is missing. The next statement reports that.
        let bytes: Option<i64> = sql.scalar(&sql.queue_size).fetch_one(connection).await?;
        sql.queue.set(bytes.unwrap_or_default());
    }
    Ok(())
}
