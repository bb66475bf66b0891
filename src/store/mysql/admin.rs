//! The operator methods.

use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::MySqlStore;
use super::claim::read_message;
use super::contents::read_contents;
use super::rows::{ids_json, json_array, outcome_item, read_id, read_outcomes};
use super::sql::{BEGIN, BEGIN_SNAPSHOT};
use crate::admin::{Filter, Prune, RelayStatus, Stats, UpdateOutcome};
use crate::clock::micros;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::contents::CONTENT_MISSING;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{
    Columns, corrupt, count_states, read_attempt, read_delivery, read_enum, read_recipients, read_summary, to_u64,
};
use crate::store::session::retry_conflicts;
use crate::store::{AdminStore, RecipientOutcome, StoreError};

/// Selects deliveries with their states. A delivery in neither of the joined tables was sent by its last attempt.
const WITH_STATE: &str = "
    SELECT d.id, d.created_at, d.subject, d.template_id, d.tags, CONVERT(d.`key` USING utf8mb4) AS `key`, d.priority, d.when_in_doubt, d.recipients,
           q.due_at, q.expires_at, e.reason, COALESCE(q.cycle, e.cycle) AS cycle,
           CASE WHEN q.leased_at <> 0 THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE COALESCE(e.state, 'sent') END AS state
    FROM {p}deliveries d
    LEFT JOIN {p}queue q ON q.delivery_id = d.id
    LEFT JOIN {p}ended e ON e.delivery_id = d.id";

/// The condition for one state. It begins with the smallest table that knows the state.
fn where_state(state: Option<State>) -> &'static str {
    match state {
        None => "TRUE",
        Some(State::Pending) => "d.id IN (SELECT delivery_id FROM {p}queue WHERE leased_at = 0)",
        Some(State::Leased) => "d.id IN (SELECT delivery_id FROM {p}queue WHERE leased_at <> 0)",
        Some(State::Sent) => "q.delivery_id IS NULL AND COALESCE(e.state, 'sent') = 'sent'",
        Some(State::Dead) => "d.id IN (SELECT delivery_id FROM {p}ended WHERE state = 'dead')",
        Some(State::InDoubt) => "d.id IN (SELECT delivery_id FROM {p}ended WHERE state = 'in_doubt')",
        Some(State::Cancelled) => "d.id IN (SELECT delivery_id FROM {p}ended WHERE state = 'cancelled')",
    }
}

