//! The methods for operators.

use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::blobs::read_blobs;
use super::claim::read_message;
use super::rows::{ids_json, read_id, read_outcomes};
use super::sql::BEGIN_SNAPSHOT;
use super::{MySqlStore, prune, search};
use crate::admin::{HourlyCount, RelayStatus, Stats, UpdateOutcome};
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::clock::{micros, to_micros};
use crate::delivery::{Delivery, DeliverySummary};
use crate::filter::Filter;
use crate::operator::Change;
use crate::pause::PauseTarget;
use crate::prune::{Prune, PruneStep};
use crate::state::State;
use crate::store::blobs::BLOB_MISSING;
use crate::store::counters::HOUR;
use crate::store::row::{
    Columns, corrupt, read_attempt, read_counts, read_delivery, read_hourly, read_summary, to_u64,
};
use crate::store::session::retry_conflicts;
use crate::store::{AdminStore, RecipientOutcome, RelayId, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent by its last attempt.
pub(super) const WITH_STATE: &str = "
    SELECT d.id, d.created_at, d.subject, d.template_id, d.tags, CONVERT(d.`key` USING utf8mb4) AS `key`, d.priority, d.when_in_doubt, d.recipients,
           LEFT(d.traceparent, 56) AS traceparent,
           q.due_at, q.expires_at, e.reason, e.ended_at, d.`body` IS NOT NULL AS has_message, COALESCE(q.cycle, e.cycle) AS cycle,
           CASE WHEN q.leased_at <> 0 THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE COALESCE(e.state, 'sent') END AS state
    FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)
    LEFT JOIN {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = d.id
    LEFT JOIN {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id
    WHERE d.key_until IS NULL";

impl MySqlStore {
    /// Finds the row of one delivery with its state.
    pub(super) async fn find_with_state(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<Option<MySqlRow>, StoreError> {
        let text = self.sql.fill(WITH_STATE);
        Ok(self.sql.query(&text).bind(ids_json([(id, 0)])).fetch_optional(connection).await?)
    }

    /// Runs a statement with the id of one delivery as its only parameter.
    pub(super) async fn execute_for(
        &self,
        connection: &mut MySqlConnection,
        text: &str,
        id: DeliveryId,
    ) -> Result<(), StoreError> {
        self.sql.query(&self.sql.fill(text)).bind(id.as_uuid()).execute(connection).await?;
        Ok(())
    }

    /// Locks the delivery, so that no relay changes its state before the transaction ends.
    pub(super) async fn lock(&self, connection: &mut MySqlConnection, id: DeliveryId) -> Result<(), StoreError> {
        // The row in `deliveries` comes first, since it exists even if the queue has none.
        self.execute_for(connection, "SELECT 1 FROM {p}deliveries WHERE id = ? FOR UPDATE", id).await?;
        self.execute_for(connection, "SELECT 1 FROM {p}queue WHERE delivery_id = ? FOR UPDATE", id).await
    }

    pub(super) async fn read_outcomes_of(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<Vec<RecipientOutcome>, StoreError> {
        Ok(read_outcomes(connection, &self.sql, &[id]).await?.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn read_relays(&self, connection: &mut MySqlConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = "SELECT id, CAST({now} AS SIGNED) AS now, seen_at, in_flight, paused, host, paused_ms FROM {p}relays ORDER BY id";
        let text = self.sql.fill(text);
        let rows = self.sql.query(&text).bind(self.clock.test_micros()).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let seen_ago = row.number("now")?.saturating_sub(row.number("seen_at")?);
                let seen_ago = Duration::from_micros(to_u64(seen_ago));
                let in_flight = to_u64(row.number("in_flight")?);
                let id = row.text_or_null("id")?.unwrap_or_default();
                let status = RelayStatus::new(id, seen_ago, in_flight, row.text_or_null("paused")?);
                let paused_ms = row.number_or_null("paused_ms")?;
                let paused_for = paused_ms.map(|ms| Duration::from_millis(to_u64(ms)).saturating_add(seen_ago));
                Ok(RelayStatus { host: row.text_or_null("host")?, paused_for, ..status })
            })
            .collect()
    }

    async fn try_get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        // One snapshot, so that state and history are of the same moment.
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let Some(row) = self.find_with_state(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(None));
        };
        let text = self.sql.fill(
            "SELECT number, cycle, started_at, finished_at, outcome, scope, sure, charged, note, error, reply, provider_id, transport
             FROM {p}attempts WHERE delivery_id = ? ORDER BY number",
        );
        let attempts = self.sql.query(&text).bind(id.as_uuid()).fetch_all(&mut *tx).await?;
        let attempts = attempts.iter().map(read_attempt).collect();
        let outcomes = self.read_outcomes_of(&mut tx, id).await?;
        tx.rollback().await?;
        session.finish(Ok(Some(read_delivery(&row, id, attempts, &outcomes))))
    }

    async fn try_message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let text = self.sql.fill("SELECT format, `body`, `text`, html, blobs_size FROM {p}deliveries WHERE id = ?");
        let mut session = self.session().await?;
        // One snapshot, so that nobody deletes the blobs in between.
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *tx).await?;
        let carries = row.as_ref().is_some_and(|row| row.number("blobs_size").is_ok_and(|size| size > 0));
        let carriers: Vec<DeliveryId> = carries.then_some(id).into_iter().collect();
        let blobs = read_blobs(&mut tx, &self.sql, &carriers).await?;
        tx.rollback().await?;
        session.finish(Ok(()))?;
        // `None` if the delivery does not exist, or its message was deleted.
        let Some(row) = row.filter(|row| row.bytes("body").is_ok_and(|body| body.is_some())) else {
            return Ok(None);
        };
        match blobs.add_to(id, read_message(&row)?, carries) {
            (message, true) => Ok(Some(message)),
            (_, false) => Err(corrupt(BLOB_MISSING)),
        }
    }

    /// The start of the cycle of the oldest delivery whose charged attempts are all in doubt or lost. It looks only at cycles that started
    /// before `before`, and at the 1,000 oldest of these. The subquery is a scalar one, because a server could turn NOT EXISTS into a scan
    /// of the whole history.
    async fn oldest_in_doubt(
        &self,
        connection: &mut MySqlConnection,
        before: Option<i64>,
    ) -> Result<Option<i64>, StoreError> {
        let text = self.sql.fill(
            "SELECT MIN(q.cycle_started_at) AS started
             FROM (SELECT delivery_id, cycle, cycle_started_at FROM {p}queue
                   WHERE charged_attempts > 0 AND cycle_started_at < ?
                   ORDER BY cycle_started_at LIMIT 1000) q
             WHERE (SELECT a.number FROM {p}attempts a
                    WHERE a.delivery_id = q.delivery_id AND a.cycle = q.cycle AND a.charged
                        AND a.outcome IN ('transient', 'permanent') LIMIT 1) IS NULL",
        );
        self.sql.query(&text).bind(before.unwrap_or(i64::MAX)).fetch_one(connection).await?.number_or_null("started")
    }

    async fn try_stats(&self) -> Result<Stats, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let text = self.sql.fill(
            "SELECT COUNT(*) AS queued, COUNT(NULLIF(leased_at, 0)) AS leased, MIN(due_at) AS oldest_due, CAST({now} AS SIGNED) AS now,
                    MIN(cycle_started_at) AS oldest_waiting,
                    MIN(CASE WHEN charged_attempts = 0 THEN cycle_started_at END) AS oldest_uncharged,
                    CAST(COALESCE(SUM(leased_at = 0 AND due_at <= {now}), 0) AS SIGNED) AS due,
                    CAST(COALESCE(SUM(leased_at = 0 AND cycle_started_at > {now}), 0) AS SIGNED) AS scheduled
             FROM {p}queue",
        );
        let now = self.clock.test_micros();
        let row = self.sql.query(&text).bind(now).bind(now).bind(now).fetch_one(&mut *tx).await?;
        let text =
            self.sql.fill("SELECT state, CAST(SUM(`count`) AS SIGNED) AS deliveries FROM {p}totals GROUP BY state");
        let ended = self.sql.query(&text).fetch_all(&mut *tx).await?;
        let mut stats = read_counts(row.number("queued")?, row.number("leased")?, &ended)?;
        // Subtracted here, since the server fails if the result is out of range, and other programs may write any number as a time.
        let now = row.number("now")?;
        let ago = |time: Option<i64>| {
            time.filter(|time| *time <= now).map(|time| Duration::from_micros(to_u64(now.saturating_sub(time))))
        };
        stats.oldest_due = ago(row.number_or_null("oldest_due")?);
        stats.oldest_waiting = ago(row.number_or_null("oldest_waiting")?);
        let mut undeferred = row.number_or_null("oldest_uncharged")?;
        if undeferred != row.number_or_null("oldest_waiting")? {
            undeferred = self.oldest_in_doubt(&mut tx, undeferred).await?.or(undeferred);
        }
        stats.oldest_undeferred = ago(undeferred);
        stats.set_pending_parts(to_u64(row.number("due")?), to_u64(row.number("scheduled")?));
        stats.relays = self.read_relays(&mut tx).await?;
        tx.rollback().await?;
        session.finish(Ok(stats))
    }
}

