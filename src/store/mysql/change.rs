//! Resends, cancels and dismisses deliveries.

use postrider_transport::DeliveryId;
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::MySqlStore;
use super::counters::add_admin_counts;
use super::rows::{json_array, outcome_item};
use super::sql::BEGIN;
use crate::admin::{CountedEvent, UpdateOutcome};
use crate::audit::Act;
use crate::operator::Change;
use crate::state::State;
use crate::store::StoreError;
use crate::store::counters::{Counts, HOUR};
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{Columns, read_enum, read_recipients};

impl MySqlStore {
    /// Changes the deliveries, and records the changes.
    pub(super) async fn try_change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        act: Option<&Act>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        // In the order of ids, so that two operators cannot deadlock.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|place| ids.get(*place));
        let mut outcomes = vec![UpdateOutcome::NotFound; ids.len()];
        let mut counts = Counts::default();
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        for place in order {
            let (Some(id), Some(outcome)) = (ids.get(place), outcomes.get_mut(place)) else { continue };
            *outcome = self.change_one(&mut tx, (change, from), *id, ids.len() > 1, &mut counts).await?;
            if let (UpdateOutcome::Updated, Some(act)) = (*outcome, act) {
                self.record_in(&mut tx, change.action(), Some(*id), act).await?;
            }
        }
        if outcomes.contains(&UpdateOutcome::Updated) {
            // These rows are the last locks that a transaction takes.
            add_admin_counts(&mut tx, &self.sql, counts).await?;
            tx.commit().await?;
        } else {
            // A rollback releases the locks at once. A drop would release them when the connection is next used, and a claim skips locked
            // rows.
            tx.rollback().await?;
        }
        session.finish(Ok(outcomes))
    }

    async fn change_one(
        &self,
        connection: &mut MySqlConnection,
        (change, from): (Change, Option<State>),
        id: DeliveryId,
        is_one_of_many: bool,
        counts: &mut Counts,
    ) -> Result<UpdateOutcome, StoreError> {
        // The row in `deliveries` comes first, since it exists even if the queue has none.
        self.execute_for(connection, "SELECT 1 FROM {p}deliveries WHERE id = ? FOR UPDATE", id).await?;
        // A relay locks rows of the queue in its own order.
        let wait = if is_one_of_many { "SKIP LOCKED" } else { "" };
        let text = self.sql.fill(&format!("SELECT 1 FROM {{p}}queue WHERE delivery_id = ? FOR UPDATE {wait}"));
        let locked = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *connection).await?.is_some();
        let Some(row) = self.find_with_state(connection, id).await? else {
            return Ok(UpdateOutcome::NotFound);
        };
        let state: State = read_enum(&row, "state")?;
        // Another transaction works on it: a relay that claims it, or an operator's.
        let state = if state == State::Pending && !locked { State::Leased } else { state };
        if !change.applies_to(state) || from.is_some_and(|from| from != state) {
            return Ok(UpdateOutcome::Unchanged(state));
        }
        if change == Change::Resend && row.number("has_message")? == 0 {
            return Ok(UpdateOutcome::MessageDeleted);
        }
        match change {
            Change::Resend => self.resend_one(connection, state, &row, id).await?,
            Change::Cancel => self.cancel_one(connection, id, counts).await?,
            Change::Dismiss => {
                let now = self.now_in(connection).await?;
                let text = self.sql.fill("UPDATE {p}ended SET state = 'dismissed', ended_at = ? WHERE delivery_id = ?");
                self.sql.query(&text).bind(now).bind(id.as_uuid()).execute(connection).await?;
                count_end(counts, State::Dismissed, CountedEvent::Dismissed, now);
            }
        }
        if state.is_finished() {
            *counts.ended.entry(state.as_str()).or_default() -= 1;
        }
        Ok(UpdateOutcome::Updated)
    }

    /// Cancels a delivery in the caller's transaction, which may have any isolation level.
    ///
    /// Under `REPEATABLE READ`, a locking read that finds no row locks the gap, and nobody can enqueue into it. So this locks only a row that
    /// the transaction's snapshot has.
    pub(super) async fn cancel_in_caller(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<UpdateOutcome, StoreError> {
        let Some(row) = self.find_with_state(connection, id).await? else {
            return Ok(UpdateOutcome::NotFound);
        };
        let state: State = read_enum(&row, "state")?;
        if state != State::Pending {
            return Ok(UpdateOutcome::Unchanged(state));
        }
        let text = self.sql.fill("SELECT leased_at FROM {p}queue WHERE delivery_id = ? FOR UPDATE");
        let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *connection).await?;
        // Since the snapshot, a relay may have leased it, or even finished it.
        let is_leased = row.map(|row| row.number("leased_at")).transpose()?.is_none_or(|leased_at| leased_at != 0);
        if is_leased {
            return Ok(UpdateOutcome::Unchanged(State::Leased));
        }
        let mut counts = Counts::default();
        self.cancel_one(connection, id, &mut counts).await?;
        add_admin_counts(connection, &self.sql, counts).await?;
        Ok(UpdateOutcome::Updated)
    }

    async fn now_in(&self, connection: &mut MySqlConnection) -> Result<i64, StoreError> {
        Ok(self.sql.scalar(&self.sql.now).bind(self.clock.test_micros()).fetch_one(connection).await?)
    }

    async fn resend_one(
        &self,
        connection: &mut MySqlConnection,
        state: State,
        row: &MySqlRow,
        id: DeliveryId,
    ) -> Result<(), StoreError> {
        let outcomes = self.read_outcomes_of(connection, id).await?;
        // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
        let kept = outcomes_kept_on_resend(state, &read_recipients(row).unwrap_or_default(), &outcomes);
        let clear_outcomes =
            "UPDATE {p}recipients SET outcome = NULL, reply = NULL WHERE delivery_id = ? AND outcome IS NOT NULL";
        self.execute_for(connection, clear_outcomes, id).await?;
        if !kept.is_empty() {
            let kept = json_array(kept.iter().map(|outcome| outcome_item(id, outcome)));
            self.sql.query(&self.sql.record_recipients).bind(kept).execute(&mut *connection).await?;
        }
        // Token, attempts and cycle continue those of the last cycle: they are in the row of `ended` or, for a sent delivery, in its last
        // attempt.
        let text = self.sql.fill(
            "INSERT INTO {p}queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, has_outcomes)
             SELECT d.id, d.priority,
                    LEAST(COALESCE(OCTET_LENGTH(d.`body`), 0) + COALESCE(OCTET_LENGTH(d.`text`), 0) + COALESCE(OCTET_LENGTH(d.html), 0)
                          + d.blobs_size, 2147483647), {now}, GREATEST(COALESCE(e.token, 0), COALESCE(a.token, 0)),
                    GREATEST(COALESCE(e.attempts, 0), COALESCE(a.number, 0)),
                    LEAST(GREATEST(COALESCE(e.cycle, 1), COALESCE(a.cycle, 1)), 2147483646) + 1, {now}, ?
             FROM {p}deliveries d
             LEFT JOIN {p}ended e ON e.delivery_id = d.id
             LEFT JOIN {p}attempts a ON a.delivery_id = d.id
                 AND a.number = (SELECT MAX(l.number) FROM {p}attempts l WHERE l.delivery_id = d.id)
             WHERE d.id = ?",
        );
        let now = self.clock.test_micros();
        let query = self.sql.query(&text).bind(now).bind(now).bind(!kept.is_empty()).bind(id.as_uuid());
        query.execute(&mut *connection).await?;
        self.execute_for(connection, "DELETE FROM {p}ended WHERE delivery_id = ?", id).await
    }

    async fn cancel_one(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
        counts: &mut Counts,
    ) -> Result<(), StoreError> {
        let text = self.sql.fill(
            "INSERT INTO {p}ended (delivery_id, state, ended_at, token, attempts, cycle)
             SELECT delivery_id, 'cancelled', ?, token, attempts, cycle FROM {p}queue q WHERE delivery_id = ?
             ON DUPLICATE KEY UPDATE state = 'cancelled', reason = NULL, ended_at = ?, token = q.token, attempts = q.attempts,
                 cycle = q.cycle",
        );
        let now = self.now_in(connection).await?;
        self.sql.query(&text).bind(now).bind(id.as_uuid()).bind(now).execute(&mut *connection).await?;
        self.execute_for(connection, "DELETE FROM {p}queue WHERE delivery_id = ?", id).await?;
        count_end(counts, State::Cancelled, CountedEvent::Cancelled, now);
        Ok(())
    }
}

/// Counts a delivery that ended now, in microseconds.
fn count_end(counts: &mut Counts, state: State, event: CountedEvent, now: i64) {
    *counts.ended.entry(state.as_str()).or_default() += 1;
    *counts.hourly.entry((now.div_euclid(1_000).div_euclid(HOUR) * HOUR, event, None)).or_default() += 1;
}
