//! One call of the store on one connection: a single statement, or a transaction.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};

use crate::store::StoreError;
use crate::store::session::Session;
use crate::store::sticky::StickyConnection;

/// The statements that begin a transaction, each in one round trip.
#[derive(Debug)]
pub(super) struct BeginStatements {
    /// Begins a transaction that writes: with and without conversion of texts to the client's encoding.
    write: [Arc<str>; 2],
    /// Begins a read-only transaction on one snapshot: with and without conversion.
    snapshot: [Arc<str>; 2],
    /// Whether the server must send texts without conversion.
    raw_text: AtomicBool,
}

impl BeginStatements {
    /// Builds the statements. With a limit, the server ends a statement that takes longer, also while it waits for a lock, and a
    /// transaction that waits longer for its client. The setting is local to the transaction, so that it affects neither other users of the
    /// pool nor other clients of a pooler.
    pub(super) fn with_time_limit(limit: Option<Duration>) -> Self {
        let limits = limit.map(|limit| {
            // 0 means no limit.
            let millis = limit.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
            format!(
                "; SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis}"
            )
        });
        let limits = limits.unwrap_or_default();
        let begin = |mode: &str| {
            ["", "; SET LOCAL client_encoding = SQL_ASCII"]
                .map(|encoding| format!("BEGIN {mode}{limits}{encoding}").into())
        };
        Self {
            // The statements depend on the level, and the server's default may differ.
            write: begin("ISOLATION LEVEL READ COMMITTED"),
            snapshot: begin("ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
            raw_text: AtomicBool::new(false),
        }
    }

    /// Reads texts without conversion from now on, and returns whether this is new. A database without an encoding (`SQL_ASCII`) stores any
    /// bytes as a text. Its server fails a statement that returns invalid UTF-8 to a client with the encoding UTF-8.
    pub(super) fn enable_raw_text(&self) -> bool {
        !self.raw_text.swap(true, Ordering::Relaxed)
    }

    pub(super) fn uses_raw_text(&self) -> bool {
        self.raw_text.load(Ordering::Relaxed)
    }
}

/// A connection for one call. A drop before the end of the call closes the connection and undoes the transaction: the server cannot commit
/// what it still executes, since the commit is never sent.
pub(super) struct Call {
    session: Session<Postgres>,
    in_transaction: bool,
}

impl Call {
    /// A call of a single statement, which is a transaction of its own.
    pub(super) fn without_transaction(session: Session<Postgres>) -> Self {
        Self { session, in_transaction: false }
    }

    pub(super) async fn begin(session: Session<Postgres>, statements: &BeginStatements) -> Result<Self, StoreError> {
        Self::begin_with(session, &statements.write[usize::from(statements.uses_raw_text())]).await
    }

    pub(super) async fn begin_snapshot(
        session: Session<Postgres>,
        statements: &BeginStatements,
    ) -> Result<Self, StoreError> {
        Self::begin_with(session, &statements.snapshot[usize::from(statements.uses_raw_text())]).await
    }

    async fn begin_with(mut session: Session<Postgres>, text: &Arc<str>) -> Result<Self, StoreError> {
        match run_simple(&mut session, Arc::clone(text)).await {
            Ok(()) => Ok(Self { session, in_transaction: true }),
            Err(error) => session.finish(Err(error)),
        }
    }

    /// Commits after a success, and rolls back after an error.
    pub(super) async fn finish<T>(self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let (session, result) = self.end(result).await;
        session.finish(result)
    }

    /// Like [`finish`](Self::finish), and keeps the connection after a success.
    pub(super) async fn finish_and_keep<T>(
        self,
        sticky: &StickyConnection<Postgres>,
        pool: &PgPool,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (session, result) = self.end(result).await;
        session.finish_and_keep(sticky, pool, result)
    }

    /// Whether to keep the connection after a call for `count` deliveries.
    pub(super) fn is_worth_keeping(&self, count: usize) -> bool {
        self.session.is_worth_keeping(count)
    }

    /// Rolls back a transaction without changes. This releases its locks at once: a claim skips locked rows.
    pub(super) async fn roll_back<T>(mut self, value: T) -> Result<T, StoreError> {
        let rolled_back = run_simple(&mut self.session, "ROLLBACK").await;
        self.session.finish(rolled_back.map(|()| value))
    }

    async fn end<T>(mut self, result: Result<T, StoreError>) -> (Session<Postgres>, Result<T, StoreError>) {
        if !self.in_transaction {
            return (self.session, result);
        }
        let result = match result {
            Ok(value) => run_simple(&mut self.session, "COMMIT").await.map(|()| value),
            Err(error) if error.ends_connection() => Err(error),
            Err(error) => match run_simple(&mut self.session, "ROLLBACK").await {
                Ok(()) => Err(error),
                Err(_) => Err(error.and_close_connection()),
            },
        };
        (self.session, result)
    }
}

/// Runs one or more statements by the simple query protocol, which keeps no prepared statement.
async fn run_simple(connection: &mut PgConnection, text: impl Into<Arc<str>>) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(connection).await?;
    Ok(())
}

impl Deref for Call {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.session
    }
}

impl DerefMut for Call {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.session
    }
}
