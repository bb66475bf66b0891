//! The operator methods.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded};

use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::PgStore;
use super::call::Call;
use super::rows::{read_id, read_outcomes};
use super::sql::Sql;
use crate::admin::{Filter, Prune, RelayStatus, Stats, UpdateOutcome};
use crate::clock::micros;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{
    Columns, Problems, count_states, read_attempt, read_delivery, read_enum, read_recipients, read_summary, to_u64,
};
use crate::store::session::retry_conflicts;
use crate::store::{AdminStore, RecipientOutcome, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent by its last attempt.
const WITH_STATE: &str = r#"
    SELECT d.id, d.created_at, d.template_id, d.key, d.priority::bigint, d.when_in_doubt, d.recipients::text AS recipients,
           CASE WHEN q.leased_at IS NULL THEN q.due_at ELSE q.lease_until END AS due_at, q.expires_at, e.reason,
           coalesce(q.cycle, e.cycle)::bigint AS cycle,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state
    FROM "{s}".deliveries d
    LEFT JOIN "{s}".queue q ON q.delivery_id = d.id
    LEFT JOIN "{s}".ended e ON e.delivery_id = d.id"#;

/// The condition for one state. It begins with the smallest table that knows the state.
fn where_state(state: Option<State>) -> &'static str {
    match state {
        None => "true",
        Some(State::Pending) => r#"d.id IN (SELECT delivery_id FROM "{s}".queue WHERE leased_at IS NULL)"#,
        Some(State::Leased) => r#"d.id IN (SELECT delivery_id FROM "{s}".queue WHERE leased_at IS NOT NULL)"#,
        Some(State::Sent) => "q.delivery_id IS NULL AND coalesce(e.state, 'sent') = 'sent'",
        Some(State::Dead) => r#"d.id IN (SELECT delivery_id FROM "{s}".ended WHERE state = 'dead')"#,
        Some(State::InDoubt) => r#"d.id IN (SELECT delivery_id FROM "{s}".ended WHERE state = 'in_doubt')"#,
        Some(State::Cancelled) => r#"d.id IN (SELECT delivery_id FROM "{s}".ended WHERE state = 'cancelled')"#,
    }
}

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
    fn fill(&self, text: &str) -> Arc<str> {
        Arc::from(self.sql.fill(text).as_str())
    }

    /// Finds the row of one delivery with its state.
    async fn find_with_state(&self, connection: &mut PgConnection, id: Uuid) -> Result<Option<PgRow>, StoreError> {
        let text = self.fill(&format!("{WITH_STATE} WHERE d.id = $1"));
        Ok(self.sql.query(&text).bind(id).fetch_optional(connection).await?)
    }

    /// Locks the delivery, so that no relay changes its state before the transaction ends.
    async fn lock(&self, connection: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
        // The row in `deliveries` comes first, since it exists even if the queue has none.
        for text in [
            r#"SELECT 1 FROM "{s}".deliveries WHERE id = $1 FOR NO KEY UPDATE"#,
            r#"SELECT 1 FROM "{s}".queue WHERE delivery_id = $1 FOR UPDATE"#,
        ] {
            self.sql.query(&self.fill(text)).bind(id).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Deletes in batches, so that no transaction grows long.
    async fn prune_state(&self, state: State, age: Duration, history_only: bool) -> Result<u64, StoreError> {
        let earlier = r#"EXISTS (SELECT 1 FROM "{s}".attempts a JOIN "{s}".attempts later USING (delivery_id)
                                 WHERE a.delivery_id = d.id AND later.number > a.number)"#;
        let history_filter = if history_only { earlier } else { "true" };
        let find = format!(
            r#"SELECT d.id FROM "{{s}}".deliveries d
               LEFT JOIN "{{s}}".queue q ON q.delivery_id = d.id LEFT JOIN "{{s}}".ended e ON e.delivery_id = d.id
               WHERE {} AND q.delivery_id IS NULL AND d.created_at < {{now}} - $2 * interval '1 microsecond' AND {history_filter}
               LIMIT 1000 FOR UPDATE OF d SKIP LOCKED"#,
            where_state(Some(state))
        );
        let find = self.fill(&find);
        // Checked again under the locks: a resend may have come between the search and the lock.
        let check = self.fill(
            r#"SELECT id FROM "{s}".deliveries d
               WHERE id = ANY($1) AND NOT EXISTS (SELECT 1 FROM "{s}".queue WHERE delivery_id = d.id)"#,
        );
        let delete = self.fill(if history_only {
            // The last attempt stays: a resend continues its number.
            r#"DELETE FROM "{s}".attempts a WHERE delivery_id = ANY($1)
               AND number < (SELECT max(number) FROM "{s}".attempts l WHERE l.delivery_id = a.delivery_id)"#
        } else {
            r#"DELETE FROM "{s}".deliveries WHERE id = ANY($1)"#
        });
        let mut affected = 0;
        loop {
            let pruned = retry_conflicts(|| async {
                let mut call = self.begin_transaction().await?;
                let pruned = async {
                    let (now, age) = (self.test_now(), micros(age));
                    let query = self.sql.scalar(&find).bind(now).bind(age);
                    let ids: Vec<Uuid> = query.fetch_all(&mut *call).await?;
                    if ids.is_empty() {
                        return Ok(None);
                    }
                    let ids: Vec<Uuid> = self.sql.scalar(&check).bind(ids).fetch_all(&mut *call).await?;
                    self.sql.query(&delete).bind(&ids).execute(&mut *call).await?;
                    Ok(Some(u64::try_from(ids.len()).unwrap_or(0)))
                };
                let pruned = pruned.await;
                call.finish(pruned).await
            });
            match pruned.await? {
                Some(count) => affected += count,
                None => return Ok(affected),
            }
        }
    }

    async fn read_relays(&self, connection: &mut PgConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = self.fill(r#"SELECT id, {now} AS now, seen_at, in_flight, paused FROM "{s}".relays ORDER BY id"#);
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

    async fn resend_in(&self, call: &mut PgConnection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let uuid = id.as_uuid();
        self.lock(call, uuid).await?;
        let Some(row) = self.find_with_state(call, uuid).await? else {
            return Ok(UpdateOutcome::NotFound);
        };
        let state: State = read_enum(&row, "state")?;
        if matches!(state, State::Pending | State::Leased) {
            return Ok(UpdateOutcome::Unchanged(state));
        }
        let outcomes = read_outcomes_of(call, &self.sql, uuid).await?;
        // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
        let kept = outcomes_kept_on_resend(state, &read_recipients(&row).unwrap_or_default(), &outcomes);
        let text = self.fill(r#"DELETE FROM "{s}".recipients WHERE delivery_id = $1"#);
        self.sql.query(&text).bind(uuid).execute(&mut *call).await?;
        self.sql
            .query(&self.sql.record_recipients)
            .bind(vec![uuid; kept.len()])
            .bind(kept.iter().map(|outcome| outcome.recipient.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|outcome| outcome.state.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|outcome| outcome.reply.as_deref()).collect::<Vec<_>>())
            .execute(&mut *call)
            .await?;
        // Token, attempts and cycle continue those of the last cycle: they are in the row of `ended` or, for a sent delivery, in its last
        // attempt. They stop below the largest value.
        let text = self.fill(
            r#"INSERT INTO "{s}".queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, partial)
               SELECT d.id, d.priority, octet_length(d.body), {now}, -1 - greatest(e.token, a.token, 0), greatest(e.attempts, a.number, 0),
                      least(greatest(e.cycle, a.cycle, 1), 2147483646) + 1, {now}, $3
               FROM "{s}".deliveries d
               LEFT JOIN "{s}".ended e ON e.delivery_id = d.id
               LEFT JOIN LATERAL (SELECT token, number, cycle FROM "{s}".attempts
                                  WHERE delivery_id = d.id ORDER BY number DESC LIMIT 1) a ON true
               WHERE d.id = $2"#,
        );
        self.sql.query(&text).bind(self.test_now()).bind(uuid).bind(!kept.is_empty()).execute(&mut *call).await?;
        let text = self.fill(r#"DELETE FROM "{s}".ended WHERE delivery_id = $1"#);
        self.sql.query(&text).bind(uuid).execute(&mut *call).await?;
        let notify =
            sqlx::query("SELECT pg_notify($1, '')").bind(self.sql.channel()).persistent(self.sql.is_prepared());
        notify.execute(&mut *call).await?;
        Ok(UpdateOutcome::Updated)
    }

    async fn cancel_in(&self, call: &mut PgConnection, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let uuid = id.as_uuid();
        self.lock(call, uuid).await?;
        let Some(row) = self.find_with_state(call, uuid).await? else {
            return Ok(UpdateOutcome::NotFound);
        };
        let state: State = read_enum(&row, "state")?;
        if state != State::Pending {
            return Ok(UpdateOutcome::Unchanged(state));
        }
        let text = self.fill(
            r#"WITH gone AS (DELETE FROM "{s}".queue WHERE delivery_id = $2 RETURNING *)
               INSERT INTO "{s}".ended (delivery_id, state, ended_at, token, attempts, cycle)
               SELECT delivery_id, 'cancelled', {now}, -1 - token, attempts, cycle FROM gone
               ON CONFLICT (delivery_id) DO UPDATE SET state = excluded.state, reason = NULL, ended_at = excluded.ended_at,
                   token = excluded.token, attempts = excluded.attempts, cycle = excluded.cycle"#,
        );
        self.sql.query(&text).bind(self.test_now()).bind(uuid).execute(&mut *call).await?;
        Ok(UpdateOutcome::Updated)
    }

    async fn stats_in(&self, call: &mut PgConnection) -> Result<Stats, StoreError> {
        let text = self.fill(
            r#"SELECT (SELECT count(*) FROM "{s}".deliveries) AS everything, count(*) AS queued, count(leased_at) AS leased,
                   {now} AS now, min(CASE WHEN leased_at IS NULL THEN due_at ELSE lease_until END) AS oldest_due
               FROM "{s}".queue"#,
        );
        let row = self.sql.query(&text).bind(self.test_now()).fetch_one(&mut *call).await?;
        let text = self.fill(r#"SELECT state, count(*) AS deliveries FROM "{s}".ended GROUP BY state"#);
        let ended = self.sql.query(&text).fetch_all(&mut *call).await?;
        let (everything, queued, leased) = (row.number("everything")?, row.number("queued")?, row.number("leased")?);
        let mut stats = count_states(everything, queued, leased, &ended)?;
        let now = row.time("now")?;
        stats.oldest_due = row.time_or_null("oldest_due")?.and_then(|due| now.duration_since(due).ok());
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
    RelayStatus::new(id, seen_ago, in_flight, problems.unwrap_or(row.text_or_null("paused"), None))
}

impl AdminStore for PgStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut call = self.begin_transaction().await?;
        let migrated = super::migrate::migrate(&mut call, &self.sql).await;
        call.finish(migrated).await
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
        let text = self.fill(r#"SELECT format, body FROM "{s}".deliveries WHERE id = $1"#);
        let row = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *call).await;
            call.finish(row.map_err(StoreError::from)).await
        });
        let row = row.await?;
        let message = |row: PgRow| Ok(Encoded { format: row.text("format")?.into(), body: row.text("body")?.into() });
        row.map(message).transpose()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let text = self.fill(&format!(
            r#"SELECT s.*, (SELECT count(*) FROM "{{s}}".attempts a WHERE a.delivery_id = s.id) AS attempts,
                   (SELECT a.error FROM "{{s}}".attempts a WHERE a.delivery_id = s.id ORDER BY number DESC LIMIT 1) AS last_error
               FROM ({WITH_STATE} WHERE {} AND ($1::uuid IS NULL OR d.id > $1) AND ($2::text IS NULL OR d.template_id = $2)
                     ORDER BY d.id LIMIT $3) s
               ORDER BY s.id"#,
            where_state(filter.state)
        ));
        let rows = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let query =
                self.sql.query(&text).bind(filter.after.map(|id| id.as_uuid())).bind(filter.template_id.clone());
            let rows = query.bind(i64::from(filter.limit)).fetch_all(&mut *call).await;
            call.finish(rows.map_err(StoreError::from)).await
        });
        let rows = rows.await?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let changed = self.retry_read(|| async {
            let mut call = self.begin_transaction().await?;
            let changed = self.resend_in(&mut call, id).await;
            commit_if_updated(call, changed).await
        });
        let changed = changed.await?;
        if changed == UpdateOutcome::Updated {
            self.notifier.notify();
        }
        Ok(changed)
    }

    async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let changed = self.retry_read(|| async {
            let mut call = self.begin_transaction().await?;
            let changed = self.cancel_in(&mut call, id).await;
            commit_if_updated(call, changed).await
        });
        changed.await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let stats = self.retry_read(|| async {
            let mut call = self.begin_snapshot().await?;
            let stats = self.stats_in(&mut call).await;
            call.finish(stats).await
        });
        stats.await
    }

    async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        let mut affected = 0;
        for state in prune.states.iter().filter(|state| !matches!(state, State::Pending | State::Leased)) {
            affected += self.prune_state(*state, prune.older_than, prune.history_only).await?;
        }
        Ok(affected)
    }
}
