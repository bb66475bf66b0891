//! The operator's side.

use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::PgStore;
use super::rows::{id, recorded};
use super::sql::Sql;
use crate::admin::{Changed, Delivery, Filter, Prune, RelayStatus, Stats, Summary};
use crate::clock::{from_micros, micros};
use crate::delivery::RecipientOutcome;
use crate::state::State;
use crate::store::recipients::kept_on_resend;
use crate::store::sql::{Columns, attempt, delivery, recipients, stats, summary, unsigned, word};
use crate::store::{AdminStore, StoreError};

/// Every delivery with its state. What stands in neither table was sent by its last attempt.
const WITH_STATE: &str = r#"
    SELECT d.id, (extract(epoch FROM d.created_at) * 1000000)::bigint AS created_at, d.template_id, d.key,
           d.priority::bigint, d.when_in_doubt, d.recipients::text AS recipients,
           (extract(epoch FROM CASE WHEN q.leased_at IS NULL THEN q.due_at ELSE q.lease_until END) * 1000000)::bigint AS due_at,
           (extract(epoch FROM q.expires_at) * 1000000)::bigint AS expires_at, e.reason,
           coalesce(q.cycle, e.cycle)::bigint AS cycle,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state
    FROM "{s}".deliveries d
    LEFT JOIN "{s}".queue q ON q.delivery_id = d.id
    LEFT JOIN "{s}".ended e ON e.delivery_id = d.id"#;

/// What narrows a list to one state, beginning with the smallest table that knows it.
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

async fn outcomes(connection: &mut PgConnection, sql: &Sql, id: Uuid) -> Result<Vec<RecipientOutcome>, StoreError> {
    Ok(recorded(connection, sql, &[id]).await?.into_iter().map(|(_, outcome)| outcome).collect())
}

impl PgStore {
    fn text(&self, text: &str) -> Arc<str> {
        Arc::from(self.sql.fill(text).as_str())
    }

    /// The row of one delivery with its state.
    async fn find(&self, connection: &mut PgConnection, id: Uuid) -> Result<Option<PgRow>, StoreError> {
        let text = self.text(&format!("{WITH_STATE} WHERE d.id = $1"));
        Ok(self.sql.query(&text).bind(id).fetch_optional(connection).await?)
    }

    /// Takes the row of the queue, if there is one, so that no relay changes the delivery's state before the transaction ends.
    async fn lock(&self, connection: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
        // The delivery's own row comes first: it is there also when the queue has none.
        for text in [
            r#"SELECT 1 FROM "{s}".deliveries WHERE id = $1 FOR NO KEY UPDATE"#,
            r#"SELECT 1 FROM "{s}".queue WHERE delivery_id = $1 FOR UPDATE"#,
        ] {
            self.sql.query(&self.text(text)).bind(id).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Deletes in portions, so that no transaction grows long.
    async fn prune_state(&self, state: State, age: Duration, history_only: bool) -> Result<u64, StoreError> {
        let earlier = r#"EXISTS (SELECT 1 FROM "{s}".attempts a JOIN "{s}".attempts later USING (delivery_id)
                                 WHERE a.delivery_id = d.id AND later.number > a.number)"#;
        let narrowed = if history_only { earlier } else { "true" };
        let portion = format!(
            r#"SELECT d.id FROM "{{s}}".deliveries d
               LEFT JOIN "{{s}}".queue q ON q.delivery_id = d.id LEFT JOIN "{{s}}".ended e ON e.delivery_id = d.id
               WHERE {} AND q.delivery_id IS NULL AND d.created_at < {{now}} - $2 * interval '1 microsecond' AND {narrowed}
               LIMIT 1000 FOR UPDATE OF d SKIP LOCKED"#,
            where_state(Some(state))
        );
        let portion = self.text(&portion);
        // The last attempt stays with a delivery that stays: the numbers of a resend go on from it.
        // Asked again under the locks: a resend may have come between the first look and the lock.
        let finished = self.text(
            r#"SELECT id FROM "{s}".deliveries d
               WHERE id = ANY($1) AND NOT EXISTS (SELECT 1 FROM "{s}".queue WHERE delivery_id = d.id)"#,
        );
        let delete = self.text(if history_only {
            // The last attempt stays with a delivery that stays: the numbers of a resend go on from it.
            r#"DELETE FROM "{s}".attempts a WHERE delivery_id = ANY($1)
               AND number < (SELECT max(number) FROM "{s}".attempts l WHERE l.delivery_id = a.delivery_id)"#
        } else {
            r#"DELETE FROM "{s}".deliveries WHERE id = ANY($1)"#
        });
        let mut affected = 0;
        loop {
            let mut tx = self.pool.begin().await?;
            let (now, age) = (self.test_now(), micros(age));
            let ids: Vec<Uuid> = self.sql.scalar(&portion).bind(now).bind(age).fetch_all(&mut *tx).await?;
            if ids.is_empty() {
                return Ok(affected);
            }
            let ids: Vec<Uuid> = self.sql.scalar(&finished).bind(ids).fetch_all(&mut *tx).await?;
            self.sql.query(&delete).bind(&ids).execute(&mut *tx).await?;
            tx.commit().await?;
            affected += u64::try_from(ids.len()).unwrap_or(0);
        }
    }

    async fn relays(&self, connection: &mut PgConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = self.text(
            r#"SELECT id, (extract(epoch FROM {now} - seen_at) * 1000000)::bigint AS seen_ago, in_flight, paused
               FROM "{s}".relays ORDER BY id"#,
        );
        let rows = self.sql.query(&text).bind(self.test_now()).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let seen_ago = Duration::from_micros(unsigned(row.try_get("seen_ago")?));
                let in_flight = unsigned(row.try_get("in_flight")?);
                Ok(RelayStatus::new(row.try_get("id")?, seen_ago, in_flight, row.try_get("paused")?))
            })
            .collect()
    }
}

