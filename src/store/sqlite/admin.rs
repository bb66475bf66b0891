//! The methods for operators.

use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Sqlite, Transaction};

use super::message::read_message;
use super::rows::{read_id, read_outcomes};
use super::{SqliteStore, operator, prune, search};
use crate::admin::{HourlyCount, RelayStatus, Stats, UpdateOutcome};
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::clock::{millis, to_millis};
use crate::delivery::{Delivery, DeliverySummary};
use crate::filter::Filter;
use crate::operator::Change;
use crate::pause::PauseTarget;
use crate::prune::{Prune, PruneStep};
use crate::state::State;
use crate::store::counters::HOUR;
use crate::store::row::{
    Columns, Problems, read_attempt, read_counts, read_delivery, read_hourly, read_summary, to_u64,
};
use crate::store::session::{Session, retry_conflicts};
use crate::store::{AdminStore, RelayId, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent.
pub(super) const WITH_STATE: &str = "
    SELECT d.id, d.created_at, d.subject, d.template_id, d.tags, d.key, d.priority, d.when_in_doubt, d.recipients,
           substr(d.traceparent, 1, 56) AS traceparent, q.due_at,
           q.expires_at, e.reason, e.ended_at,
           coalesce(q.cycle, e.cycle) AS cycle, d.body IS NOT NULL AS has_message,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state
    FROM postrider_deliveries d
    LEFT JOIN postrider_queue q ON q.delivery_id = d.id
    LEFT JOIN postrider_ended e ON e.delivery_id = d.id";

fn elapsed(then: i64, now: i64) -> Duration {
    Duration::from_millis(to_u64(now.saturating_sub(then)))
}

/// Finds the row of one delivery with its state.
pub(super) async fn find_with_state(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<Option<SqliteRow>, StoreError> {
    let sql = format!("{WITH_STATE} WHERE d.id = ?1 AND d.key_until IS NULL");
    Ok(sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(connection).await?)
}

/// Selects the history of a delivery. It names the columns, because the driver panics over `*` if a later version adds a column while the
/// statement is prepared (sqlx 0.9.0).
const ATTEMPTS: &str = "
    SELECT number, cycle, started_at, finished_at, outcome, scope, sure, charged, note, error, reply, provider_id, transport
    FROM postrider_attempts WHERE delivery_id = ?1 ORDER BY number";

/// Runs a call in a transaction that writes from its start, and again after a conflict.
macro_rules! write {
    ($store:expr, $tx:ident => $call:expr) => {
        retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&$store.pool).await?;
            let done = async {
                let mut $tx = session.begin_with("BEGIN IMMEDIATE").await?;
                let done = $call.await?;
                $tx.commit().await?;
                Ok(done)
            };
            let done = done.await;
            session.finish(done)
        })
    };
}

