//! The operator's side.

use std::time::Duration;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::MySqlStore;
use super::rows::{id, list, numbered, outcome_item, recorded};
use super::sql::{BEGIN, BEGIN_SNAPSHOT};
use crate::admin::{Filter, Prune, RelayStatus, Stats, UpdateOutcome};
use crate::clock::micros;
use crate::delivery::{Delivery, DeliverySummary};
use crate::state::State;
use crate::store::recipients::kept_on_resend;
use crate::store::row::{Columns, attempt, delivery, recipients, stats, summary, unsigned, word};
use crate::store::session::retry_conflicts;
use crate::store::{AdminStore, RecipientOutcome, StoreError};

/// Every delivery with its state. What stands in neither table was sent by its last attempt.
const WITH_STATE: &str = "
    SELECT d.id, d.created_at, d.template_id, CONVERT(d.`key` USING utf8mb4) AS `key`, d.priority, d.when_in_doubt, d.recipients,
           q.due_at, q.expires_at, e.reason, COALESCE(q.cycle, e.cycle) AS cycle,
           CASE WHEN q.leased_at <> 0 THEN 'leased' WHEN q.delivery_id IS NOT NULL THEN 'pending'
                ELSE COALESCE(e.state, 'sent') END AS state
    FROM {p}deliveries d
    LEFT JOIN {p}queue q ON q.delivery_id = d.id
    LEFT JOIN {p}ended e ON e.delivery_id = d.id";

/// What narrows a list to one state, beginning with the smallest table that knows it.
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
    /// The row of one delivery with its state.
    async fn find(&self, connection: &mut MySqlConnection, id: DeliveryId) -> Result<Option<MySqlRow>, StoreError> {
        let text = self.sql.fill(&format!("{WITH_STATE} WHERE d.id = ?"));
        Ok(self.sql.query(&text).bind(id.as_uuid()).fetch_optional(connection).await?)
    }

    /// Runs a statement about one delivery.
    async fn about(&self, connection: &mut MySqlConnection, text: &str, id: DeliveryId) -> Result<(), StoreError> {
        self.sql.query(&self.sql.fill(text)).bind(id.as_uuid()).execute(connection).await?;
        Ok(())
    }

    /// Takes the row of the queue, if there is one, so that no relay changes the delivery's state before the transaction ends.
    async fn lock(&self, connection: &mut MySqlConnection, id: DeliveryId) -> Result<(), StoreError> {
        // The delivery's own row comes first: it is there also when the queue has none.
        self.about(connection, "SELECT 1 FROM {p}deliveries WHERE id = ? FOR UPDATE", id).await?;
        self.about(connection, "SELECT 1 FROM {p}queue WHERE delivery_id = ? FOR UPDATE", id).await
    }

    async fn outcomes(
        &self,
        connection: &mut MySqlConnection,
        id: DeliveryId,
    ) -> Result<Vec<RecipientOutcome>, StoreError> {
        Ok(recorded(connection, &self.sql, &[id]).await?.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn relays(&self, connection: &mut MySqlConnection) -> Result<Vec<RelayStatus>, StoreError> {
        let text = "SELECT id, CAST({now} AS SIGNED) AS now, seen_at, in_flight, paused FROM {p}relays ORDER BY id";
        let text = self.sql.fill(text);
        let rows = self.sql.query(&text).bind(self.clock.test_micros()).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let seen_ago = row.number("now")?.saturating_sub(row.number("seen_at")?);
                let seen_ago = Duration::from_micros(unsigned(seen_ago));
                let in_flight = unsigned(row.number("in_flight")?);
                let id = row.text_or_null("id")?.unwrap_or_default();
                Ok(RelayStatus::new(id, seen_ago, in_flight, row.text_or_null("paused")?))
            })
            .collect()
    }

    async fn try_resend(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        self.lock(&mut tx, id).await?;
        let Some(row) = self.find(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::NotFound));
        };
        let state: State = word(&row, "state")?;
        if matches!(state, State::Pending | State::Leased) {
            // At once, not whenever the connection is next used: a claim passes by rows that are locked.
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::Unchanged(state)));
        }
        let outcomes = self.outcomes(&mut tx, id).await?;
        // Who it was for may make no sense, and then it becomes a dead letter again, with the reason.
        let kept = kept_on_resend(state, &recipients(&row).unwrap_or_default(), &outcomes);
        self.about(&mut tx, "DELETE FROM {p}recipients WHERE delivery_id = ?", id).await?;
        if !kept.is_empty() {
            let kept = list(kept.iter().map(|outcome| outcome_item(id, outcome)));
            self.sql.query(&self.sql.record_recipients).bind(kept).execute(&mut *tx).await?;
        }
        // The counts go on from where the delivery ended: in its row, or, of a sent one, in its last attempt.
        let text = self.sql.fill(
            "INSERT INTO {p}queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at, partial)
             SELECT d.id, d.priority, OCTET_LENGTH(d.body), {now}, GREATEST(COALESCE(e.token, 0), COALESCE(a.token, 0)),
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
        self.about(&mut tx, "DELETE FROM {p}ended WHERE delivery_id = ?", id).await?;
        tx.commit().await?;
        crate::store::notify(&self.notifier);
        session.finish(Ok(UpdateOutcome::Updated))
    }

    async fn try_cancel(&self, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN).await?;
        self.lock(&mut tx, id).await?;
        let Some(row) = self.find(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(UpdateOutcome::NotFound));
        };
        let state: State = word(&row, "state")?;
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
        self.about(&mut tx, "DELETE FROM {p}queue WHERE delivery_id = ?", id).await?;
        tx.commit().await?;
        session.finish(Ok(UpdateOutcome::Updated))
    }

    /// Deletes in portions, each from where the last one ended, so that no transaction grows long.
    async fn prune_state(&self, state: State, age: Duration, history_only: bool) -> Result<u64, StoreError> {
        // The last attempt stays with a delivery that stays: the numbers of a resend go on from it.
        let numbers = "(SELECT {what}(a.number) FROM {p}attempts a WHERE a.delivery_id = d.id)";
        let (first, last) = (numbers.replace("{what}", "MIN"), numbers.replace("{what}", "MAX"));
        let (narrowed, stays) =
            if history_only { (format!("{first} < {last}"), last) } else { ("TRUE".to_owned(), "0".to_owned()) };
        let old = format!(
            "LEFT JOIN {{p}}queue q ON q.delivery_id = d.id LEFT JOIN {{p}}ended e ON e.delivery_id = d.id
             WHERE {} AND q.delivery_id IS NULL AND d.created_at < {{now}} - ? AND {narrowed}",
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
        let portion = async |after: &[u8]| -> Result<Option<(DeliveryId, usize)>, StoreError> {
            let mut session = self.session().await?;
            let mut tx = session.begin_with(BEGIN).await?;
            // Found without locks, then locked, then looked at again: an operator may have resent one of them meanwhile.
            let query = self.sql.query(&find).bind(now).bind(age).bind(after.to_vec());
            let found = query.fetch_all(&mut *tx).await?;
            let Some(last) = found.last().map(|row| id(row, "id")).transpose()? else {
                tx.rollback().await?;
                return session.finish(Ok(None));
            };
            let found = self.sql.query(&lock).bind(with_numbers(&found)?).fetch_all(&mut *tx).await?;
            let query = self.sql.query(&check).bind(with_numbers(&found)?).bind(now).bind(age);
            let found = query.fetch_all(&mut *tx).await?;
            self.sql.query(&delete).bind(with_numbers(&found)?).execute(&mut *tx).await?;
            tx.commit().await?;
            session.finish(Ok(Some((last, found.len()))))
        };
        let mut affected = 0;
        // Before every id. An empty one would be NULL in a session with EMPTY_STRING_IS_NULL.
        let mut after = vec![0];
        while let Some((last, count)) = retry_conflicts(|| portion(&after)).await? {
            after = last.as_uuid().as_bytes().to_vec();
            affected += u64::try_from(count).unwrap_or(0);
        }
        Ok(affected)
    }
}

