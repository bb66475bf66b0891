//! The operator methods.

use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Sqlite, Transaction};

use super::SqliteStore;
use super::rows::{ids_as_json, read_id, read_outcomes};
use crate::admin::{Filter, Prune, RelayStatus, Stats, UpdateOutcome};
use crate::clock::millis;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{
    Columns, Problems, count_states, read_attempt, read_delivery, read_enum, read_recipients, read_summary, to_u64,
};
use crate::store::session::{Session, retry_conflicts};
use crate::store::{AdminStore, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent.
const WITH_STATE: &str = "
    SELECT d.id, d.created_at, d.template_id, d.key, d.priority, d.when_in_doubt, d.recipients, q.due_at,
           q.expires_at, e.reason,
           coalesce(q.cycle, e.cycle) AS cycle,
           CASE WHEN q.leased_at IS NOT NULL THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE coalesce(e.state, 'sent') END AS state
    FROM postrider_deliveries d
    LEFT JOIN postrider_queue q ON q.delivery_id = d.id
    LEFT JOIN postrider_ended e ON e.delivery_id = d.id";

fn elapsed(then: i64, now: i64) -> Duration {
    Duration::from_millis(to_u64(now.saturating_sub(then)))
}

/// The condition for one state. It begins with the smallest table that knows the state.
fn where_state(state: Option<State>) -> &'static str {
    match state {
        None => "true",
        Some(State::Pending) => "d.id IN (SELECT delivery_id FROM postrider_queue WHERE leased_at IS NULL)",
        Some(State::Leased) => "d.id IN (SELECT delivery_id FROM postrider_queue WHERE leased_at IS NOT NULL)",
        Some(State::Sent) => "q.delivery_id IS NULL AND coalesce(e.state, 'sent') = 'sent'",
        Some(State::Dead) => "d.id IN (SELECT delivery_id FROM postrider_ended WHERE state = 'dead')",
        Some(State::InDoubt) => "d.id IN (SELECT delivery_id FROM postrider_ended WHERE state = 'in_doubt')",
        Some(State::Cancelled) => "d.id IN (SELECT delivery_id FROM postrider_ended WHERE state = 'cancelled')",
    }
}

/// Finds the row of one delivery with its state.
async fn find_with_state(connection: &mut SqliteConnection, id: &str) -> Result<Option<SqliteRow>, StoreError> {
    let sql = format!("{WITH_STATE} WHERE d.id = ?1");
    Ok(sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(connection).await?)
}

impl AdminStore for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let migrated = super::migrate::migrate(&mut session).await;
        session.finish(migrated)
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
            let attempts = sqlx::query("SELECT * FROM postrider_attempts WHERE delivery_id = ?1 ORDER BY number")
                .bind(&text)
                .fetch_all(&mut *tx)
                .await?;
            let attempts = attempts.iter().map(read_attempt).collect();
            let outcomes = read_outcomes(&mut tx, &text).await?;
            Ok(Some(read_delivery(&row, id, attempts, &outcomes)))
        };
        let found = found.await;
        session.finish(found)
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let query = sqlx::query("SELECT format, body FROM postrider_deliveries WHERE id = ?1").bind(id.to_string());
        let row = query.fetch_optional(&mut *session).await;
        let row = session.finish(row.map_err(StoreError::from))?;
        row.map(|row| Ok(Encoded { format: row.text("format")?.into(), body: row.text("body")?.into() })).transpose()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let sql = format!(
            "SELECT s.*,
                 (SELECT count(*) FROM postrider_attempts a WHERE a.delivery_id = s.id) AS attempts,
                 (SELECT a.error FROM postrider_attempts a WHERE a.delivery_id = s.id ORDER BY number DESC LIMIT 1) AS last_error
             FROM ({WITH_STATE} WHERE {} AND (?1 IS NULL OR d.id > ?1) AND (?2 IS NULL OR d.template_id = ?2)
                   ORDER BY d.id LIMIT ?3) s
             ORDER BY s.id",
            where_state(filter.state)
        );
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(filter.after.map(|id| id.to_string()))
            .bind(&filter.template_id)
            .bind(i64::from(filter.limit))
            .fetch_all(&mut *session)
            .await;
        let rows = session.finish(rows.map_err(StoreError::from))?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let (text, now) = (id.to_string(), self.clock.now_millis());
        let changed = retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let changed = async {
                let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
                let changed = resend(&mut tx, &text, now).await?;
                commit_if_updated(tx, changed).await
            };
            let changed = changed.await;
            session.finish(changed)
        });
        let changed = changed.await?;
        if changed == UpdateOutcome::Updated {
            crate::store::notify(&self.notifier);
        }
        Ok(changed)
    }

    async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let (text, now) = (id.to_string(), self.clock.now_millis());
        let changed = retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let changed = async {
                let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
                let changed = cancel(&mut tx, &text, now).await?;
                commit_if_updated(tx, changed).await
            };
            let changed = changed.await;
            session.finish(changed)
        });
        changed.await
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

    async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        let before = self.clock.now_millis().saturating_sub(millis(prune.older_than));
        let mut affected = 0;
        for state in prune.states.iter().filter(|state| !matches!(state, State::Pending | State::Leased)) {
            affected += self.prune_state(*state, before, prune.history_only).await?;
        }
        Ok(affected)
    }
}

