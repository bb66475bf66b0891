//! Pauses and requests for a probe by operators, and the audit trail.

use sqlx::QueryBuilder;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::pause::{Controls, PauseTarget};
use crate::store::row::{self, Columns, corrupt};
use crate::store::{PROBE_CANDIDATES, StoreError};

/// Records an action, with the delivery that it changed.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    action: Action,
    delivery: Option<&str>,
    context: &AuditContext,
    now: i64,
) -> Result<(), StoreError> {
    let insert =
        "INSERT INTO postrider_audit (at, operator, action, delivery_id, target, note) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let query = sqlx::query(insert).bind(now).bind(&context.operator).bind(action.as_str());
    query.bind(delivery).bind(&context.target).bind(&context.note).execute(connection).await?;
    Ok(())
}

pub(super) async fn set_pause(
    connection: &mut SqliteConnection,
    target: &PauseTarget,
    paused: bool,
    context: &AuditContext,
    now: i64,
) -> Result<bool, StoreError> {
    let changed = if paused {
        let insert = "INSERT INTO postrider_controls (control, kind, name, set_at, operator, note) VALUES ('pause', ?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING";
        let query = sqlx::query(insert).bind(target.kind()).bind(target.name()).bind(now);
        query.bind(&context.operator).bind(&context.note).execute(&mut *connection).await?
    } else {
        let delete = "DELETE FROM postrider_controls WHERE control = 'pause' AND kind = ?1 AND name = ?2";
        sqlx::query(delete).bind(target.kind()).bind(target.name()).execute(&mut *connection).await?
    };
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    let action = if paused { Action::Pause } else { Action::Resume };
    record(connection, action, None, &context.clone().target(&target.to_string()), now).await?;
    Ok(true)
}

pub(super) async fn request_probe(
    connection: &mut SqliteConnection,
    context: &AuditContext,
    now: i64,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO postrider_controls (control, kind, name, set_at, operator, note) VALUES ('probe', '', '', ?1, ?2, ?3)
         ON CONFLICT (control, kind, name) DO UPDATE
         SET set_at = max(excluded.set_at, set_at + 1), operator = excluded.operator, note = excluded.note";
    sqlx::query(insert).bind(now).bind(&context.operator).bind(&context.note).execute(&mut *connection).await?;
    let advance = "UPDATE postrider_queue SET due_at = ?1 WHERE delivery_id IN (
             SELECT q.delivery_id FROM postrider_queue q
             WHERE q.leased_at IS NULL AND q.due_at > ?1 AND q.attempts > 0 AND q.cycle_started_at <= ?1
               AND NOT coalesce((SELECT a.charged FROM postrider_attempts a
                                 WHERE a.delivery_id = q.delivery_id AND a.number = q.attempts), 0)
             ORDER BY q.due_at LIMIT ?2)";
    sqlx::query(advance).bind(now).bind(PROBE_CANDIDATES).execute(&mut *connection).await?;
    record(connection, Action::Probe, None, context, now).await
}

pub(super) async fn read_controls(connection: &mut SqliteConnection) -> Result<Controls, StoreError> {
    let rows = sqlx::query("SELECT control, kind, name, set_at, operator, note FROM postrider_controls");
    let rows = rows.fetch_all(connection).await?;
    row::read_controls(&rows)
}

pub(super) async fn read_audit(
    connection: &mut SqliteConnection,
    filter: &AuditFilter,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut query = QueryBuilder::new(
        "SELECT number, at, operator, action, delivery_id, target, note FROM postrider_audit WHERE number < ",
    );
    query.push_bind(filter.before.unwrap_or(i64::MAX));
    if let Some(id) = filter.delivery {
        query.push(" AND delivery_id = ").push_bind(id.to_string());
    }
    if let Some(name) = &filter.operator {
        query.push(" AND operator = ").push_bind(name.clone());
    }
    // A newer release may have other actions, which must not count as entries of a page.
    let mut actions = query.push(" AND action IN (").separated(", ");
    filter.actions().iter().for_each(|action| _ = actions.push_bind(action.as_str()));
    actions.push_unseparated(")");
    query.push(" ORDER BY number DESC LIMIT ").push_bind(i64::from(filter.limit));
    let rows = query.build().persistent(false).fetch_all(connection).await?;
    let read = |row: &SqliteRow| {
        let delivery = row.text_or_null("delivery_id")?;
        let delivery = delivery.map(|id| id.parse().map_err(|_| corrupt("delivery_id is not a UUID"))).transpose()?;
        row::read_audit_entry(row, delivery)
    };
    rows.iter().filter_map(|row| read(row).transpose()).collect()
}