impl MySqlStore {
    /// Finds the row of one delivery with its state.
    async fn find_with_state(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<Option<MySqlRow>, StoreError> {
        let text = self.sql.fill(&format!("{WITH_STATE} WHERE d.id = ?"));
        Ok(self.sql.query(&text).bind(id.as_uuid()).fetch_optional(connection).await?)
    }

    /// Runs a statement with the id of one delivery as its only parameter.
    async fn execute_for(
        &self,
        connection: &mut MySqlConnection,
        text: &str,
        id: DeliveryId,
    ) -> Result<(), StoreError> {
        self.sql.query(&self.sql.fill(text)).bind(id.as_uuid()).execute(connection).await?;
        Ok(())
    }

    /// Locks the delivery, so that no relay changes its state before the transaction ends.
    async fn lock(&self, connection: &mut MySqlConnection, id: DeliveryId) -> Result<(), StoreError> {
        // The row in `deliveries` comes first, since it exists even if the queue has none.
        self.execute_for(connection, "SELECT 1 FROM {p}deliveries WHERE id = ? FOR UPDATE", id).await?;
        self.execute_for(connection, "SELECT 1 FROM {p}queue WHERE delivery_id = ? FOR UPDATE", id).await
    }

    async fn read_outcomes_of(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<Vec<RecipientOutcome>, StoreError> {
        Ok(read_outcomes(connection, &self.sql, &[id]).await?.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn read_relays(&self, connection: &mut MySqlConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = "SELECT id, CAST({now} AS SIGNED) AS now, seen_at, in_flight, paused FROM {p}relays ORDER BY id";
        let text = self.sql.fill(text);
        let rows = self.sql.query(&text).bind(self.clock.test_micros()).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let seen_ago = row.number("now")?.saturating_sub(row.number("seen_at")?);
                let seen_ago = Duration::from_micros(to_u64(seen_ago));
                let in_flight = to_u64(row.number("in_flight")?);
                let id = row.text_or_null("id")?.unwrap_or_default();
                Ok(RelayStatus::new(id, seen_ago, in_flight, row.text_or_null("paused")?))
            })
            .collect()
    }

    async fn try_resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        self.lock(&mut tx, id).await?;
        let Some(row) = self.find_with_state(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::NotFound));
        };
        let state: State = read_enum(&row, "state")?;
        if matches!(state, State::Pending | State::Leased) {
            // A rollback releases the locks at once. A drop would release them when the connection is next used, and a claim skips locked
            // rows.
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::Unchanged(state)));
        }
        let outcomes = self.read_outcomes_of(&mut tx, id).await?;
        // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
        let kept = outcomes_kept_on_resend(state, &read_recipients(&row).unwrap_or_default(), &outcomes);
        let clear_outcomes =
            "UPDATE {p}recipients SET outcome = NULL, reply = NULL WHERE delivery_id = ? AND outcome IS NOT NULL";
        self.execute_for(&mut tx, clear_outcomes, id).await?;
        if !kept.is_empty() {
            let kept = json_array(kept.iter().map(|outcome| outcome_item(id, outcome)));
            self.sql.query(&self.sql.record_recipients).bind(kept).execute(&mut *tx).await?;
        }
        // Token, attempts and cycle continue those of the last cycle: they are in the row of `ended` or, for a sent delivery, in its last
        // attempt.
        let text = self.sql.fill(
            "INSERT INTO {p}queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, partial)
             SELECT d.id, d.priority,
                    LEAST(COALESCE(OCTET_LENGTH(d.`body`), 0) + COALESCE(OCTET_LENGTH(d.`text`), 0) + COALESCE(OCTET_LENGTH(d.html), 0)
                          + d.contents_size, 2147483647), {now}, GREATEST(COALESCE(e.token, 0), COALESCE(a.token, 0)),
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
        query.execute(&mut *tx).await?;
        self.execute_for(&mut tx, "DELETE FROM {p}ended WHERE delivery_id = ?", id).await?;
        tx.commit().await?;
        crate::store::notify(&self.notifier);
        session.finish(Ok(UpdateOutcome::Updated))
    }

    async fn try_cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        self.lock(&mut tx, id).await?;
        let Some(row) = self.find_with_state(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::NotFound));
        };
        let state: State = read_enum(&row, "state")?;
        if state != State::Pending {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::Unchanged(state)));
        }
        let text = self.sql.fill(
            "INSERT INTO {p}ended (delivery_id, state, ended_at, token, attempts, cycle)
             SELECT delivery_id, 'cancelled', {now}, token, attempts, cycle FROM {p}queue q WHERE delivery_id = ?
             ON DUPLICATE KEY UPDATE state = 'cancelled', reason = NULL, ended_at = {now}, token = q.token, attempts = q.attempts,
                 cycle = q.cycle",
        );
        let now = self.clock.test_micros();
        self.sql.query(&text).bind(now).bind(id.as_uuid()).bind(now).execute(&mut *tx).await?;
        self.execute_for(&mut tx, "DELETE FROM {p}queue WHERE delivery_id = ?", id).await?;
        tx.commit().await?;
        session.finish(Ok(UpdateOutcome::Updated))
    }

    /// Deletes in batches, each behind the last one, so that no transaction grows long.
    async fn prune_state(&self, state: State, age: Duration, history_only: bool) -> Result<u64, StoreError> {
        // The last attempt stays: a resend continues its number.
        let numbers = "(SELECT {what}(a.number) FROM {p}attempts a WHERE a.delivery_id = d.id)";
        let (first, last) = (numbers.replace("{what}", "MIN"), numbers.replace("{what}", "MAX"));
        let (history_filter, stays) =
            if history_only { (format!("{first} < {last}"), last) } else { ("TRUE".to_owned(), "0".to_owned()) };
        let old = format!(
            "LEFT JOIN {{p}}queue q ON q.delivery_id = d.id LEFT JOIN {{p}}ended e ON e.delivery_id = d.id
             WHERE {} AND q.delivery_id IS NULL AND d.created_at < {{now}} - ? AND {history_filter}",
            where_state(Some(state))
        );
        let find =
            format!("SELECT d.id, 0 AS stays FROM {{p}}deliveries d {old} AND d.id > ? ORDER BY d.id LIMIT 1000");
        let find = self.sql.fill(&find);
        let own = "{keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)";
        let lock = self.sql.fill(&format!("SELECT d.id, 0 AS stays FROM {own} FOR UPDATE {{of_d}} SKIP LOCKED"));
        let check = self.sql.fill(&format!("SELECT d.id, CAST({stays} AS SIGNED) AS stays FROM {own} {old}"));
        let delete = self.sql.fill(if history_only {
            "DELETE a FROM {keys} {p}attempts a FORCE INDEX (PRIMARY) ON a.delivery_id = UNHEX(k.id) AND a.number < k.n"
        } else {
            "DELETE d FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)"
        });
        let (now, age) = (self.clock.test_micros(), micros(age));
        let prune_batch = async |after: &[u8]| -> Result<Option<(DeliveryId, usize)>, StoreError> {
            let mut session = self.session().await?;
            let mut tx = session.begin_with(BEGIN).await?;
            // First found without locks, then locked, then checked: an operator may have resent a delivery in between.
            let query = self.sql.query(&find).bind(now).bind(age).bind(after.to_vec());
            let found = query.fetch_all(&mut *tx).await?;
            let Some(last) = found.last().map(|row| read_id(row, "id")).transpose()? else {
                tx.rollback().await?;
                return session.finish(Ok(None));
            };
            let found = self.sql.query(&lock).bind(ids_with_numbers(&found)?).fetch_all(&mut *tx).await?;
            let query = self.sql.query(&check).bind(ids_with_numbers(&found)?).bind(now).bind(age);
            let found = query.fetch_all(&mut *tx).await?;
            self.sql.query(&delete).bind(ids_with_numbers(&found)?).execute(&mut *tx).await?;
            tx.commit().await?;
            session.finish(Ok(Some((last, found.len()))))
        };
        let mut affected = 0;
        // Sorts before every id. An empty value would be NULL in a session with EMPTY_STRING_IS_NULL.
        let mut after = vec![0];
        while let Some((last, count)) = retry_conflicts(|| prune_batch(&after)).await? {
            after = last.as_uuid().as_bytes().to_vec();
            affected += u64::try_from(count).unwrap_or(0);
        }
        Ok(affected)
    }
}