/// Commits a change. Without a change it rolls back, so that other writers can go on at once.
async fn commit_if_updated(tx: Transaction<'_, Sqlite>, changed: UpdateOutcome) -> Result<UpdateOutcome, StoreError> {
    match changed {
        UpdateOutcome::Updated => tx.commit().await?,
        UpdateOutcome::Unchanged(_) | UpdateOutcome::NotFound => tx.rollback().await?,
    }
    Ok(changed)
}

async fn resend(connection: &mut SqliteConnection, id: &str, now: i64) -> Result<UpdateOutcome, StoreError> {
    let Some(row) = find_with_state(connection, id).await? else {
        return Ok(UpdateOutcome::NotFound);
    };
    let state: State = read_enum(&row, "state")?;
    if matches!(state, State::Pending | State::Leased) {
        return Ok(UpdateOutcome::Unchanged(state));
    }
    delete_outcomes_on_resend(connection, state, &row, id).await?;
    // Token, attempts and cycle continue those of the last cycle: they are in the row of `postrider_ended` or, for a sent delivery, in its
    // last attempt. They stop below the largest value.
    sqlx::query(
        "INSERT INTO postrider_queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at)
         SELECT d.id, d.priority, length(CAST(d.body AS BLOB)), ?2,
                max(coalesce(e.token, 0), coalesce(a.token, 0)),
                max(coalesce(e.attempts, 0), coalesce(a.number, 0)),
                min(max(coalesce(e.cycle, 1), coalesce(a.cycle, 1)), 2147483646) + 1, ?2
         FROM postrider_deliveries d
         LEFT JOIN postrider_ended e ON e.delivery_id = d.id
         LEFT JOIN postrider_attempts a ON a.delivery_id = d.id
              AND a.number = (SELECT max(number) FROM postrider_attempts WHERE delivery_id = d.id)
         WHERE d.id = ?1",
    )
    .bind(id)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM postrider_ended WHERE delivery_id = ?1").bind(id).execute(connection).await?;
    Ok(UpdateOutcome::Updated)
}

async fn cancel(connection: &mut SqliteConnection, id: &str, now: i64) -> Result<UpdateOutcome, StoreError> {
    let Some(row) = find_with_state(connection, id).await? else {
        return Ok(UpdateOutcome::NotFound);
    };
    let state: State = read_enum(&row, "state")?;
    if state != State::Pending {
        return Ok(UpdateOutcome::Unchanged(state));
    }
    sqlx::query(
        "INSERT OR REPLACE INTO postrider_ended (delivery_id, state, ended_at, token, attempts, cycle)
         SELECT delivery_id, 'cancelled', ?2, token, attempts, cycle FROM postrider_queue WHERE delivery_id = ?1",
    )
    .bind(id)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM postrider_queue WHERE delivery_id = ?1").bind(id).execute(connection).await?;
    Ok(UpdateOutcome::Updated)
}

async fn count_all(connection: &mut SqliteConnection, now: i64) -> Result<Stats, StoreError> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM postrider_deliveries) AS everything,
                (SELECT count(*) FROM postrider_queue) AS queued,
                (SELECT count(*) FROM postrider_queue WHERE leased_at IS NOT NULL) AS leased",
    )
    .fetch_one(&mut *connection)
    .await?;
    let ended = sqlx::query("SELECT state, count(*) AS deliveries FROM postrider_ended GROUP BY state")
        .fetch_all(&mut *connection)
        .await?;
    let (everything, queued, leased) = (row.number("everything")?, row.number("queued")?, row.number("leased")?);
    let mut stats = count_states(everything, queued, leased, &ended)?;
    stats.relays = read_relays(connection, now).await?;
    let due = super::claim::first_due(connection).await?.filter(|due| *due <= now);
    stats.oldest_due = due.map(|due| elapsed(due, now));
    Ok(stats)
}