impl AdminStore for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.migrate_to_newest().await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let text = id.to_string();
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let found = async {
            // One snapshot, so that state and history are of the same moment.
            let mut tx = session.begin().await?;
            let Some(row) = find_with_state(&mut tx, &text).await? else {
                return Ok(None);
            };
            let attempts = sqlx::query(ATTEMPTS).bind(&text).fetch_all(&mut *tx).await?;
            let attempts = attempts.iter().map(read_attempt).collect();
            let outcomes = read_outcomes(&mut tx, &text).await?;
            Ok(Some(read_delivery(&row, id, attempts, &outcomes)))
        };
        let found = found.await;
        session.finish(found)
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let message = async {
            let mut tx = session.begin().await?;
            let query = sqlx::query(
                "SELECT format, body, text, html, blobs FROM postrider_deliveries WHERE id = ?1 AND body IS NOT NULL",
            );
            match query.bind(id.to_string()).fetch_optional(&mut *tx).await? {
                Some(row) => read_message(&mut tx, &row).await?.map(Some),
                None => Ok(None),
            }
        };
        let message = message.await;
        session.finish(message)
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let rows = search::list(filter, !self.clock.is_test()).build().persistent(false).fetch_all(&mut *session).await;
        let rows = session.finish(rows.map_err(StoreError::from))?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn search_end(&self, filter: &Filter, rows: u32) -> Result<Option<DeliveryId>, StoreError> {
        let Some(mut end) = search::end(filter, rows, !self.clock.is_test()) else { return Ok(None) };
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let row = end.build().persistent(false).fetch_optional(&mut *session).await;
        let row = session.finish(row.map_err(StoreError::from))?;
        row.map(|row| read_id(&row, "id")).transpose()
    }

    async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let count = search::count(filter, !self.clock.is_test())
            .build_query_scalar::<i64>()
            .persistent(false)
            .fetch_one(&mut *session)
            .await;
        session.finish(count.map_err(StoreError::from)).map(to_u64)
    }

    async fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let now = self.clock.now_millis();
        let outcomes = write!(self, tx => super::change::change(&mut tx, change, from, ids, context, now)).await?;
        if change == Change::Resend && outcomes.contains(&UpdateOutcome::Updated) {
            crate::store::notify(&self.notifier);
        }
        Ok(outcomes)
    }

    async fn cancel_in(&self, connection: &mut SqliteConnection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let now = self.clock.now_millis();
        let outcomes = super::change::change(connection, Change::Cancel, None, &[id], None, now).await?;
        Ok(outcomes.first().copied().unwrap_or(UpdateOutcome::NotFound))
    }

    async fn find_key_in(
        &self,
        connection: &mut SqliteConnection,
        key: &str,
    ) -> Result<Option<DeliveryId>, StoreError> {
        let text = "SELECT id FROM postrider_deliveries WHERE key = ?1 AND key_until IS NULL";
        let found = sqlx::query(text).bind(key).fetch_optional(connection).await?;
        found.map(|row| read_id(&row, "id")).transpose()
    }

    async fn set_pause(&self, target: &PauseTarget, paused: bool, context: &AuditContext) -> Result<bool, StoreError> {
        let now = self.clock.now_millis();
        write!(self, tx => operator::set_pause(&mut tx, target, paused, context, now)).await
    }

    async fn request_probe(&self, context: &AuditContext) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        write!(self, tx => operator::request_probe(&mut tx, context, now)).await
    }

    async fn record(&self, action: Action, context: &AuditContext) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        write!(self, tx => operator::record(&mut tx, action, None, context, now)).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let entries = operator::read_audit(&mut session, filter).await;
        session.finish(entries)
    }

    async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let rows = sqlx::query("SELECT hour, event, transport, count FROM postrider_hourly WHERE hour > ?1")
            .bind(to_millis(since).saturating_sub(HOUR))
            .fetch_all(&mut *session)
            .await;
        read_hourly(&session.finish(rows.map_err(StoreError::from))?)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let now = self.clock.now_millis();
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let counted = async {
            let mut tx = session.begin().await?;
            count_all(&mut tx, now).await
        };
        let counted = counted.await;
        session.finish(counted)
    }

    async fn prune_step(&self, prune: &Prune, after: Option<DeliveryId>, limit: u32) -> Result<PruneStep, StoreError> {
        prune::step(&self.pool, prune, after, limit, self.clock.now_millis()).await
    }

    async fn sweep_blobs(&self, limit: u32) -> Result<u64, StoreError> {
        prune::sweep_blobs(&self.pool, limit).await
    }

    async fn erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        let text = id.to_string();
        let changed = retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let changed = async {
                let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
                let changed = super::erase::erase(&mut tx, &text, recipient).await?;
                commit_if_updated(tx, changed).await
            };
            let changed = changed.await;
            session.finish(changed)
        });
        changed.await
    }

    async fn lead(&self, task: &str, relay: RelayId, term: Duration) -> Result<bool, StoreError> {
        let now = self.clock.now_millis();
        let until = now.saturating_add(millis(term));
        let query = || {
            let text = "INSERT INTO postrider_leaders (task, relay, until) VALUES (?1, ?2, ?3)
                 ON CONFLICT (task) DO UPDATE SET relay = excluded.relay, until = excluded.until
                 WHERE relay = excluded.relay OR until <= ?4";
            sqlx::query(text).bind(task.to_owned()).bind(relay.to_string()).bind(until).bind(now)
        };
        Ok(self.run(query).await?.rows_affected() == 1)
    }
}