/// The ids found, in their order, with the numbers found.
fn with_numbers(rows: &[MySqlRow]) -> Result<String, StoreError> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push((id(row, "id")?, row.number("stays")?));
    }
    items.sort_unstable();
    Ok(numbered(items))
}

impl AdminStore for MySqlStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        super::migrate::migrate(&self.pool, &self.sql).await
    }

    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        // One snapshot: the state and the history must be of the same moment.
        let mut session = self.session().await?;
        let mut tx = session.begin_with(BEGIN_SNAPSHOT).await?;
        let Some(row) = self.find(&mut tx, id).await? else {
            tx.rollback().await?;
            return session.finish(Ok(None));
        };
        let text = self.sql.fill("SELECT * FROM {p}attempts WHERE delivery_id = ? ORDER BY number");
        let attempts = self.sql.query(&text).bind(id.as_uuid()).fetch_all(&mut *tx).await?;
        let attempts = attempts.iter().map(attempt).collect();
        let outcomes = self.outcomes(&mut tx, id).await?;
        tx.rollback().await?;
        session.finish(Ok(Some(delivery(&row, id, attempts, &outcomes))))
    }

    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        let text = self.sql.fill("SELECT format, `body` FROM {p}deliveries WHERE id = ?");
        let mut session = self.session().await?;
        let row = self.sql.query(&text).bind(id.as_uuid()).fetch_optional(&mut *session).await?;
        session.finish(Ok(()))?;
        row.map(|row| Ok(Encoded { format: row.text("format")?.into(), body: row.text("body")?.into() })).transpose()
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        let text = self.sql.fill(&format!(
            "SELECT s.*, (SELECT COUNT(*) FROM {{p}}attempts a WHERE a.delivery_id = s.id) AS attempts,
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
        rows.iter().map(|row| Ok(summary(row, id(row, "id")?))).collect()
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
        let mut stats = stats(everything, queued, leased, &ended)?;
        // Not subtracted by the server, which refuses what is out of range: other programs may write any number for a time.
        let now = row.number("now")?;
        let oldest_due = row.number_or_null("oldest_due")?.filter(|due| *due <= now);
        stats.oldest_due = oldest_due.map(|due| Duration::from_micros(unsigned(now.saturating_sub(due))));
        stats.relays = self.relays(&mut tx).await?;
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
