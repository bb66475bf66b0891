//! Inserts any number of deliveries, in the transaction that is open.

use std::collections::{HashMap, HashSet};

use postrider_transport::{DeliveryId, Recipient};
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::blobs::store_blobs;
use super::rows::Moment;
use super::sql::{DEFAULT_FORMAT, DEFAULT_IN_DOUBT, DEFAULT_PRIORITY, Sql};
use crate::state::Priority;
use crate::store::blobs::distinct_hashes;
use crate::store::new_row::{stored_subject, tags_json, time_columns, traceparent_column};
use crate::store::recipients::deduplicate;
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError};

pub(super) const INSERT_ONE: &str = r#"
    SELECT "{s}".insert_delivery($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"#;

pub(super) const INSERT_MANY: &str = r#"
    SELECT "{s}".insert_deliveries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
        $24)"#;

pub(super) const IDS_OF_KEYS: &str = r#"SELECT key, id FROM "{s}".deliveries WHERE key = ANY($1)"#;

/// Whether one statement inserts the rows. Otherwise the caller begins a transaction.
pub(super) fn is_one_statement(rows: &[NewRow]) -> bool {
    rows.iter().all(|row| (row.key.is_none() || rows.len() == 1) && row.message.blobs.is_empty())
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<Moment>,
) -> Result<Vec<DeliveryId>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    rows.iter().try_for_each(NewRow::check)?;
    if let [row] = rows
        && is_one_statement(rows)
    {
        return Ok(vec![insert_one(connection, sql, row, now).await?]);
    }
    store_blobs(connection, sql, rows).await?;
    let inserted: Option<Vec<Uuid>> = insert_many(sql, rows, now).fetch_one(&mut *connection).await?.try_get(0)?;
    let Some(inserted) = inserted else {
        return Ok(rows.iter().map(|row| row.id).collect());
    };
    let inserted: HashSet<Uuid> = inserted.into_iter().collect();
    let existing = ids_of_keys(connection, sql, rows).await?;
    rows.iter()
        .map(|row| {
            if inserted.contains(&row.id.as_uuid()) {
                return Ok(row.id);
            }
            let id = row.key.as_ref().and_then(|key| existing.get(key));
            id.map(|id| (*id).into()).ok_or_else(|| corrupt("a key exists, but its delivery is not visible"))
        })
        .collect()
}

async fn insert_one(
    connection: &mut PgConnection,
    sql: &Sql,
    row: &NewRow,
    now: Option<Moment>,
) -> Result<DeliveryId, StoreError> {
    let ((due_after, due), (expires_after, expires)) = (time_columns(row.due), time_columns(row.expires));
    let recipients = deduplicate(row.recipients.clone());
    let others: Vec<&str> = recipients.iter().skip(1).map(Recipient::as_str).collect();
    let inserted: Uuid = sql
        .scalar(&sql.insert_one)
        .bind(now)
        .bind(row.id.as_uuid())
        .bind(&row.message.format)
        .bind(&row.message.body)
        .bind(row.message.text.as_deref())
        .bind(row.message.html.as_deref())
        .bind(size_column(row))
        .bind(recipients_json(&row.recipients))
        .bind((!others.is_empty()).then_some(others))
        .bind(stored_subject(&row.summary))
        .bind(row.template_id.as_deref())
        .bind(tags_json(&row.summary.tags))
        .bind(row.key.as_deref())
        .bind(priority_column(row.priority))
        .bind(row.when_in_doubt.as_str())
        .bind(due_after)
        .bind(due)
        .bind(expires_after)
        .bind(expires)
        .bind(traceparent_column(row))
        .fetch_one(connection)
        .await?;
    Ok(inserted.into())
}