/// Deletes the recorded outcomes that do not hold beyond a resend.
async fn delete_outcomes_on_resend(
    connection: &mut SqliteConnection,
    state: State,
    row: &SqliteRow,
    id: &str,
) -> Result<(), StoreError> {
    let outcomes = read_outcomes(connection, id).await?;
    // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
    let kept = outcomes_kept_on_resend(state, &read_recipients(row).unwrap_or_default(), &outcomes);
    sqlx::query("DELETE FROM postrider_recipients WHERE delivery_id = ?1").bind(id).execute(&mut *connection).await?;
    for outcome in kept {
        sqlx::query("INSERT INTO postrider_recipients (delivery_id, address, outcome, reply) VALUES (?1, ?2, ?3, ?4)")
            .bind(id)
            .bind(outcome.recipient.as_str())
            .bind(outcome.state.as_str())
            .bind(outcome.reply)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn read_relays(connection: &mut SqliteConnection, now: i64) -> Result<Vec<RelayStatus>, StoreError> {
    let rows = sqlx::query("SELECT id, seen_at, in_flight, paused FROM postrider_relays ORDER BY id")
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
    RelayStatus::new(id, seen_ago, in_flight, problems.unwrap_or(row.text_or_null("paused"), None))
}

impl SqliteStore {
    /// Deletes in batches, each behind the last one, so that other writers get their turn in between.
    async fn prune_state(&self, state: State, before: i64, history_only: bool) -> Result<u64, StoreError> {
        // The last attempt stays: a resend continues its number.
        let history_filter = if history_only {
            "EXISTS (SELECT 1 FROM postrider_attempts a, postrider_attempts later
                     WHERE a.delivery_id = d.id AND later.delivery_id = d.id AND later.number > a.number)"
        } else {
            "true"
        };
        // Each batch follows the order of an index, so that it does not sort all remaining rows.
        let (state_filter, id) = match state {
            State::Sent => (where_state(Some(state)).to_owned(), "d.id"),
            _ => (format!("e.state = '{state}'"), "e.delivery_id"),
        };
        let old = format!(
            "SELECT d.id FROM postrider_deliveries d
             LEFT JOIN postrider_queue q ON q.delivery_id = d.id LEFT JOIN postrider_ended e ON e.delivery_id = d.id
             WHERE {state_filter} AND q.delivery_id IS NULL AND d.created_at < ?1 AND {history_filter}"
        );
        let find = format!("{old} AND {id} > ?2 ORDER BY {id} LIMIT 1000");
        let check = format!("{old} AND d.id IN (SELECT value FROM json_each(?2))");
        let delete = if history_only {
            "DELETE FROM postrider_attempts WHERE delivery_id IN (SELECT value FROM json_each(?1))
             AND number < (SELECT max(number) FROM postrider_attempts l WHERE l.delivery_id = postrider_attempts.delivery_id)"
        } else {
            // A trigger deletes the rows of the other tables.
            "DELETE FROM postrider_deliveries WHERE id IN (SELECT value FROM json_each(?1))"
        };
        let mut affected = 0;
        let mut after = String::new();
        loop {
            // First found without a lock, then checked under the lock: an operator may have resent a delivery in between.
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let query = sqlx::query_scalar(AssertSqlSafe(find.clone())).bind(before).bind(&after);
            let found = query.fetch_all(&mut *session).await;
            let found: Vec<String> = session.finish(found.map_err(StoreError::from))?;
            let Some(last) = found.last() else {
                return Ok(affected);
            };
            after.clone_from(last);
            let found = ids_as_json(found);
            let pruned = retry_conflicts(|| async {
                let mut session = Session::acquire_drop_safe(&self.pool).await?;
                let pruned = async {
                    let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
                    let query = sqlx::query_scalar(AssertSqlSafe(check.clone())).bind(before).bind(&found);
                    let found: Vec<String> = query.fetch_all(&mut *tx).await?;
                    let count = u64::try_from(found.len()).unwrap_or(0);
                    sqlx::query(delete).bind(ids_as_json(found)).execute(&mut *tx).await?;
                    tx.commit().await?;
                    Ok(count)
                };
                let pruned = pruned.await;
                session.finish(pruned)
            });
            affected += pruned.await?;
        }
    }
}
