//! Pauses and requests for a probe by operators, and the audit trail.

use postrider_transport::DeliveryId;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, QueryBuilder, Row};
use uuid::Uuid;

use super::MySqlStore;
use super::sql::BEGIN;
use crate::audit::{Action, AuditContext, AuditEntry, AuditFilter};
use crate::pause::{Controls, PauseTarget};
use crate::store::row::{read_audit_entry, read_controls};
use crate::store::{PROBE_CANDIDATES, StoreError};

impl MySqlStore {
    /// Records an action, with the delivery that it changed.
    pub(super) async fn record_in(
        &self,
        connection: &mut MySqlConnection,
        action: Action,
        delivery: Option<DeliveryId>,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        let text = self.sql.fill(
            "INSERT INTO {p}audit (at, operator, action, delivery_id, target, note) VALUES ({now}, ?, ?, ?, ?, ?)",
        );
        let query = self.sql.query(&text).bind(self.clock.test_micros()).bind(context.operator.clone());
        let query = query.bind(action.as_str()).bind(delivery.map(|id| id.as_uuid())).bind(context.target.clone());
        query.bind(context.note.clone()).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn try_record(&self, action: Action, context: &AuditContext) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        let recorded = self.record_in(&mut session, action, None, context).await;
        session.finish(recorded)
    }

    pub(super) async fn try_set_pause(
        &self,
        target: &PauseTarget,
        paused: bool,
        context: &AuditContext,
    ) -> Result<bool, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        let changed = if paused {
            let text = self.sql.fill(
                "INSERT IGNORE INTO {p}controls (control, kind, name, set_at, operator, note) VALUES ('pause', ?, ?, {now}, ?, ?)",
            );
            let query = self.sql.query(&text).bind(target.kind()).bind(target.name()).bind(self.clock.test_micros());
            query.bind(context.operator.clone()).bind(context.note.clone()).execute(&mut *tx).await?
        } else {
            let text = self.sql.fill("DELETE FROM {p}controls WHERE control = 'pause' AND kind = ? AND name = ?");
            self.sql.query(&text).bind(target.kind()).bind(target.name()).execute(&mut *tx).await?
        };
        let changed = changed.rows_affected() > 0;
        if changed {
            let action = if paused { Action::Pause } else { Action::Resume };
            self.record_in(&mut tx, action, None, &context.clone().target(&target.to_string())).await?;
        }
        tx.commit().await?;
        session.finish(Ok(changed))
    }

    pub(super) async fn try_request_probe(&self, context: &AuditContext) -> Result<(), StoreError> {
        let text = self.sql.fill(
            "INSERT INTO {p}controls (control, kind, name, set_at, operator, note) VALUES ('probe', '', '', {now}, ?, ?)
             ON DUPLICATE KEY UPDATE set_at = GREATEST(VALUES(set_at), set_at + 1), operator = VALUES(operator), note = VALUES(note)",
        );
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        let query = self.sql.query(&text).bind(self.clock.test_micros()).bind(context.operator.clone());
        query.bind(context.note.clone()).execute(&mut *tx).await?;
        let text = self.sql.fill(
            "UPDATE {p}queue SET due_at = {now}
             WHERE leased_at = 0 AND due_at > {now} AND attempts > 0 AND cycle_started_at <= {now}
               AND COALESCE((SELECT a.charged FROM {p}attempts a FORCE INDEX (PRIMARY)
                             WHERE a.delivery_id = {p}queue.delivery_id AND a.number = {p}queue.attempts), 0) = 0
             ORDER BY due_at LIMIT ?",
        );
        let now = self.clock.test_micros();
        self.sql.query(&text).bind(now).bind(now).bind(now).bind(PROBE_CANDIDATES).execute(&mut *tx).await?;
        self.record_in(&mut tx, Action::Probe, None, context).await?;
        tx.commit().await?;
        session.finish(Ok(()))
    }

    pub(super) async fn try_controls(&self) -> Result<Controls, StoreError> {
        let text = self.sql.fill("SELECT control, kind, name, set_at, operator, note FROM {p}controls");
        let mut session = self.session().await?;
        let rows = self.sql.query(&text).fetch_all(&mut *session).await;
        let rows = session.finish(rows.map_err(StoreError::from))?;
        read_controls(&rows)
    }

    pub(super) async fn try_audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = QueryBuilder::new(
            &*self
                .sql
                .fill("SELECT number, at, operator, action, delivery_id, target, note FROM {p}audit WHERE number < "),
        );
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
        let mut session = self.session().await?;
        let rows = query.build().persistent(false).fetch_all(&mut *session).await;
        let read =
            |row: &MySqlRow| read_audit_entry(row, row.try_get::<Option<Uuid>, _>("delivery_id")?.map(Into::into));
        session.finish(rows.map_err(StoreError::from))?.iter().filter_map(|row| read(row).transpose()).collect()
    }
}