impl AdminStore for PgStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        super::migrate::migrate(&self.pool, &self.sql).await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        // One snapshot: the state and the history must be of the same moment.
        let mut tx = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        let uuid = id.as_uuid();
        let Some(row) = self.find(&mut tx, uuid).await? else {
            return Ok(None);
        };
        let text = self.text(
            r#"SELECT number::bigint, cycle::bigint, outcome, transport_fault, error, reply, provider_id, transport,
                      (extract(epoch FROM started_at) * 1000000)::bigint AS started_at,
                      (extract(epoch FROM finished_at) * 1000000)::bigint AS finished_at
               FROM "{s}".attempts WHERE delivery_id = $1 ORDER BY number"#,
        );
        let attempts = self.sql.query(&text).bind(uuid).fetch_all(&mut *tx).await?;
        let attempts = attempts.iter().map(|row| attempt(row, from_micros)).collect::<Result<_, _>>()?;
        let outcomes = outcomes(&mut tx, &self.sql, uuid).await?;
        delivery(&row, id, attempts, &outcomes, from_micros).map(Some)
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let text = self.text(r#"SELECT format, body FROM "{s}".deliveries WHERE id = $1"#);
        let mut session = self.session().await?;
        let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *session).await?;
        session.finish().await?;
        row.map(|row| Ok(Encoded { format: row.try_get("format")?, body: row.try_get("body")? })).transpose()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Summary>, StoreError> {
        let text = self.text(&format!(
            r#"SELECT s.*, (SELECT count(*) FROM "{{s}}".attempts a WHERE a.delivery_id = s.id) AS attempts,
                   (SELECT a.error FROM "{{s}}".attempts a WHERE a.delivery_id = s.id ORDER BY number DESC LIMIT 1) AS last_error
               FROM ({WITH_STATE} WHERE {} AND ($1::uuid IS NULL OR d.id > $1) AND ($2::text IS NULL OR d.template_id = $2)
                     ORDER BY d.id LIMIT $3) s
               ORDER BY s.id"#,
            where_state(filter.state)
        ));
        let mut session = self.session().await?;
        let rows = self
            .sql
            .query(&text)
            .bind(filter.after.map(|id| id.as_uuid()))
            .bind(&filter.template_id)
            .bind(i64::from(filter.limit))
            .fetch_all(&mut *session)
            .await?;
        session.finish().await?;
        rows.iter().map(|row| summary(row, id(row, "id")?, from_micros)).collect()
    }

    async fn resend(&self, id: DeliveryId) -> Result<Changed, StoreError> {
        let uuid = id.as_uuid();
        let mut tx = self.pool.begin().await?;
        self.lock(&mut tx, uuid).await?;
        let Some(row) = self.find(&mut tx, uuid).await? else {
            tx.rollback().await?;
            return Ok(Changed::NotFound);
        };
        let state: State = word(&row, "state")?;
        if matches!(state, State::Pending | State::Leased) {
            // At once, not whenever the connection is next used: a claim passes by rows that are locked.
            tx.rollback().await?;
            return Ok(Changed::LeftAs(state));
        }
        let outcomes = outcomes(&mut tx, &self.sql, uuid).await?;
        let kept = kept_on_resend(state, &recipients(&row)?, &outcomes);
        let text = self.text(r#"DELETE FROM "{s}".recipients WHERE delivery_id = $1"#);
        self.sql.query(&text).bind(uuid).execute(&mut *tx).await?;
        self.sql
            .query(&self.sql.record_recipients)
            .bind(vec![uuid; kept.len()])
            .bind(kept.iter().map(|outcome| outcome.recipient.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|outcome| outcome.state.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|outcome| outcome.reply.as_deref()).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
        // The counts go on from where the delivery ended: in its row, or, of a sent one, in its last attempt.
        let text = self.text(
            r#"INSERT INTO "{s}".queue (delivery_id, priority, due_at, token, attempts, cycle, cycle_started_at, partial)
               SELECT d.id, d.priority, {now}, -1 - greatest(e.token, a.token, 0), greatest(e.attempts, a.number, 0),
                      greatest(e.cycle, a.cycle, 1) + 1, {now}, $3
               FROM "{s}".deliveries d
               LEFT JOIN "{s}".ended e ON e.delivery_id = d.id
               LEFT JOIN LATERAL (SELECT token, number, cycle FROM "{s}".attempts
                                  WHERE delivery_id = d.id ORDER BY number DESC LIMIT 1) a ON true
               WHERE d.id = $2"#,
        );
        self.sql.query(&text).bind(self.test_now()).bind(uuid).bind(!kept.is_empty()).execute(&mut *tx).await?;
        let text = self.text(r#"DELETE FROM "{s}".ended WHERE delivery_id = $1"#);
        self.sql.query(&text).bind(uuid).execute(&mut *tx).await?;
        let ring = sqlx::query("SELECT pg_notify($1, '')").bind(self.sql.channel()).persistent(self.sql.is_prepared());
        ring.execute(&mut *tx).await?;
        tx.commit().await?;
        self.bell.ring();
        Ok(Changed::Done)
    }

    async fn cancel(&self, id: DeliveryId) -> Result<Changed, StoreError> {
        let uuid = id.as_uuid();
        let mut tx = self.pool.begin().await?;
        self.lock(&mut tx, uuid).await?;
        let Some(row) = self.find(&mut tx, uuid).await? else {
            tx.rollback().await?;
            return Ok(Changed::NotFound);
        };
        let state: State = word(&row, "state")?;
        if state != State::Pending {
            // At once, not whenever the connection is next used: a claim passes by rows that are locked.
            tx.rollback().await?;
            return Ok(Changed::LeftAs(state));
        }
        let text = self.text(
            r#"WITH gone AS (DELETE FROM "{s}".queue WHERE delivery_id = $2 RETURNING *)
               INSERT INTO "{s}".ended (delivery_id, state, ended_at, token, attempts, cycle)
               SELECT delivery_id, 'cancelled', {now}, -1 - token, attempts, cycle FROM gone"#,
        );
        self.sql.query(&text).bind(self.test_now()).bind(uuid).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Changed::Done)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let mut tx = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        let text = self.text(
            r#"SELECT (SELECT count(*) FROM "{s}".deliveries) AS everything, count(*) AS queued, count(leased_at) AS leased,
                   (extract(epoch FROM {now} - min(CASE WHEN leased_at IS NULL THEN due_at ELSE lease_until END)) * 1000000)::bigint
                       AS oldest_due
               FROM "{s}".queue"#,
        );
        let row = self.sql.query(&text).bind(self.test_now()).fetch_one(&mut *tx).await?;
        let text = self.text(r#"SELECT state, count(*) AS deliveries FROM "{s}".ended GROUP BY state"#);
        let ended = self.sql.query(&text).fetch_all(&mut *tx).await?;
        let (everything, queued, leased) = (row.number("everything")?, row.number("queued")?, row.number("leased")?);
        let mut stats = stats(everything, queued, leased, &ended)?;
        let oldest_due = row.number_or_null("oldest_due")?.filter(|due| *due >= 0);
        stats.oldest_due = oldest_due.map(|due| Duration::from_micros(unsigned(due)));
        stats.relays = self.relays(&mut tx).await?;
        Ok(stats)
    }

    async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        let mut affected = 0;
        for state in prune.states.iter().filter(|state| !matches!(state, State::Pending | State::Leased)) {
            affected += self.prune_state(*state, prune.older_than, prune.history_only).await?;
        }
        Ok(affected)
    }
}