/// The statement for many rows, with an array for each column.
fn insert_many(sql: &Sql, rows: &[NewRow], now: Option<Moment>) -> Query<'static, Postgres, PgArguments> {
    let (due_after, due): (Vec<_>, Vec<_>) = rows.iter().map(|row| time_columns(row.due)).unzip();
    let (expires_after, expires): (Vec<_>, Vec<_>) = rows.iter().map(|row| time_columns(row.expires)).unzip();
    let hashes: Vec<_> = rows.iter().map(|row| distinct_hashes(&row.message)).collect();
    let counts = hashes.iter().map(|hashes| i16::try_from(hashes.len()).unwrap_or(i16::MAX));
    let others = rows.iter().flat_map(|row| {
        let recipients = deduplicate(row.recipients.clone());
        recipients.into_iter().skip(1).map(|other| (row.id.as_uuid(), other.as_str().to_owned()))
    });
    let (other_ids, other_addresses): (Vec<_>, Vec<_>) = others.unzip();
    let carried = rows
        .iter()
        .zip(&hashes)
        .flat_map(|(row, hashes)| hashes.iter().map(|hash| (row.id.as_uuid(), hash.as_bytes().to_vec())));
    let (carrier_ids, carried): (Vec<_>, Vec<_>) = carried.unzip();
    sql.query(&sql.insert_many)
        .bind(now)
        .bind(rows.iter().map(|row| row.id.as_uuid()).collect::<Vec<_>>())
        .bind(omit_defaults(DEFAULT_FORMAT, rows.iter().map(|row| row.message.format.as_str())))
        .bind(rows.iter().map(|row| row.message.body.as_str()).collect::<Vec<_>>())
        .bind(omit_defaults(None, rows.iter().map(|row| row.message.text.as_deref())))
        .bind(omit_defaults(None, rows.iter().map(|row| row.message.html.as_deref())))
        .bind(rows.iter().map(size_column).collect::<Vec<_>>())
        .bind(omit_defaults(0, counts))
        .bind(rows.iter().map(|row| recipients_json(&row.recipients)).collect::<Vec<_>>())
        .bind(omit_defaults(None, rows.iter().map(|row| stored_subject(&row.summary))))
        .bind(omit_defaults(None, rows.iter().map(|row| row.template_id.as_deref())))
        .bind(omit_defaults(None, rows.iter().map(|row| tags_json(&row.summary.tags))))
        .bind(omit_defaults(None, rows.iter().map(|row| row.key.as_deref())))
        .bind(omit_defaults(priority_column(DEFAULT_PRIORITY), rows.iter().map(|row| priority_column(row.priority))))
        .bind(omit_defaults(DEFAULT_IN_DOUBT.as_str(), rows.iter().map(|row| row.when_in_doubt.as_str())))
        .bind(omit_defaults(false, due_after))
        .bind(omit_defaults(None, due))
        .bind(omit_defaults(false, expires_after))
        .bind(omit_defaults(None, expires))
        .bind((!other_ids.is_empty()).then_some(other_ids))
        .bind((!other_addresses.is_empty()).then_some(other_addresses))
        .bind((!carrier_ids.is_empty()).then_some(carrier_ids))
        .bind((!carried.is_empty()).then_some(carried))
        .bind(omit_defaults(None, rows.iter().map(traceparent_column)))
}

fn size_column(row: &NewRow) -> i32 {
    i32::try_from(row.message.size()).unwrap_or(i32::MAX)
}

/// Collects a column. `None` if each row has the default value, which the statement then fills in.
fn omit_defaults<T: PartialEq>(default: T, column: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let column: Vec<T> = column.into_iter().collect();
    column.iter().any(|value| *value != default).then_some(column)
}

fn priority_column(priority: Priority) -> i16 {
    priority.level().into()
}

/// Finds the delivery of each key.
async fn ids_of_keys(
    connection: &mut PgConnection,
    sql: &Sql,
    rows: &[NewRow],
) -> Result<HashMap<String, Uuid>, StoreError> {
    let keys: Vec<&str> = rows.iter().filter_map(|row| row.key.as_deref()).collect();
    let found = sql.query(&sql.ids_of_keys).bind(keys).fetch_all(connection).await?;
    found.iter().map(|row| Ok((row.try_get("key")?, row.try_get("id")?))).collect()
}
