//! Reads rows into types, and writes types as the JSON arrays in which statements receive lists.

use postrider_transport::{DeliveryId, Scope};
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use uuid::Uuid;

use super::sql::Sql;
use crate::clock::to_micros;
use crate::delivery::Attempt;
use crate::state::State;
use crate::store::row::read_outcome;
use crate::store::{LeaseKey, RecipientOutcome, Settlement, StoreError};

pub(super) fn read_id(row: &MySqlRow, column: &str) -> Result<DeliveryId, StoreError> {
    Ok(row.try_get::<Uuid, _>(column)?.into())
}

pub(super) fn hex(id: DeliveryId) -> String {
    id.as_uuid().simple().to_string()
}

/// A list as a JSON array.
pub(super) fn json_array(items: impl IntoIterator<Item = Value>) -> String {
    Value::from_iter(items).to_string()
}

/// The largest length of a list of texts from outside, unless it is one item. A statement must fit into the server's `max_allowed_packet`,
/// and a next hop may answer each of 10,000 recipients with a long reply.
const MAX_LIST: usize = 1 << 20;

/// A list as JSON arrays that are not too long for a statement each. None if the list is empty.
pub(super) fn json_arrays(items: impl IntoIterator<Item = Value>) -> Vec<String> {
    let mut arrays: Vec<String> = Vec::new();
    for item in items.into_iter().map(|item| item.to_string()) {
        match arrays.last_mut() {
            Some(array) if array.len() + item.len() < MAX_LIST => array.push(','),
            _ => arrays.push("[".to_owned()),
        }
        if let Some(array) = arrays.last_mut() {
            array.push_str(&item);
        }
    }
    arrays.iter_mut().for_each(|array| array.push(']'));
    arrays
}

/// Ids as a JSON array, each with a number.
pub(super) fn ids_json(items: impl IntoIterator<Item = (DeliveryId, i64)>) -> String {
    json_array(items.into_iter().map(|(id, number)| json!([hex(id), number])))
}

/// Lease keys as a JSON array in the order of their ids. All statements lock in this order, so that they cannot deadlock.
pub(super) fn keys_json<'a>(keys: impl Iterator<Item = &'a LeaseKey>) -> String {
    let mut keys: Vec<_> = keys.map(|key| (key.id, key.token)).collect();
    keys.sort_unstable();
    keys.dedup();
    ids_json(keys)
}

/// Limits a count to the range of its column.
fn limit_count(count: u32) -> u32 {
    count.min(i32::MAX.unsigned_abs())
}

/// A row of `attempts`.
pub(super) fn attempt_item(key: LeaseKey, attempt: &Attempt) -> Value {
    json!([
        hex(key.id),
        limit_count(attempt.number),
        limit_count(attempt.cycle),
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

/// A row of `attempts` for a plainly sent delivery.
pub(super) fn sent_item(key: LeaseKey, attempt: &Attempt) -> Value {
    json!([
        hex(key.id),
        key.token,
        to_micros(attempt.started_at),
        to_micros(attempt.finished_at),
        limit_count(attempt.number),
        limit_count(attempt.cycle),
        attempt.transport,
        attempt.reply,
        attempt.provider_id,
    ])
}

/// A row of `recipients`.
pub(super) fn outcome_item(id: DeliveryId, outcome: &RecipientOutcome) -> Value {
    json!([hex(id), outcome.recipient.as_str(), outcome.state.as_str(), outcome.reply])
}

/// A row of `ended`.
pub(super) struct EndItem<'a> {
    pub(super) key: LeaseKey,
    pub(super) state: State,
    pub(super) reason: Option<&'a str>,
    /// In microseconds.
    pub(super) ended_at: i64,
    /// From the row of the queue.
    pub(super) attempts: i64,
    /// From the row of the queue.
    pub(super) cycle: i64,
}

impl EndItem<'_> {
    pub(super) fn to_json(&self) -> Value {
        let Self { key, state, reason, ended_at, attempts, cycle } = self;
        json!([hex(key.id), state.as_str(), reason, ended_at, key.token, attempts, cycle])
    }
}

/// A delivery that goes back into the queue at `due_at`, in microseconds.
pub(super) fn reschedule_item(settlement: &Settlement, due_at: i64) -> Value {
    json!([
        hex(settlement.key.id),
        due_at,
        u8::from(settlement.attempt.is_some()),
        limit_count(settlement.charged_attempts),
        u8::from(!settlement.recipients.is_empty()),
    ])
}

/// Selects the recorded outcomes. A recipient without one has the outcome of the delivery.
pub(super) const RECORDED: &str = "
    SELECT r.delivery_id, r.address, r.outcome, r.reply
    FROM {keys} {p}recipients r FORCE INDEX (PRIMARY) ON r.delivery_id = UNHEX(k.id)
    WHERE r.outcome IS NOT NULL";

/// Reads the recorded outcomes of the recipients of several deliveries.
pub(super) async fn read_outcomes(
    connection: &mut MySqlConnection,
    sql: &Sql,
    ids: &[DeliveryId],
) -> Result<Vec<(DeliveryId, RecipientOutcome)>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let ids = ids_json(ids.iter().map(|id| (*id, 0)));
    let rows = sql.query(&sql.recorded).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((read_id(row, "delivery_id")?, read_outcome(row)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_becomes_several_arrays() {
        assert_eq!(json_arrays([]), Vec::<String>::new());
        assert_eq!(json_arrays([json!(["a"]), json!(["b"])]), [r#"[["a"],["b"]]"#]);
        let items: Vec<Value> = (0..10).map(|n| json!([n, "x".repeat(MAX_LIST / 4)])).collect();
        let arrays = json_arrays(items.clone());
        assert_eq!(arrays.len(), 4);
        assert!(arrays.iter().all(|array| array.len() <= MAX_LIST));
        let read = arrays.iter().flat_map(|array| serde_json::from_str::<Vec<Value>>(array).unwrap());
        assert_eq!(read.collect::<Vec<_>>(), items);
        // An item alone may be longer.
        assert_eq!(json_arrays([json!("y".repeat(MAX_LIST)), json!(1)]).len(), 2);
    }
}
