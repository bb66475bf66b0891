//! One call of the store on one connection: a single statement as it is, or a transaction.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, PgPool, Postgres};

use crate::store::StoreError;
use crate::store::session::Session;
use crate::store::sticky::StickyConnection;

/// What begins a call's transaction, in one round trip.
#[derive(Debug)]
pub(super) struct Begin {
    /// Transactions that write, and those that read a single moment: with texts as the client's encoding has them, and as octets.
    write: [Arc<str>; 2],
    snapshot: [Arc<str>; 2],
    octets: AtomicBool,
}

impl Begin {
    /// The server ends what takes longer than `limit`, be it a statement, the wait for a lock or the wait for the client. Such a setting is
    /// the transaction's own: neither the pool's other borrowers nor the other clients of a pooler meet it.
    pub(super) fn within(limit: Option<Duration>) -> Self {
        let limits = limit.map(|limit| {
            // 0 would be no limit.
            let millis = limit.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
            format!(
                "; SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis}"
            )
        });
        let limits = limits.unwrap_or_default();
        let begin = |how: &str| {
            ["", "; SET LOCAL client_encoding = SQL_ASCII"].map(|octets| format!("BEGIN {how}{limits}{octets}").into())
        };
        Self {
            // The statements count on it, whatever the server's default is.
            write: begin("ISOLATION LEVEL READ COMMITTED"),
            snapshot: begin("ISOLATION LEVEL REPEATABLE READ, READ ONLY"),
            octets: AtomicBool::new(false),
        }
    }

    /// Takes texts as octets from now on, and says whether it did not before. A database without an encoding (`SQL_ASCII`) keeps any
    /// octets as a text, and its server fails the statement that would show them to a client whose encoding is UTF-8.
    pub(super) fn take_octets(&self) -> bool {
        !self.octets.swap(true, Ordering::Relaxed)
    }

    pub(super) fn takes_octets(&self) -> bool {
        self.octets.load(Ordering::Relaxed)
    }
}

/// A connection for one call. Until the call is finished, to drop it closes the connection, and undoes what was begun: what the server
/// is still to execute it cannot commit, because the commit is never sent.
pub(super) struct Call {
    session: Session<Postgres>,
    in_transaction: bool,
}

impl Call {
    /// For a single statement, which is a transaction by itself.
    pub(super) fn bare(session: Session<Postgres>) -> Self {
        Self { session, in_transaction: false }
    }

    pub(super) async fn begin(session: Session<Postgres>, begin: &Begin) -> Result<Self, StoreError> {
        Self::begin_with(session, &begin.write[usize::from(begin.takes_octets())]).await
    }

    pub(super) async fn begin_snapshot(session: Session<Postgres>, begin: &Begin) -> Result<Self, StoreError> {
        Self::begin_with(session, &begin.snapshot[usize::from(begin.takes_octets())]).await
    }

    async fn begin_with(mut session: Session<Postgres>, text: &Arc<str>) -> Result<Self, StoreError> {
        match run(&mut session, Arc::clone(text)).await {
            Ok(()) => Ok(Self { session, in_transaction: true }),
            Err(error) => session.finish(Err(error)),
        }
    }

    /// Commits what went well, and undoes all else.
    pub(super) async fn finish<T>(self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let (session, result) = self.end(result).await;
        session.finish(result)
    }

    /// As [`finish`](Self::finish), and where all went well, more of its kind will come.
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

    /// Nothing was changed: gives back at once what was locked. A claim passes by rows that are locked.
    pub(super) async fn undo<T>(mut self, value: T) -> Result<T, StoreError> {
        let undone = run(&mut self.session, "ROLLBACK").await;
        self.session.finish(undone.map(|()| value))
    }

    async fn end<T>(mut self, result: Result<T, StoreError>) -> (Session<Postgres>, Result<T, StoreError>) {
        if !self.in_transaction {
            return (self.session, result);
        }
        let result = match result {
            Ok(value) => run(&mut self.session, "COMMIT").await.map(|()| value),
            Err(error) if error.ends_connection() => Err(error),
            Err(error) => match run(&mut self.session, "ROLLBACK").await {
                Ok(()) => Err(error),
                Err(_) => Err(error.ending_the_connection()),
            },
        };
        (self.session, result)
    }
}

/// By the simple protocol: no statement is kept for it, and it may be several.
async fn run(connection: &mut PgConnection, text: impl Into<Arc<str>>) -> Result<(), StoreError> {
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
