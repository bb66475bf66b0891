//! The methods for operators.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient};

use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::PgStore;
use super::blobs::read_blobs;
use super::call::Call;
use super::rows::{Moment, read_id, read_outcomes};
use super::sql::Sql;
use super::{prune, search};
use crate::admin::{HourlyCount, RelayStatus, Stats, UpdateOutcome};
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::clock::micros;
use crate::delivery::{Delivery, DeliverySummary};
use crate::filter::Filter;
use crate::operator::Change;
use crate::pause::PauseTarget;
use crate::prune::{Prune, PruneStep};
use crate::state::State;
use crate::store::blobs::{BLOB_MISSING, add_blobs};
use crate::store::row::{
    Columns, Problems, corrupt, read_attempt, read_counts, read_delivery, read_hourly, read_summary, to_u64,
};
use crate::store::session::retry_conflicts;
use crate::store::{AdminStore, RecipientOutcome, RelayId, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent by its last attempt.
pub(super) const WITH_STATE: &str = r#"
    SELECT d.id, d.created_at, d.subject, d.template_id, d.tags::text AS tags, d.key, d.priority::bigint, d.when_in_doubt, d.recipients::text AS recipients,
           left(d.traceparent, 56) AS traceparent,
           CASE WHEN q.leased_at IS NULL THEN q.due_at ELSE q.lease_until END AS due_at, q.expires_at, e.reason, e.ended_at,
           coalesce(q.cycle, e.cycle)::bigint AS cycle,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state
    FROM "{s}".deliveries d
    LEFT JOIN "{s}".queue q ON q.delivery_id = d.id
    LEFT JOIN "{s}".ended e ON e.delivery_id = d.id"#;

/// Commits a change. Without a change it rolls back, which releases the locks at once.
async fn commit_if_updated(
    call: Call,
    changed: Result<UpdateOutcome, StoreError>,
) -> Result<UpdateOutcome, StoreError> {
    match changed {
        Ok(UpdateOutcome::Updated) | Err(_) => call.finish(changed).await,
        Ok(unchanged) => call.roll_back(unchanged).await,
    }
}

async fn read_outcomes_of(
    connection: &mut PgConnection,
    sql: &Sql,
    id: Uuid,
) -> Result<Vec<RecipientOutcome>, StoreError> {
    Ok(read_outcomes(connection, sql, &[id]).await?.into_iter().map(|(_, outcome)| outcome).collect())
}

impl PgStore {
    pub(super) fn fill(&self, text: &str) -> Arc<str> {
        Arc::from(self.sql.fill(text).as_str())
    }

    /// Finds the row of one delivery with its state.
    pub(super) async fn find_with_state(
        &self,
        connection: &mut PgConnection,
        id: Uuid,
    ) -> Result<Option<PgRow>, StoreError> {
        let text = self.fill(&format!("{WITH_STATE} WHERE d.id = $1 AND d.key_until IS NULL"));
        Ok(self.sql.query(&text).bind(id).fetch_optional(connection).await?)
    }

    /// Locks the delivery, so that no relay changes its state before the transaction ends.
    pub(super) async fn lock(&self, connection: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
        // The row in `deliveries` comes first, since it exists even if the queue has none.
        for text in [
            r#"SELECT 1 FROM "{s}".deliveries WHERE id = $1 FOR NO KEY UPDATE"#,
            r#"SELECT 1 FROM "{s}".queue WHERE delivery_id = $1 FOR UPDATE"#,
        ] {
            self.sql.query(&self.fill(text)).bind(id).execute(&mut *connection).await?;
        }
        Ok(())
    }

    async fn read_relays(&self, connection: &mut PgConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = self.fill(
            r#"SELECT id, {now} AS now, seen_at, in_flight, paused, host, paused_ms FROM "{s}".relays ORDER BY id"#,
        );
        let rows = self.sql.query(&text).bind(self.test_now()).fetch_all(connection).await?;
        Ok(rows.iter().map(read_relay).collect())
    }

    async fn get_in(&self, connection: &mut PgConnection, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        let uuid = id.as_uuid();
        let Some(row) = self.find_with_state(connection, uuid).await? else {
            return Ok(None);
        };
        let text = self.fill(
            r#"SELECT number::bigint, cycle::bigint, outcome::text, scope::text, sure, charged, note, error, reply, provider_id, transport,
                      started_at, finished_at
               FROM "{s}".attempts WHERE delivery_id = $1 ORDER BY number"#,
        );
        let attempts = self.sql.query(&text).bind(uuid).fetch_all(&mut *connection).await?;
        let attempts = attempts.iter().map(read_attempt).collect();
        let outcomes = read_outcomes_of(connection, &self.sql, uuid).await?;
        Ok(Some(read_delivery(&row, id, attempts, &outcomes)))
    }

    async fn message_in(&self, call: &mut PgConnection, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let uuid = id.as_uuid();
        let text = self.fill(r#"SELECT format, body, text, html FROM "{s}".bodies WHERE delivery_id = $1"#);
        let Some(row) = self.sql.query(&text).bind(uuid).fetch_optional(&mut *call).await? else {
            return Ok(None);
        };
        let mut message = Encoded::new(row.text("format")?, row.text("body")?);
        message.text = row.text_or_null("text")?;
        message.html = row.text_or_null("html")?;
        let (carried, blobs) = read_blobs(call, &self.sql, &[uuid]).await?;
        if let Some(hashes) = carried.get(&uuid)
            && !add_blobs(&mut message, hashes, &blobs)
        {
            return Err(corrupt(BLOB_MISSING));
        }
        Ok(Some(message))
    }

    /// The start of the cycle of the oldest delivery whose charged attempts are all in doubt or lost. It looks only at cycles that started
    /// before `before`, and at the 1,000 oldest of these. The subquery is a scalar one, because a server could turn NOT EXISTS into a scan
    /// of the whole history.
    async fn oldest_in_doubt(
        &self,
        call: &mut PgConnection,
        before: Option<SystemTime>,
    ) -> Result<Option<SystemTime>, StoreError> {
        let text = self.fill(
            r#"SELECT min(q.cycle_started_at) AS started
               FROM (SELECT delivery_id, cycle, cycle_started_at FROM "{s}".queue
                     WHERE charged_attempts > 0 AND cycle_started_at < coalesce($1, 'infinity')
                     ORDER BY cycle_started_at LIMIT 1000) q
               WHERE (SELECT a.number FROM "{s}".attempts a
                      WHERE a.delivery_id = q.delivery_id AND a.cycle = q.cycle AND a.charged
                          AND a.outcome IN ('transient', 'permanent') LIMIT 1) IS NULL"#,
        );
        let row = self.sql.query(&text).bind(before.map(Moment)).fetch_one(call).await?;
        row.time_or_null("started")
    }

    async fn stats_in(&self, call: &mut PgConnection) -> Result<Stats, StoreError> {
        let text = self.fill(
            r#"SELECT count(*) AS queued, count(leased_at) AS leased, {now} AS now,
                   min(CASE WHEN leased_at IS NULL THEN due_at ELSE lease_until END) AS oldest_due,
                   min(cycle_started_at) AS oldest_waiting,
                   min(cycle_started_at) FILTER (WHERE charged_attempts = 0) AS oldest_uncharged,
                   count(*) FILTER (WHERE leased_at IS NULL AND due_at <= {now}) AS due,
                   count(*) FILTER (WHERE leased_at IS NULL AND cycle_started_at > {now}) AS scheduled
               FROM "{s}".queue"#,
        );
        let row = self.sql.query(&text).bind(self.test_now()).fetch_one(&mut *call).await?;
        let text = self.fill(r#"SELECT state, sum(count)::bigint AS deliveries FROM "{s}".totals GROUP BY state"#);
        let ended = self.sql.query(&text).fetch_all(&mut *call).await?;
        let mut stats = read_counts(row.number("queued")?, row.number("leased")?, &ended)?;
        let now = row.time("now")?;
        let ago = |time: Option<SystemTime>| time.and_then(|time| now.duration_since(time).ok());
        stats.oldest_due = ago(row.time_or_null("oldest_due")?);
        stats.oldest_waiting = ago(row.time_or_null("oldest_waiting")?);
        let mut undeferred = row.time_or_null("oldest_uncharged")?;
        if undeferred != row.time_or_null("oldest_waiting")? {
            undeferred = self.oldest_in_doubt(call, undeferred).await?.or(undeferred);
        }
        stats.oldest_undeferred = ago(undeferred);
        stats.set_pending_parts(to_u64(row.number("due")?), to_u64(row.number("scheduled")?));
        stats.relays = self.read_relays(call).await?;
        Ok(stats)
    }
}

/// The status of a relay. Malformed columns, which another program may have written, get default values.
fn read_relay(row: &PgRow) -> RelayStatus {
    let mut problems = Problems::default();
    let now = problems.unwrap_or(row.time("now"), SystemTime::UNIX_EPOCH);
    let seen_ago = now.duration_since(problems.unwrap_or(row.time("seen_at"), now)).unwrap_or_default();
    let in_flight = to_u64(problems.unwrap_or(row.number("in_flight"), 0));
    let id = problems.unwrap_or(row.text_or_null("id"), None).unwrap_or_default();
    let host = problems.unwrap_or(row.text_or_null("host"), None);
    let paused = problems.unwrap_or(row.text_or_null("paused"), None);
    let paused_ms = problems.unwrap_or(row.number_or_null("paused_ms"), None);
    let paused_for = paused_ms.map(|ms| Duration::from_millis(to_u64(ms)).saturating_add(seen_ago));
    RelayStatus { host, paused_for, ..RelayStatus::new(id, seen_ago, in_flight, paused) }
}

impl AdminStore for PgStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.migrate_to_newest().await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        // One snapshot, so that state and history are of the same moment.
        let found = self.retry_read(|| async {
            let mut call = self.begin_snapshot().await?;
            let found = self.get_in(&mut call, id).await;
            call.finish(found).await
        });
        found.await
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let message = self.retry_read(|| async {
            let mut call = self.begin_snapshot().await?;
            let message = self.message_in(&mut call, id).await;
            call.finish(message).await
        });
        message.await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let rows = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let mut list = search::list(self.sql.schema(), filter, self.test_now().is_none());
            let rows = list.build().persistent(false).fetch_all(&mut *call).await;
            call.finish(rows.map_err(StoreError::from)).await
        });
        let rows = rows.await?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn search_end(&self, filter: &Filter, rows: u32) -> Result<Option<DeliveryId>, StoreError> {
        let ids_tell_time = self.test_now().is_none();
        if search::end(self.sql.schema(), filter, rows, ids_tell_time).is_none() {
            return Ok(None);
        }
        let end = self.retry_read(|| async {
            let Some(mut end) = search::end(self.sql.schema(), filter, rows, ids_tell_time) else { return Ok(None) };
            let mut call = self.begin_call().await?;
            let id = end.build_query_scalar::<Uuid>().persistent(false).fetch_optional(&mut *call).await;
            call.finish(id.map_err(StoreError::from)).await
        });
        Ok(end.await?.map(DeliveryId::from))
    }

    async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        let count = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let mut count = search::count(self.sql.schema(), filter, self.test_now().is_none());
            let count = count.build_query_scalar::<i64>().persistent(false).fetch_one(&mut *call).await;
            call.finish(count.map_err(StoreError::from)).await
        });
        count.await.map(to_u64)
    }

    async fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let outcomes = self.retry_read(|| self.change_once(change, from, ids, context)).await?;
        if change == Change::Resend && outcomes.contains(&UpdateOutcome::Updated) {
            self.notifier.notify();
        }
        Ok(outcomes)
    }

    async fn cancel_in(&self, connection: &mut PgConnection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let outcomes = self.change_in(connection, Change::Cancel, None, &[id], None).await?;
        Ok(outcomes.first().copied().unwrap_or(UpdateOutcome::NotFound))
    }

    async fn find_key_in(&self, connection: &mut PgConnection, key: &str) -> Result<Option<DeliveryId>, StoreError> {
        let text = self.fill(r#"SELECT id FROM "{s}".deliveries WHERE key = $1 AND key_until IS NULL"#);
        let found: Option<Uuid> = self.sql.scalar(&text).bind(key).fetch_optional(connection).await?;
        Ok(found.map(Into::into))
    }

    async fn set_pause(&self, target: &PauseTarget, paused: bool, context: &AuditContext) -> Result<bool, StoreError> {
        retry_conflicts(|| async {
            let mut call = self.begin_transaction().await?;
            let changed = self.set_pause_in(&mut call, target, paused, context).await;
            call.finish(changed).await
        })
        .await
    }

    async fn request_probe(&self, context: &AuditContext) -> Result<(), StoreError> {
        retry_conflicts(|| async {
            let mut call = self.begin_transaction().await?;
            let requested = self.request_probe_in(&mut call, context).await;
            call.finish(requested).await
        })
        .await
    }

    async fn record(&self, action: Action, context: &AuditContext) -> Result<(), StoreError> {
        let mut call = self.begin_transaction().await?;
        let recorded = self.record_in(&mut call, action, context).await;
        call.finish(recorded).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let entries = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let entries = self.audit_in(&mut call, filter).await;
            call.finish(entries).await
        });
        entries.await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let stats = self.retry_read(|| async {
            let mut call = self.begin_snapshot().await?;
            let stats = self.stats_in(&mut call).await;
            call.finish(stats).await
        });
        stats.await
    }

    async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        let text = self.fill(
            r#"SELECT hour, event, transport, sum(count)::bigint AS count FROM "{s}".hourly
               WHERE hour > $1 - interval '1 hour' GROUP BY hour, event, transport ORDER BY hour, event, transport"#,
        );
        let rows = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let rows = self.sql.query(&text).bind(Moment(since)).fetch_all(&mut *call).await;
            call.finish(rows.map_err(StoreError::from)).await
        });
        read_hourly(&rows.await?)
    }

    async fn prune_step(&self, prune: &Prune, after: Option<DeliveryId>, limit: u32) -> Result<PruneStep, StoreError> {
        retry_conflicts(|| async {
            let mut call = self.begin_transaction().await?;
            let step = prune::step(&mut call, &self.sql, prune, after, limit, self.test_now()).await;
            call.finish(step).await
        })
        .await
    }

    async fn sweep_blobs(&self, limit: u32) -> Result<u64, StoreError> {
        retry_conflicts(|| async {
            let mut call = self.begin_transaction().await?;
            let swept = prune::sweep_blobs(&mut call, &self.sql, limit).await;
            call.finish(swept).await
        })
        .await
    }

    async fn erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        let changed = self.retry_read(|| async {
            let mut call = self.begin_transaction().await?;
            let changed = self.erase_in(&mut call, id, recipient).await;
            commit_if_updated(call, changed).await
        });
        changed.await
    }

    async fn lead(&self, task: &str, relay: RelayId, term: Duration) -> Result<bool, StoreError> {
        let text = self.fill(
            r#"INSERT INTO "{s}".leaders AS l (task, relay, until) VALUES ($2, $3, {now} + $4 * interval '1 microsecond')
               ON CONFLICT (task) DO UPDATE SET relay = excluded.relay, until = excluded.until
               WHERE l.relay = excluded.relay OR l.until <= {now}"#,
        );
        retry_conflicts(|| async {
            let mut call = self.begin_call().await?;
            let query = self.sql.query(&text).bind(self.test_now()).bind(task).bind(relay.to_string());
            let done = query.bind(micros(term)).execute(&mut *call).await;
            call.finish(done.map_err(StoreError::from)).await.map(|done| done.rows_affected() == 1)
        })
        .await
    }
}