/// The ids of the rows in their order, each with the number in its column `stays`.
fn ids_with_numbers(rows: &[MySqlRow]) -> Result<String, StoreError> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push((read_id(row, "id")?, row.number("stays")?));
    }
    items.sort_unstable();
    Ok(ids_json(items))
}

impl AdminStore for MySqlStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        super::migrate::migrate(&self.pool, &self.sql).await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        // One snapshot, so that state and history are of the same moment.
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let Some(row) = self.find_with_state(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(None));
        };
        let text = self.sql.fill("SELECT * FROM {p}attempts WHERE delivery_id = ? ORDER BY number");
        let attempts = self.sql.query(&text).bind(id.as_uuid()).fetch_all(&mut *tx).await?;
        let attempts = attempts.iter().map(read_attempt).collect();
        let outcomes = self.read_outcomes_of(&mut tx, id).await?;
        tx.rollback().await?;
        session.finish(Ok(Some(read_delivery(&row, id, attempts, &outcomes))))
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let text = self.sql.fill("SELECT format, `body`, `text`, html, contents_size FROM {p}deliveries WHERE id = ?");
        let mut session = self.session().await?;
        // One snapshot, so that nobody deletes the contents in between.
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *tx).await?;
        let carries = row.as_ref().is_some_and(|row| row.number("contents_size").is_ok_and(|size| size > 0));
        let carriers: Vec<DeliveryId> = carries.then_some(id).into_iter().collect();
        let contents = read_contents(&mut tx, &self.sql, &carriers).await?;
        tx.rollback().await?;
        session.finish(Ok(()))?;
        // `None` if the delivery does not exist, or its message was deleted.
        let Some(row) = row.filter(|row| row.bytes("body").is_ok_and(|body| body.is_some())) else {
            return Ok(None);
        };
        match contents.add_to(id, read_message(&row)?, carries) {
            (message, true) => Ok(Some(message)),
            (_, false) => Err(corrupt(CONTENT_MISSING)),
        }
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let text = self.sql.fill(&format!(
            "SELECT s.*, IF(JSON_VALID(s.recipients), JSON_UNQUOTE(JSON_EXTRACT(s.recipients, '$[0]')), NULL) AS recipient,
                 IF(JSON_VALID(s.recipients), JSON_LENGTH(s.recipients), NULL) AS recipient_count,
                 (SELECT COUNT(*) FROM {{p}}attempts a WHERE a.delivery_id = s.id) AS attempts,
                 (SELECT a.error FROM {{p}}attempts a WHERE a.delivery_id = s.id ORDER BY a.number DESC LIMIT 1) AS last_error
             FROM ({WITH_STATE} WHERE {} AND (? IS NULL OR d.id > ?) AND (? IS NULL OR d.template_id = ?)
                   ORDER BY d.id LIMIT ?) s
             ORDER BY s.id",
            where_state(filter.state)
        ));
        let after = filter.after.map(|id| id.as_uuid());
        let mut session = self.session().await?;
        let rows = self
            .sql
            .query(&text)
            .bind(after)
            .bind(after)
            .bind(filter.template_id.clone())
            .bind(filter.template_id.clone())
            .bind(i64::from(filter.limit))
            .fetch_all(&mut *session)
            .await?;
        session.finish(Ok(()))?;
        rows.iter().map(|row| Ok(read_summary(row, read_id(row, "id")?))).collect()
    }

    async fn resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        retry_conflicts(|| self.try_resend(id)).await
    }

    async fn cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        retry_conflicts(|| self.try_cancel(id)).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let text = self.sql.fill(
            "SELECT (SELECT COUNT(*) FROM {p}deliveries) AS everything, COUNT(*) AS queued, COUNT(NULLIF(leased_at, 0)) AS leased,
                    MIN(due_at) AS oldest_due, CAST({now} AS SIGNED) AS now
             FROM {p}queue",
        );
        let row = self.sql.query(&text).bind(self.clock.test_micros()).fetch_one(&mut *tx).await?;
        let text = self.sql.fill("SELECT state, COUNT(*) AS deliveries FROM {p}ended GROUP BY state");
        let ended = self.sql.query(&text).fetch_all(&mut *tx).await?;
        let (everything, queued, leased) = (row.number("everything")?, row.number("queued")?, row.number("leased")?);
        let mut stats = count_states(everything, queued, leased, &ended)?;
        // Subtracted here, since the server fails if the result is out of range, and other programs may write any number as a time.
        let now = row.number("now")?;
        let oldest_due = row.number_or_null("oldest_due")?.filter(|due| *due <= now);
        stats.oldest_due = oldest_due.map(|due| Duration::from_micros(to_u64(now.saturating_sub(due))));
        stats.relays = self.read_relays(&mut tx).await?;
        tx.rollback().await?;
        session.finish(Ok(stats))
    }

    async fn prune(&self, prune: &Prune) -> Result<u64, StoreError> {
        let mut affected = 0;
        for state in prune.states.iter().filter(|state| !matches!(state, State::Pending | State::Leased)) {
            affected += self.prune_state(*state, prune.older_than, prune.history_only).await?;
        }
        Ok(affected)
    }
}
