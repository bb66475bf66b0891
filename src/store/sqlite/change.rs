//! Resends, cancels and dismisses deliveries, any number in one transaction.

use std::collections::{BTreeMap, HashMap};

use postrider_transport::DeliveryId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};

use super::admin::WITH_STATE;
use super::rows::ids_as_json;
use super::settle::add_counts;
use crate::admin::UpdateOutcome;
use crate::audit::AuditContext;
use crate::operator::Change;
use crate::state::State;
use crate::store::counters::Counts;
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{Columns, read_enum, read_outcome, read_recipients};
use crate::store::{RecipientOutcome, StoreError};

/// The ids in the first parameter, a JSON array.
const CHOSEN: &str = "IN (SELECT value FROM json_each(?1))";

/// Deliveries with their states and rows, by the text of their ids.
type Found = BTreeMap<String, (State, SqliteRow)>;

/// Changes the deliveries, and records the changes.
pub(super) async fn change(
    connection: &mut SqliteConnection,
    change: Change,
    from: Option<State>,
    ids: &[DeliveryId],
    context: Option<&AuditContext>,
    now: i64,
) -> Result<Vec<UpdateOutcome>, StoreError> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let find = format!("{WITH_STATE} WHERE d.id {CHOSEN} AND d.key_until IS NULL");
    let rows = sqlx::query(AssertSqlSafe(find)).bind(ids_as_json(ids.clone())).fetch_all(&mut *connection).await?;
    let mut outcomes: HashMap<String, UpdateOutcome> = HashMap::new();
    let mut found = Found::new();
    for row in rows {
        let (id, state): (String, State) = (row.try_get("id")?, read_enum(&row, "state")?);
        let outcome = if !change.applies_to(state) || from.is_some_and(|from| from != state) {
            UpdateOutcome::Unchanged(state)
        } else if change == Change::Resend && !row.flag("has_message")? {
            UpdateOutcome::MessageDeleted
        } else {
            found.insert(id.clone(), (state, row));
            UpdateOutcome::Updated
        };
        outcomes.insert(id, outcome);
    }
    if !found.is_empty() {
        let chosen = ids_as_json(found.keys().cloned().collect());
        match change {
            Change::Resend => resend(connection, &found, &chosen, now).await?,
            Change::Cancel => cancel(connection, &chosen, now).await?,
            Change::Dismiss => {
                let dismiss =
                    format!("UPDATE postrider_ended SET state = 'dismissed', ended_at = ?2 WHERE delivery_id {CHOSEN}");
                sqlx::query(AssertSqlSafe(dismiss)).bind(&chosen).bind(now).execute(&mut *connection).await?;
            }
        }
        if let Some(context) = context {
            let record = "INSERT INTO postrider_audit (at, operator, action, delivery_id, target, note)
                SELECT ?2, ?3, ?4, value, ?5, ?6 FROM json_each(?1)";
            let query =
                sqlx::query(record).bind(&chosen).bind(now).bind(&context.operator).bind(change.action().as_str());
            query.bind(&context.target).bind(&context.note).execute(&mut *connection).await?;
        }
        add_counts(connection, Counts::of_changes(change, found.values().map(|(state, _)| *state), now)).await?;
    }
    Ok(ids.iter().map(|id| outcomes.get(id).copied().unwrap_or(UpdateOutcome::NotFound)).collect())
}

async fn resend(connection: &mut SqliteConnection, found: &Found, chosen: &str, now: i64) -> Result<(), StoreError> {
    clear_outcomes(connection, found, chosen).await?;
    // Token, attempts and cycle continue those of the last cycle: they are in the row of `postrider_ended` or, for a sent delivery, in its
    // last attempt. They stop below the largest value.
    let insert = format!(
        "INSERT INTO postrider_queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at)
         SELECT d.id, d.priority,
                coalesce(length(CAST(d.body AS BLOB)), 0) + coalesce(length(CAST(d.text AS BLOB)), 0)
                + coalesce(length(CAST(d.html AS BLOB)), 0)
                + (SELECT coalesce(sum(length(content)), 0) FROM json_each(d.blobs) JOIN postrider_blobs ON hash = value),
                ?2,
                max(coalesce(e.token, 0), coalesce(a.token, 0)),
                max(coalesce(e.attempts, 0), coalesce(a.number, 0)),
                min(max(coalesce(e.cycle, 1), coalesce(a.cycle, 1)), 2147483646) + 1, ?2
         FROM postrider_deliveries d
         LEFT JOIN postrider_ended e ON e.delivery_id = d.id
         LEFT JOIN postrider_attempts a ON a.delivery_id = d.id
              AND a.number = (SELECT max(number) FROM postrider_attempts WHERE delivery_id = d.id)
         WHERE d.id {CHOSEN}"
    );
    sqlx::query(AssertSqlSafe(insert)).bind(chosen).bind(now).execute(&mut *connection).await?;
    let delete = format!("DELETE FROM postrider_ended WHERE delivery_id {CHOSEN}");
    sqlx::query(AssertSqlSafe(delete)).bind(chosen).execute(&mut *connection).await?;
    Ok(())
}

async fn cancel(connection: &mut SqliteConnection, chosen: &str, now: i64) -> Result<(), StoreError> {
    let end = format!(
        "INSERT OR REPLACE INTO postrider_ended (delivery_id, state, ended_at, token, attempts, cycle)
         SELECT delivery_id, 'cancelled', ?2, token, attempts, cycle FROM postrider_queue WHERE delivery_id {CHOSEN}"
    );
    sqlx::query(AssertSqlSafe(end)).bind(chosen).bind(now).execute(&mut *connection).await?;
    let delete = format!("DELETE FROM postrider_queue WHERE delivery_id {CHOSEN}");
    sqlx::query(AssertSqlSafe(delete)).bind(chosen).execute(&mut *connection).await?;
    Ok(())
}

/// Deletes the recorded outcomes that do not survive a resend.
async fn clear_outcomes(connection: &mut SqliteConnection, found: &Found, chosen: &str) -> Result<(), StoreError> {
    let select = format!(
        "SELECT delivery_id, address, outcome, reply FROM postrider_recipients WHERE delivery_id {CHOSEN} AND outcome IS NOT NULL"
    );
    let mut recorded: HashMap<String, Vec<RecipientOutcome>> = HashMap::new();
    for row in sqlx::query(AssertSqlSafe(select)).bind(chosen).fetch_all(&mut *connection).await? {
        recorded.entry(row.try_get("delivery_id")?).or_default().push(read_outcome(&row)?);
    }
    if recorded.is_empty() {
        return Ok(());
    }
    let clear = format!(
        "UPDATE postrider_recipients SET outcome = NULL, reply = NULL WHERE delivery_id {CHOSEN} AND outcome IS NOT NULL"
    );
    sqlx::query(AssertSqlSafe(clear)).bind(chosen).execute(&mut *connection).await?;
    for (id, outcomes) in &recorded {
        let Some((state, row)) = found.get(id) else { continue };
        // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
        let recipients = read_recipients(row).unwrap_or_default();
        for outcome in outcomes_kept_on_resend(*state, &recipients, outcomes) {
            sqlx::query("INSERT OR REPLACE INTO postrider_recipients (delivery_id, address, outcome, reply) VALUES (?1, ?2, ?3, ?4)")
                .bind(id)
                .bind(outcome.recipient.as_str())
                .bind(outcome.state.as_str())
                .bind(outcome.reply)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}
