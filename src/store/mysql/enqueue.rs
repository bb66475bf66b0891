//! Inserting, in portions of a few fixed sizes.

use std::collections::HashMap;

use postrider_transport::DeliveryId;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Row};

use super::rows::id;
use super::sql::{BEGIN, PORTIONS, Sql};
use crate::clock::{micros, to_micros};
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError, StoreErrorKind, When};

/// What one statement carries at the most, unless a single mail is larger: well under the 16 MiB that a MariaDB server takes if
/// nothing else was set (`max_allowed_packet`).
const LARGEST: usize = 4 << 20;

/// A moment as two columns: whether it counts from now, and how many microseconds.
fn moment(when: Option<When>) -> (bool, Option<i64>) {
    match when {
        None => (false, None),
        Some(When::At(time)) => (false, Some(to_micros(time))),
        Some(When::After(wait)) => (true, Some(micros(wait))),
    }
}

/// The rows in portions, each with the place of its size in [`PORTIONS`].
fn portions<'a>(mut rows: &'a [&'a NewRow]) -> Vec<(usize, &'a [&'a NewRow])> {
    let mut portions = Vec::new();
    while !rows.is_empty() {
        let fits = |size: usize| {
            let octets = |rows: &[&NewRow]| rows.iter().map(|row| row.message.body.len()).sum::<usize>();
            rows.get(..size).is_some_and(|rows| octets(rows) <= LARGEST)
        };
        let place = PORTIONS.iter().position(|size| fits(*size)).unwrap_or(PORTIONS.len() - 1);
        let (portion, rest) = rows.split_at(PORTIONS[place]);
        portions.push((place, portion));
        rows = rest;
    }
    portions
}

/// Inserts in a transaction of its own, or, where one statement does it, in that.
pub(super) async fn insert(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<i64>,
) -> Result<Vec<DeliveryId>, StoreError> {
    if let [row] = rows
        && row.key.is_none()
    {
        return insert_in(connection, sql, rows, now).await;
    }
    let mut tx = connection.begin_with(BEGIN).await?;
    let ids = insert_in(&mut tx, sql, rows, now).await?;
    tx.commit().await?;
    Ok(ids)
}

pub(super) async fn insert_in(
    connection: &mut MySqlConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<i64>,
) -> Result<Vec<DeliveryId>, StoreError> {
    // Found out now, and not when a relay has to record what became of it.
    let too_long = |row: &NewRow| row.recipients.iter().any(|r| r.as_str().chars().count() > NewRow::MAX_RECIPIENT);
    if rows.iter().any(too_long) {
        let text = format!("an address has more than {} characters", NewRow::MAX_RECIPIENT);
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    let (keyed, plain): (Vec<&NewRow>, Vec<&NewRow>) = rows.iter().partition(|row| row.key.is_some());
    for (place, portion) in portions(&plain) {
        insert_portion(connection, sql, &sql.insert[place], portion, now).await?;
    }
    // A key that is taken leaves the row as it is; which rows those were, the server's count does not say. Without a key the plain
    // statement serves, so that an id that is taken is an error.
    let mut first = HashMap::new();
    for (place, portion) in portions(&keyed) {
        insert_portion(connection, sql, &sql.insert_keyed[place], portion, now).await?;
        first_of_keys(connection, sql, place, portion, &mut first).await?;
    }
    rows.iter()
        .map(|row| match row.key.as_deref() {
            None => Ok(row.id),
            Some(key) => {
                let id = first.get(key.as_bytes()).copied();
                id.ok_or_else(|| corrupt("a key was taken, and its delivery cannot be seen"))
            }
        })
        .collect()
}

async fn insert_portion(
    connection: &mut MySqlConnection,
    sql: &Sql,
    text: &std::sync::Arc<str>,
    rows: &[&NewRow],
    now: Option<i64>,
) -> Result<(), StoreError> {
    let mut query = sql.query(text);
    for row in rows {
        let (send_after, send) = moment(row.due);
        let (expire_after, expire) = moment(row.expires);
        query = query
            .bind(row.id.as_uuid())
            .bind(now)
            .bind(row.message.format.clone())
            .bind(row.message.body.clone())
            .bind(recipients_json(&row.recipients))
            .bind(row.template_id.clone())
            .bind(row.key.as_ref().map(|key| key.as_bytes().to_vec()))
            .bind(i64::from(row.priority.level()))
            .bind(row.when_in_doubt.as_str())
            .bind(send_after)
            .bind(now)
            .bind(send)
            .bind(expire_after)
            .bind(now)
            .bind(expire);
    }
    query.execute(connection).await?;
    Ok(())
}

/// Adds the delivery that has each key.
async fn first_of_keys(
    connection: &mut MySqlConnection,
    sql: &Sql,
    place: usize,
    rows: &[&NewRow],
    first: &mut HashMap<Vec<u8>, DeliveryId>,
) -> Result<(), StoreError> {
    let mut query = sql.query(&sql.ids_of_keys[place]);
    for row in rows {
        query = query.bind(row.key.as_ref().map(|key| key.as_bytes().to_vec()));
    }
    for row in &query.fetch_all(connection).await? {
        first.insert(row.try_get("key")?, id(row, "id")?);
    }
    Ok(())
}
