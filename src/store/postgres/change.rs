//! Resends, cancels and dismisses deliveries, any number in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};

use postrider_transport::DeliveryId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::PgStore;
use super::admin::WITH_STATE;
use super::call::Call;
use super::rows::read_outcomes;
use crate::admin::UpdateOutcome;
use crate::audit::AuditContext;
use crate::operator::Change;
use crate::state::State;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{read_enum, read_recipients};
use crate::store::{RecipientOutcome, StoreError};

impl PgStore {
    /// Changes the deliveries, and records the changes. Without any change it rolls back, which releases the locks at once.
    pub(super) async fn change_once(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let mut call = self.begin_transaction().await?;
        let outcomes = self.change_in(&mut call, change, from, ids, context).await;
        match &outcomes {
            Ok(all) if !all.contains(&UpdateOutcome::Updated) => call.roll_back(outcomes?).await,
            _ => Call::finish(call, outcomes).await,
        }
    }

    pub(super) async fn change_in(
        &self,
        connection: &mut PgConnection,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        context: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let uuids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        // In the order of ids, so that two operators cannot deadlock. The row in `deliveries` exists even if the queue has none.
        let text = self.fill(r#"SELECT 1 FROM "{s}".deliveries WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"#);
        self.sql.query(&text).bind(&uuids).execute(&mut *connection).await?;
        // A relay locks rows of the queue in its own order.
        let wait = if uuids.len() > 1 { "SKIP LOCKED" } else { "" };
        let text = self.fill(&format!(
            r#"SELECT delivery_id FROM "{{s}}".queue WHERE delivery_id = ANY ($1) ORDER BY delivery_id FOR UPDATE {wait}"#
        ));
        let locked: HashSet<Uuid> =
            self.sql.scalar(&text).bind(&uuids).fetch_all(&mut *connection).await?.into_iter().collect();
        let text = self.fill(&format!("{WITH_STATE} WHERE d.id = ANY ($1) AND d.key_until IS NULL"));
        let rows = self.sql.query(&text).bind(&uuids).fetch_all(&mut *connection).await?;
        let mut found: HashMap<Uuid, (State, PgRow)> = HashMap::new();
        for row in rows {
            let (id, state) = (row.try_get("id")?, read_enum(&row, "state")?);
            // Another transaction works on it: a relay that claims it, or an operator's.
            let state = if state == State::Pending && !locked.contains(&id) { State::Leased } else { state };
            found.insert(id, (state, row));
        }
        let mut outcomes: HashMap<Uuid, UpdateOutcome> = HashMap::new();
        found.retain(|id, (state, _)| {
            let applies = change.applies_to(*state) && from.is_none_or(|from| from == *state);
            outcomes.insert(*id, if applies { UpdateOutcome::Updated } else { UpdateOutcome::Unchanged(*state) });
            applies
        });
        if change == Change::Resend {
            let text = self.fill(r#"SELECT delivery_id FROM "{s}".bodies WHERE delivery_id = ANY ($1)"#);
            let with_message: HashSet<Uuid> =
                self.sql.scalar(&text).bind(&uuids).fetch_all(&mut *connection).await?.into_iter().collect();
            found.retain(|id, _| {
                let has_message = with_message.contains(id);
                if !has_message {
                    outcomes.insert(*id, UpdateOutcome::MessageDeleted);
                }
                has_message
            });
        }
        if !found.is_empty() {
            match change {
                Change::Resend => self.resend_found(connection, &found).await?,
                Change::Cancel => self.cancel_found(connection, &found).await?,
                Change::Dismiss => self.dismiss_found(connection, &found).await?,
            }
            if let Some(context) = context {
                self.record_changes(connection, change.action(), found.keys().copied().collect(), context).await?;
            }
            self.count_changes(connection, change, found.values().map(|(state, _)| *state)).await?;
        }
        Ok(uuids.iter().map(|id| outcomes.get(id).copied().unwrap_or(UpdateOutcome::NotFound)).collect())
    }

    async fn resend_found(
        &self,
        connection: &mut PgConnection,
        found: &HashMap<Uuid, (State, PgRow)>,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = found.keys().copied().collect();
        let mut recorded: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
        for (id, outcome) in read_outcomes(connection, &self.sql, &ids).await? {
            recorded.entry(id).or_default().push(outcome);
        }
        let mut kept: Vec<(Uuid, RecipientOutcome)> = Vec::new();
        for (id, outcomes) in &recorded {
            let Some((state, row)) = found.get(id) else { continue };
            // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
            let recipients = read_recipients(row).unwrap_or_default();
            kept.extend(outcomes_kept_on_resend(*state, &recipients, outcomes).into_iter().map(|kept| (*id, kept)));
        }
        let text = self.fill(
            r#"UPDATE "{s}".recipients SET outcome = NULL, reply = NULL WHERE delivery_id = ANY ($1) AND outcome IS NOT NULL"#,
        );
        self.sql.query(&text).bind(&ids).execute(&mut *connection).await?;
        self.sql
            .query(&self.sql.record_recipients)
            .bind(kept.iter().map(|(id, _)| *id).collect::<Vec<_>>())
            .bind(kept.iter().map(|(_, outcome)| outcome.recipient.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|(_, outcome)| outcome.state.as_str()).collect::<Vec<_>>())
            .bind(kept.iter().map(|(_, outcome)| outcome.reply.as_deref()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        // Token, attempts and cycle continue those of the last cycle: they are in the row of `ended` or, for a sent delivery, in its last
        // attempt. They stop below the largest value.
        let text = self.fill(
            r#"INSERT INTO "{s}".queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, has_outcomes)
               SELECT d.id, d.priority, b.size, {now}, -1 - greatest(e.token, a.token, 0), greatest(e.attempts, a.number, 0),
                      least(greatest(e.cycle, a.cycle, 1), 2147483646) + 1, {now}, d.id = ANY ($3)
               FROM "{s}".deliveries d
               CROSS JOIN LATERAL (
                   SELECT coalesce(sum(octet_length(body) + coalesce(octet_length(text), 0) + coalesce(octet_length(html), 0)), 0)
                        + (SELECT coalesce(sum(octet_length(content)), 0)
                           FROM "{s}".body_blobs JOIN "{s}".blobs USING (hash) WHERE delivery_id = d.id) AS size
                   FROM "{s}".bodies WHERE delivery_id = d.id) b
               LEFT JOIN "{s}".ended e ON e.delivery_id = d.id
               LEFT JOIN LATERAL (SELECT token, number, cycle FROM "{s}".attempts
                                  WHERE delivery_id = d.id ORDER BY number DESC LIMIT 1) a ON true
               WHERE d.id = ANY ($2)"#,
        );
        let with_outcomes: Vec<Uuid> = kept.iter().map(|(id, _)| *id).collect();
        self.sql.query(&text).bind(self.test_now()).bind(&ids).bind(with_outcomes).execute(&mut *connection).await?;
        let text = self.fill(r#"DELETE FROM "{s}".ended WHERE delivery_id = ANY ($1)"#);
        self.sql.query(&text).bind(&ids).execute(&mut *connection).await?;
        let notify =
            sqlx::query("SELECT pg_notify($1, '')").bind(self.sql.channel()).persistent(self.sql.is_prepared());
        notify.execute(connection).await?;
        Ok(())
    }

    async fn cancel_found(
        &self,
        connection: &mut PgConnection,
        found: &HashMap<Uuid, (State, PgRow)>,
    ) -> Result<(), StoreError> {
        let text = self.fill(
            r#"WITH gone AS (DELETE FROM "{s}".queue WHERE delivery_id = ANY ($2) RETURNING *)
               INSERT INTO "{s}".ended (delivery_id, state, ended_at, token, attempts, cycle)
               SELECT delivery_id, 'cancelled', {now}, -1 - token, attempts, cycle FROM gone
               ON CONFLICT (delivery_id) DO UPDATE SET state = excluded.state, reason = NULL, ended_at = excluded.ended_at,
                   token = excluded.token, attempts = excluded.attempts, cycle = excluded.cycle"#,
        );
        let ids: Vec<Uuid> = found.keys().copied().collect();
        self.sql.query(&text).bind(self.test_now()).bind(ids).execute(connection).await?;
        Ok(())
    }

    async fn dismiss_found(
        &self,
        connection: &mut PgConnection,
        found: &HashMap<Uuid, (State, PgRow)>,
    ) -> Result<(), StoreError> {
        let text =
            self.fill(r#"UPDATE "{s}".ended SET state = 'dismissed', ended_at = {now} WHERE delivery_id = ANY ($2)"#);
        let ids: Vec<Uuid> = found.keys().copied().collect();
        self.sql.query(&text).bind(self.test_now()).bind(ids).execute(connection).await?;
        Ok(())
    }

    /// Counts the changes. These rows are the last locks that a transaction takes, always in the same order.
    async fn count_changes(
        &self,
        connection: &mut PgConnection,
        change: Change,
        before: impl Iterator<Item = State>,
    ) -> Result<(), StoreError> {
        let mut totals: BTreeMap<&str, i64> = BTreeMap::new();
        let mut count = 0;
        for state in before.inspect(|_| count += 1).filter(|state| state.is_finished()) {
            *totals.entry(state.as_str()).or_default() -= 1;
        }
        let ended = match change {
            Change::Resend => None,
            Change::Cancel => Some(State::Cancelled),
            Change::Dismiss => Some(State::Dismissed),
        };
        if let Some(ended) = ended {
            *totals.entry(ended.as_str()).or_default() += count;
        }
        let text = self.fill(
            r#"INSERT INTO "{s}".totals AS t (state, slot, count) VALUES ($1, {admin slot}, $2)
               ON CONFLICT (state, slot) DO UPDATE SET count = t.count + excluded.count"#,
        );
        for (state, number) in totals {
            self.sql.query(&text).bind(state).bind(number).execute(&mut *connection).await?;
        }
        if let Some(ended) = ended {
            let text = self.fill(
                r#"INSERT INTO "{s}".hourly AS h (hour, event, transport, slot, count) VALUES ({hour of now}, $2, '', {admin slot}, $3)
                   ON CONFLICT (hour, event, transport, slot) DO UPDATE SET count = h.count + excluded.count"#,
            );
            let query = self.sql.query(&text).bind(self.test_now()).bind(ended.as_str()).bind(count);
            query.execute(connection).await?;
        }
        Ok(())
    }
}
