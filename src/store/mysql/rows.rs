//! From rows to types, and from types to the JSON in which lists go to the server.

use postrider_transport::{DeliveryId, Scope};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use uuid::Uuid;

use super::sql::Sql;
use crate::clock::to_micros;
use crate::delivery::Attempt;
use crate::store::row::outcome;
use crate::store::{LeaseKey, RecipientOutcome, StoreError};

pub(super) fn id(row: &MySqlRow, column: &str) -> Result<DeliveryId, StoreError> {
    Ok(row.try_get::<Uuid, _>(column)?.into())
}

fn hex(id: DeliveryId) -> String {
    id.as_uuid().simple().to_string()
}

/// A list in the form that the statements take.
pub(super) fn list(items: impl IntoIterator<Item = Value>) -> String {
    Value::from_iter(items).to_string()
}

/// Ids, each with a number.
pub(super) fn numbered(items: impl IntoIterator<Item = (DeliveryId, i64)>) -> String {
    list(items.into_iter().map(|(id, number)| json!([hex(id), number])))
}

/// Keys in the order of their ids, in which everybody locks, so that no two wait for each other.
pub(super) fn keys<'a>(keys: impl Iterator<Item = &'a LeaseKey>) -> String {
    let mut keys: Vec<_> = keys.map(|key| (key.id, key.token)).collect();
    keys.sort_unstable();
    keys.dedup();
    numbered(keys)
}

/// A count as its column can hold it.
fn count(count: u32) -> u32 {
    count.min(i32::MAX.unsigned_abs())
}

pub(super) fn attempt_item(key: LeaseKey, attempt: &Attempt) -> Value {
    json!([
        hex(key.id),
        count(attempt.number),
        count(attempt.cycle),
        key.token,
        to_micros(attempt.started_at),
        to_micros(attempt.finished_at),
        attempt.outcome.as_str(),
        attempt.scope.map(Scope::as_str),
        u8::from(attempt.sure),
        u8::from(attempt.charged),
        attempt.error,
        attempt.reply,
        attempt.provider_id,
        attempt.transport,
        attempt.note,
    ])
}

/// An attempt of a settlement that is plainly sent.
pub(super) fn sent_item(key: LeaseKey, attempt: &Attempt) -> Value {
    json!([
        hex(key.id),
        key.token,
        to_micros(attempt.started_at),
        to_micros(attempt.finished_at),
        count(attempt.number),
        count(attempt.cycle),
        attempt.transport,
        attempt.reply,
        attempt.provider_id,
    ])
}

pub(super) fn outcome_item(id: DeliveryId, outcome: &RecipientOutcome) -> Value {
    json!([hex(id), outcome.recipient.as_str(), outcome.state.as_str(), outcome.reply])
}

/// How a delivery ended, from the counts in its row of the queue.
pub(super) fn end_item(key: LeaseKey, state: &str, reason: Option<&str>, at: i64, counts: (i64, i64)) -> Value {
    json!([hex(key.id), state, reason, at, key.token, counts.0, counts.1])
}

/// A delivery that goes back into the queue.
pub(super) fn back_item(id: DeliveryId, due_at: i64, called: bool, charged_attempts: u32, partial: bool) -> Value {
    json!([hex(id), due_at, u8::from(called), i32::try_from(charged_attempts).unwrap_or(i32::MAX), u8::from(partial)])
}

/// The outcomes that differ from their delivery's, of all the deliveries given.
pub(super) async fn recorded(
    connection: &mut MySqlConnection,
    sql: &Sql,
    ids: &[DeliveryId],
) -> Result<Vec<(DeliveryId, RecipientOutcome)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = numbered(ids.iter().map(|id| (*id, 0)));
    let rows = sql.query(&sql.recorded).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((id(row, "delivery_id")?, outcome(row)?))).collect()
}
