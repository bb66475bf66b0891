//! Plans that fit the queue.
//!
//! The server plans a prepared statement some times, and then keeps a plan until it gathers statistics again, a minute later or more.
//! A plan made over an empty queue reads all of it, which is right at that moment, and wrong as soon as a backlog has come: each
//! claim and each settlement would read the whole of it. Every idle relay has made such plans. So the statements on the queue are
//! prepared once for each of a few sizes of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use super::sql::Sql;
use crate::store::StoreError;

/// From how many octets on the queue counts as larger. The server takes the index of its own accord from some sixty pages of 8 KiB
/// on. At the end of a step, a claim of 1,024 by the plan from its beginning takes 9 ms instead of 4.5; nothing else takes so much longer.
const STEPS: [i64; 3] = [64 << 10, 512 << 10, 4 << 20];

/// For how long a size is believed.
const BELIEVED: Duration = Duration::from_millis(200);

/// A statement on the queue, with a text of its own for each size, since the driver keeps prepared statements by their text.
#[derive(Debug)]
pub(super) struct Fitted([Arc<str>; STEPS.len() + 1]);

impl Fitted {
    pub(super) fn new(text: &str) -> Self {
        Self(std::array::from_fn(|size| format!("/* queue size {size} */{text}").into()))
    }
}

/// How large the queue was when somebody last asked.
#[derive(Debug, Default)]
pub(super) struct QueueSize {
    steps: AtomicUsize,
    asked: Mutex<Option<Instant>>,
}

impl QueueSize {
    /// The text that goes with it.
    pub(super) fn fit<'a>(&self, statement: &'a Fitted) -> &'a Arc<str> {
        let [smallest, ..] = &statement.0;
        statement.0.get(self.steps.load(Ordering::Relaxed)).unwrap_or(smallest)
    }

    fn set(&self, octets: i64) {
        self.steps.store(STEPS.iter().filter(|step| octets >= **step).count(), Ordering::Relaxed);
    }

    fn is_old(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let old = asked.is_none_or(|asked| asked.elapsed() >= BELIEVED);
        if old {
            *asked = Some(Instant::now());
        }
        old
    }
}

/// Asks the server how large the queue is, unless that was done a moment ago.
pub(super) async fn refresh(connection: &mut PgConnection, sql: &Sql) -> Result<(), StoreError> {
    if sql.is_prepared() && sql.size.is_old() {
        // Nothing where there is no such table, of which the statement that follows complains.
        let octets: Option<i64> = sql.scalar(&sql.queue_size).fetch_one(connection).await?;
        sql.size.set(octets.unwrap_or_default());
    }
    Ok(())
}
