//! Resends, cancels and dismisses deliveries, any number in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use postrider_transport::DeliveryId;
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::MySqlStore;
use super::admin::WITH_STATE;
use super::counters::add_admin_counts;
use super::rows::{ids_json, json_arrays, outcome_item, read_id, read_outcomes};
use super::sql::BEGIN;
use crate::admin::UpdateOutcome;
use crate::audit::{Action, AuditContext};
use crate::operator::Change;
use crate::state::State;
use crate::store::counters::Counts;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{Columns, read_enum, read_recipients};
use crate::store::{RecipientOutcome, StoreError};

/// Deliveries that are locked, with their states and rows.
type Found = BTreeMap<DeliveryId, (State, MySqlRow)>;

impl MySqlStore {
    /// Changes the deliveries, and records the changes.
    pub(super) async fn try_change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        let outcomes = self.change_in(&mut tx, change, from, ids, context).await?;
        if outcomes.contains(&UpdateOutcome::Updated) {
            tx.commit().await?;
        } else {
            // A rollback releases the locks at once. A drop would release them when the connection is next used, and a claim skips locked
            // rows.
            tx.rollback().await?;
        }
        session.finish(Ok(outcomes))
    }

    async fn change_in(
        &self,
        connection: &mut MySqlConnection,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        // In the order of ids, so that two operators cannot deadlock.
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let keys = ids_json(sorted.iter().map(|id| (*id, 0)));
        // The row in `deliveries` exists even if the queue has none.
        let lock = "SELECT 1 FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id) FOR UPDATE {of_d}";
        self.sql.query(&self.sql.fill(lock)).bind(keys.clone()).execute(&mut *connection).await?;
        // A relay locks rows of the queue in its own order.
        let wait = if sorted.len() > 1 { "SKIP LOCKED" } else { "" };
        let text = self.sql.fill(&format!(
            "SELECT q.delivery_id FROM {{keys}} {{p}}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
             FOR UPDATE {{of_q}} {wait}"
        ));
        let rows = self.sql.query(&text).bind(keys.clone()).fetch_all(&mut *connection).await?;
        let locked: HashSet<DeliveryId> =
            rows.iter().map(|row| read_id(row, "delivery_id")).collect::<Result<_, _>>()?;
        let mut outcomes: HashMap<DeliveryId, UpdateOutcome> = HashMap::new();
        let mut found = Found::new();
        for row in self.sql.query(&self.sql.fill(WITH_STATE)).bind(keys).fetch_all(&mut *connection).await? {
            let (id, state) = (read_id(&row, "id")?, read_enum(&row, "state")?);
            // Another transaction works on it: a relay that claims it, or an operator's.
            let state = if state == State::Pending && !locked.contains(&id) { State::Leased } else { state };
            let outcome = if !change.applies_to(state) || from.is_some_and(|from| from != state) {
                UpdateOutcome::Unchanged(state)
            } else if change == Change::Resend && row.number("has_message")? == 0 {
                UpdateOutcome::MessageDeleted
            } else {
                found.insert(id, (state, row));
                UpdateOutcome::Updated
            };
            outcomes.insert(id, outcome);
        }
        if !found.is_empty() {
            let now = self.now_in(connection).await?;
            let keys = ids_json(found.keys().map(|id| (*id, 0)));
            match change {
                Change::Resend => self.resend_found(connection, &found, now).await?,
                Change::Cancel => self.cancel_found(connection, &keys, now).await?,
                Change::Dismiss => {
                    let text = "UPDATE {keys} {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = UNHEX(k.id)
                        SET e.state = 'dismissed', e.ended_at = ?";
                    self.sql.query(&self.sql.fill(text)).bind(keys.clone()).bind(now).execute(&mut *connection).await?;
                }
            }
            if let Some(context) = context {
                self.record_changes(connection, change.action(), keys, context).await?;
            }
            // These rows are the last locks that a transaction takes.
            let states = found.values().map(|(state, _)| *state);
            add_admin_counts(connection, &self.sql, Counts::of_changes(change, states, now.div_euclid(1_000))).await?;
        }
        Ok(ids.iter().map(|id| outcomes.get(id).copied().unwrap_or(UpdateOutcome::NotFound)).collect())
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
        let now = self.now_in(connection).await?;
        self.cancel_found(connection, &ids_json([(id, 0)]), now).await?;
        let counts = Counts::of_changes(Change::Cancel, std::iter::once(State::Pending), now.div_euclid(1_000));
        add_admin_counts(connection, &self.sql, counts).await?;
        Ok(UpdateOutcome::Updated)
    }

    async fn now_in(&self, connection: &mut MySqlConnection) -> Result<i64, StoreError> {
        Ok(self.sql.scalar(&self.sql.now).bind(self.clock.test_micros()).fetch_one(connection).await?)
    }

    async fn resend_found(&self, connection: &mut MySqlConnection, found: &Found, now: i64) -> Result<(), StoreError> {
        let ids: Vec<DeliveryId> = found.keys().copied().collect();
        let mut recorded: HashMap<DeliveryId, Vec<RecipientOutcome>> = HashMap::new();
        for (id, outcome) in read_outcomes(connection, &self.sql, &ids).await? {
            recorded.entry(id).or_default().push(outcome);
        }
        let mut kept: BTreeMap<DeliveryId, Vec<RecipientOutcome>> = BTreeMap::new();
        for (id, outcomes) in &recorded {
            let Some((state, row)) = found.get(id) else { continue };
            // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
            let recipients = read_recipients(row).unwrap_or_default();
            let outcomes = outcomes_kept_on_resend(*state, &recipients, outcomes);
            if !outcomes.is_empty() {
                kept.insert(*id, outcomes);
            }
        }
        let keys = ids_json(ids.iter().map(|id| (*id, i64::from(kept.contains_key(id)))));
        let clear = "UPDATE {keys} {p}recipients r FORCE INDEX (PRIMARY) ON r.delivery_id = UNHEX(k.id)
            SET r.outcome = NULL, r.reply = NULL WHERE r.outcome IS NOT NULL";
        self.sql.query(&self.sql.fill(clear)).bind(keys.clone()).execute(&mut *connection).await?;
        let all = kept.iter().flat_map(|(id, kept)| kept.iter().map(|outcome| outcome_item(*id, outcome)));
        for items in json_arrays(all) {
            self.sql.query(&self.sql.record_recipients).bind(items).execute(&mut *connection).await?;
        }
        // Token, attempts and cycle continue those of the last cycle: they are in the row of `ended` or, for a sent delivery, in its last
        // attempt.
        let text = self.sql.fill(
            "INSERT INTO {p}queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, has_outcomes)
             SELECT d.id, d.priority,
                    LEAST(COALESCE(OCTET_LENGTH(d.`body`), 0) + COALESCE(OCTET_LENGTH(d.`text`), 0) + COALESCE(OCTET_LENGTH(d.html), 0)
                          + d.blobs_size, 2147483647), ?, GREATEST(COALESCE(e.token, 0), COALESCE(a.token, 0)),
                    GREATEST(COALESCE(e.attempts, 0), COALESCE(a.number, 0)),
                    LEAST(GREATEST(COALESCE(e.cycle, 1), COALESCE(a.cycle, 1)), 2147483646) + 1, ?, k.n
             FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)
             LEFT JOIN {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = d.id
             LEFT JOIN {p}attempts a FORCE INDEX (PRIMARY) ON a.delivery_id = d.id
                 AND a.number = (SELECT MAX(l.number) FROM {p}attempts l FORCE INDEX (PRIMARY) WHERE l.delivery_id = d.id)",
        );
        self.sql.query(&text).bind(now).bind(now).bind(keys.clone()).execute(&mut *connection).await?;
        let text = "DELETE e FROM {keys} {p}ended e FORCE INDEX (PRIMARY) ON e.delivery_id = UNHEX(k.id)";
        self.sql.query(&self.sql.fill(text)).bind(keys).execute(connection).await?;
        Ok(())
    }

    async fn cancel_found(&self, connection: &mut MySqlConnection, keys: &str, now: i64) -> Result<(), StoreError> {
        let text = self.sql.fill(
            "INSERT INTO {p}ended (delivery_id, state, ended_at, token, attempts, cycle)
             SELECT q.delivery_id, 'cancelled', ?, q.token, q.attempts, q.cycle
             FROM {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
             ON DUPLICATE KEY UPDATE state = 'cancelled', reason = NULL, ended_at = ?, token = q.token, attempts = q.attempts,
                 cycle = q.cycle",
        );
        self.sql.query(&text).bind(now).bind(keys.to_owned()).bind(now).execute(&mut *connection).await?;
        self.sql.query(&self.sql.remove).bind(keys.to_owned()).execute(connection).await?;
        Ok(())
    }

    /// Records an action on several deliveries.
    async fn record_changes(
        &self,
        connection: &mut MySqlConnection,
        action: Action,
        keys: String,
        context: &AuditContext,
    ) -> Result<(), StoreError> {
        let text = self.sql.fill(
            "INSERT INTO {p}audit (at, operator, action, delivery_id, target, note)
             SELECT {now}, ?, ?, UNHEX(k.id), ?, ? FROM JSON_TABLE(?, '$[*]' COLUMNS ({id})) k",
        );
        let query = self.sql.query(&text).bind(self.clock.test_micros()).bind(context.operator.clone());
        let query = query.bind(action.as_str()).bind(context.target.clone()).bind(context.note.clone());
        query.bind(keys).execute(connection).await?;
        Ok(())
    }
}