impl AdminStore for MySqlStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.migrate_to_newest().await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        retry_conflicts(|| self.try_get(id)).await
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        retry_conflicts(|| self.try_message(id)).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let mut session = self.session().await?;
        let mut list = search::list(self.sql.prefix(), filter, self.clock.test_micros().is_none());
        let rows = list.build().persistent(false).fetch_all(&mut *session).await;
        let rows = session.finish(rows.map_err(StoreError::from))?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn search_end(&self, filter: &Filter, rows: u32) -> Result<Option<DeliveryId>, StoreError> {
        let ids_tell_time = self.clock.test_micros().is_none();
        let Some(mut end) = search::end(self.sql.prefix(), filter, rows, ids_tell_time) else { return Ok(None) };
        let mut session = self.session().await?;
        let row = end.build().persistent(false).fetch_optional(&mut *session).await;
        let row = session.finish(row.map_err(StoreError::from))?;
        row.map(|row| read_id(&row, "id")).transpose()
    }

    async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        let mut session = self.session().await?;
        let mut count = search::count(self.sql.prefix(), filter, self.clock.test_micros().is_none());
        let count = count.build_query_scalar::<i64>().persistent(false).fetch_one(&mut *session).await;
        session.finish(count.map_err(StoreError::from)).map(to_u64)
    }

    async fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let outcomes = retry_conflicts(|| self.try_change(change, from, ids, context)).await?;
        if change == Change::Resend && outcomes.contains(&UpdateOutcome::Updated) {
            crate::store::notify(&self.notifier);
        }
        Ok(outcomes)
    }

    async fn cancel_in(&self, connection: &mut MySqlConnection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.cancel_in_caller(connection, id).await
    }

    async fn find_key_in(&self, connection: &mut MySqlConnection, key: &str) -> Result<Option<DeliveryId>, StoreError> {
        let text = self.sql.fill("SELECT id FROM {p}deliveries WHERE `key` = ? AND key_until IS NULL");
        let found = self.sql.query(&text).bind(key.as_bytes().to_vec()).fetch_optional(connection).await?;
        found.map(|row| read_id(&row, "id")).transpose()
    }

    async fn set_pause(&self, target: &PauseTarget, paused: bool, context: &AuditContext) -> Result<bool, StoreError> {
        retry_conflicts(|| self.try_set_pause(target, paused, context)).await
    }

    async fn request_probe(&self, context: &AuditContext) -> Result<(), StoreError> {
        retry_conflicts(|| self.try_request_probe(context)).await
    }

    async fn record(&self, action: Action, context: &AuditContext) -> Result<(), StoreError> {
        self.try_record(action, context).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.try_audit(filter).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        retry_conflicts(|| self.try_stats()).await
    }

    async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        let text = self.sql.fill(
            "SELECT hour, event, transport, CAST(SUM(`count`) AS SIGNED) AS `count` FROM {p}hourly
             WHERE hour > ? GROUP BY hour, event, transport",
        );
        let mut session = self.session().await?;
        let after = to_micros(since).saturating_sub(HOUR * 1_000);
        let rows = self.sql.query(&text).bind(after).fetch_all(&mut *session).await;
        read_hourly(&session.finish(rows.map_err(StoreError::from))?)
    }

    async fn prune_step(&self, prune: &Prune, after: Option<DeliveryId>, limit: u32) -> Result<PruneStep, StoreError> {
        retry_conflicts(|| async {
            let mut session = self.session().await?;
            let step = prune::step(&mut session, &self.sql, prune, after, limit, self.clock.test_micros()).await;
            session.finish(step)
        })
        .await
    }

    async fn sweep_blobs(&self, limit: u32) -> Result<u64, StoreError> {
        retry_conflicts(|| async {
            let mut session = self.session().await?;
            let swept = prune::sweep_blobs(&mut session, &self.sql, limit).await;
            session.finish(swept)
        })
        .await
    }

    async fn erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        retry_conflicts(|| self.try_erase(id, recipient)).await
    }

    async fn lead(&self, task: &str, relay: RelayId, term: Duration) -> Result<bool, StoreError> {
        let insert = self.sql.fill("INSERT IGNORE INTO {p}leaders (task, relay, until) VALUES (?, ?, 0)");
        let update = self.sql.fill(
            "UPDATE {p}leaders SET until = {now} + ?, relay = ?
             WHERE task = ? AND (relay = ? OR until <= {now})",
        );
        retry_conflicts(|| async {
            let mut session = self.session().await?;
            let (now, id) = (self.clock.test_micros(), relay.to_string());
            self.sql.query(&insert).bind(task.to_owned()).bind(id.clone()).execute(&mut *session).await?;
            let update = self.sql.query(&update).bind(now).bind(micros(term)).bind(id.clone()).bind(task.to_owned());
            let done = update.bind(id).bind(now).execute(&mut *session).await;
            session.finish(done.map_err(StoreError::from)).map(|done| done.rows_affected() == 1)
        })
        .await
    }
}