/// Commits a change. Without a change it rolls back, so that other writers can continue at once.
async fn commit_if_updated(tx: Transaction<'_, Sqlite>, changed: UpdateOutcome) -> Result<UpdateOutcome, StoreError> {
    match changed {
        UpdateOutcome::Updated => tx.commit().await?,
        UpdateOutcome::Unchanged(_) | UpdateOutcome::MessageDeleted | UpdateOutcome::NotFound => tx.rollback().await?,
    }
    Ok(changed)
}

async fn count_all(connection: &mut SqliteConnection, now: i64) -> Result<Stats, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM postrider_queue) AS queued,
                (SELECT count(*) FROM postrider_queue WHERE leased_at IS NOT NULL) AS leased,
                (SELECT min(cycle_started_at) FROM postrider_queue) AS oldest_waiting,
                (SELECT min(cycle_started_at) FROM postrider_queue WHERE charged_attempts = 0) AS oldest_uncharged,
                (SELECT count(*) FROM postrider_queue WHERE leased_at IS NULL AND due_at <= ?1) AS due,
                (SELECT count(*) FROM postrider_queue WHERE leased_at IS NULL AND cycle_started_at > ?1) AS scheduled",
    )
    .bind(now)
    .fetch_one(&mut *connection)
    .await?;
    let ended =
        sqlx::query("SELECT state, count AS deliveries FROM postrider_totals").fetch_all(&mut *connection).await?;
    let mut stats = read_counts(row.number("queued")?, row.number("leased")?, &ended)?;
    stats.set_pending_parts(to_u64(row.number("due")?), to_u64(row.number("scheduled")?));
    let ago = |since: Option<i64>| since.filter(|since| *since <= now).map(|since| elapsed(since, now));
    stats.oldest_waiting = ago(row.number_or_null("oldest_waiting")?);
    let mut undeferred = row.number_or_null("oldest_uncharged")?;
    if undeferred != row.number_or_null("oldest_waiting")? {
        undeferred = oldest_in_doubt(connection, undeferred).await?.or(undeferred);
    }
    stats.oldest_undeferred = ago(undeferred);
    stats.relays = read_relays(connection, now).await?;
    stats.oldest_due = ago(super::claim::first_due(connection).await?);
    Ok(stats)
}

/// The start of the cycle of the oldest delivery whose charged attempts are all in doubt or lost. It looks only at cycles that started
/// before `before`, and at the 1,000 oldest of these.
async fn oldest_in_doubt(connection: &mut SqliteConnection, before: Option<i64>) -> Result<Option<i64>, StoreError> {
    let query = sqlx::query(
        "SELECT min(q.cycle_started_at) AS started
         FROM (SELECT delivery_id, cycle, cycle_started_at FROM postrider_queue
               WHERE charged_attempts > 0 AND cycle_started_at < ?1
               ORDER BY cycle_started_at LIMIT 1000) q
         WHERE (SELECT a.number FROM postrider_attempts a
                WHERE a.delivery_id = q.delivery_id AND a.cycle = q.cycle AND a.charged
                    AND a.outcome IN ('transient', 'permanent') LIMIT 1) IS NULL",
    );
    query.bind(before.unwrap_or(i64::MAX)).fetch_one(connection).await?.number_or_null("started")
}

async fn read_relays(connection: &mut SqliteConnection, now: i64) -> Result<Vec<RelayStatus>, StoreError> {
    let rows = sqlx::query("SELECT id, seen_at, in_flight, paused, host, paused_ms FROM postrider_relays ORDER BY id")
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(|row| read_relay(row, now)).collect())
}

/// The status of a relay. Malformed columns, which another program may have written, get default values.
fn read_relay(row: &SqliteRow, now: i64) -> RelayStatus {
    let mut problems = Problems::default();
    let seen_ago = elapsed(problems.unwrap_or(row.number("seen_at"), now), now);
    let in_flight = to_u64(problems.unwrap_or(row.number("in_flight"), 0));
    let id = problems.unwrap_or(row.text_or_null("id"), None).unwrap_or_default();
    let host = problems.unwrap_or(row.text_or_null("host"), None);
    let paused = problems.unwrap_or(row.text_or_null("paused"), None);
    let paused_ms = problems.unwrap_or(row.number_or_null("paused_ms"), None);
    let paused_for = paused_ms.map(|ms| Duration::from_millis(to_u64(ms)).saturating_add(seen_ago));
    RelayStatus { host, paused_for, ..RelayStatus::new(id, seen_ago, in_flight, paused) }
}
