//! Pauses and requests for a probe by operators, and the audit trail.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{QueryBuilder, Row};
use uuid::Uuid;

use super::PgStore;
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::pause::{Controls, PauseTarget};
use crate::store::row::{read_audit_entry, read_controls};
use crate::store::{PROBE_CANDIDATES, StoreError};

const RECORD: &str = r#"INSERT INTO "{s}".audit (at, operator, action, delivery_id, target, note)
    SELECT {now}, $2, $3, id, $4, $5 FROM unnest($6::uuid[]) AS changed (id) ORDER BY id"#;

impl PgStore {
    /// Records a change of each of these deliveries.
    pub(super) async fn record_changes(
        &self,
        connection: &mut PgConnection,
        action: Action,
        ids: Vec<Uuid>,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        self.record_rows(connection, action, ids.into_iter().map(Some).collect(), context).await
    }

    /// Records an action that concerns no single delivery.
    pub(super) async fn record_in(
        &self,
        connection: &mut PgConnection,
        action: Action,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        self.record_rows(connection, action, vec![None], context).await
    }

    async fn record_rows(
        &self,
        connection: &mut PgConnection,
        action: Action,
        ids: Vec<Option<Uuid>>,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        let text = self.fill(RECORD);
        let query = self.sql.query(&text).bind(self.test_now()).bind(&context.operator).bind(action.as_str());
        query.bind(&context.target).bind(&context.note).bind(ids).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn set_pause_in(
        &self,
        connection: &mut PgConnection,
        target: &PauseTarget,
        paused: bool,
        context: &AuditContext,
    ) -> Result<bool, StoreError> {
        let (kind, name) = (target.kind(), target.name());
        let changed = if paused {
            let text = self.fill(
                r#"INSERT INTO "{s}".controls (control, kind, name, set_at, operator, note) VALUES ('pause', $2, $3, {now}, $4, $5)
                   ON CONFLICT DO NOTHING"#,
            );
            let insert = self.sql.query(&text).bind(self.test_now()).bind(kind).bind(name);
            insert.bind(&context.operator).bind(&context.note).execute(&mut *connection).await?
        } else {
            let text = self.fill(r#"DELETE FROM "{s}".controls WHERE control = 'pause' AND kind = $1 AND name = $2"#);
            self.sql.query(&text).bind(kind).bind(name).execute(&mut *connection).await?
        };
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        let action = if paused { Action::Pause } else { Action::Resume };
        self.record_in(connection, action, &context.clone().target(&target.to_string())).await?;
        Ok(true)
    }

    pub(super) async fn request_probe_in(
        &self,
        connection: &mut PgConnection,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        let text = self.fill(
            r#"INSERT INTO "{s}".controls AS c (control, kind, name, set_at, operator, note) VALUES ('probe', '', '', {now}, $2, $3)
               ON CONFLICT (control, kind, name) DO UPDATE
               SET set_at = greatest(excluded.set_at, c.set_at + interval '1 microsecond'), operator = excluded.operator, note = excluded.note"#,
        );
        let insert = self.sql.query(&text).bind(self.test_now()).bind(&context.operator).bind(&context.note);
        insert.execute(&mut *connection).await?;
        let text = self.fill(
            r#"UPDATE "{s}".queue SET due_at = {now} WHERE delivery_id IN (
                   SELECT q.delivery_id FROM "{s}".queue q
                   WHERE q.leased_at IS NULL AND q.due_at > {now} AND q.attempts > 0 AND q.cycle_started_at <= {now}
                     AND NOT coalesce((SELECT a.charged FROM "{s}".attempts a
                                       WHERE a.delivery_id = q.delivery_id AND a.number = q.attempts), false)
                   ORDER BY q.due_at LIMIT $2 FOR UPDATE OF q SKIP LOCKED)"#,
        );
        let advance = self.sql.query(&text).bind(self.test_now()).bind(PROBE_CANDIDATES);
        advance.execute(&mut *connection).await?;
        // No notification: a relay reads the request before its next claim, at most once a second.
        self.record_in(connection, Action::Probe, context).await
    }

    pub(super) async fn controls_in(&self, connection: &mut PgConnection) -> Result<Controls, StoreError> {
        let rows = self.sql.query(&self.sql.controls).fetch_all(connection).await?;
        read_controls(&rows)
    }

    pub(super) async fn audit_in(
        &self,
        connection: &mut PgConnection,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = QueryBuilder::new(self.sql.fill(
            r#"SELECT number, at, operator, action, delivery_id, target, note FROM "{s}".audit WHERE number < "#,
        ));
        query.push_bind(filter.before.unwrap_or(i64::MAX));
        if let Some(id) = filter.delivery {
            query.push(" AND delivery_id = ").push_bind(id.as_uuid());
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
        let read = |row: &PgRow| read_audit_entry(row, row.try_get::<Option<Uuid>, _>("delivery_id")?.map(Into::into));
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }
}
