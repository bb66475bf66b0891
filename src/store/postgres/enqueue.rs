//! Inserts any number of deliveries with one statement, in the transaction that is open.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postrider_transport::DeliveryId;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::rows::Moment;
use super::sql::{DEFAULT_FORMAT, DEFAULT_IN_DOUBT, DEFAULT_PRIORITY, Sql};
use crate::state::Priority;
use crate::store::new_row::time_columns;
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError};

pub(super) const INSERT: &str = r#"
    INSERT INTO "{s}".deliveries
        (id, created_at, format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at)
    SELECT id, {now}, format, body, recipients::json, template_id, key, priority, when_in_doubt,
           CASE WHEN send_after THEN {now} ELSE 'epoch'::timestamptz END + send * interval '1 microsecond',
           CASE WHEN expire_after THEN {now} ELSE 'epoch'::timestamptz END + expire * interval '1 microsecond'
    FROM {rows}
         r (id, format, body, recipients, template_id, key, priority, when_in_doubt, send_after, send, expire_after, expire)"#;

/// One row of values. The server processes it faster than arrays.
pub(super) const ONE_ROW: &str = r#"(VALUES ($2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::smallint, $9::text, $10::bool,
                $11::bigint, $12::bool, $13::bigint))"#;

/// Many rows, from an array for each column. A null array means the default value in every row, or in the case of the template `$14`, which
/// all rows share. Each array that is not null costs time for each row.
pub(super) const ROWS_FROM_ARRAYS: &str = r#"(
        SELECT id, coalesce(format, '{format}'), body, recipients, coalesce(template_id, $14::text), key, coalesce(priority, {priority}::smallint),
               coalesce(when_in_doubt, '{when_in_doubt}'), send_after, send, expire_after, expire
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $9::text[], $10::bool[],
                    $11::bigint[], $12::bool[], $13::bigint[])
            u (id, format, body, recipients, template_id, key, priority, when_in_doubt, send_after, send, expire_after, expire))"#;

/// Skips rows whose key exists. The rows are in the order of their keys, so that two transactions cannot deadlock.
pub(super) const SKIP_EXISTING_KEYS: &str =
    " ORDER BY key ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING RETURNING id";

pub(super) const IDS_OF_KEYS: &str = r#"SELECT key, id FROM "{s}".deliveries WHERE key = ANY($1)"#;

pub(super) async fn insert(
    connection: &mut PgConnection,
    sql: &Sql,
    rows: &[NewRow],
    now: Option<Moment>,
) -> Result<Vec<DeliveryId>, StoreError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    if rows.iter().all(|row| row.key.is_none()) {
        match rows {
            [row] => insert_one(connection, sql, row, now).await?,
            rows => _ = bind_rows(sql, &sql.insert_many, rows, now).execute(connection).await?,
        }
        return Ok(rows.iter().map(|row| row.id).collect());
    }
    let inserted = bind_rows(sql, &sql.insert_keyed, rows, now).fetch_all(&mut *connection).await?;
    if inserted.len() == rows.len() {
        return Ok(rows.iter().map(|row| row.id).collect());
    }
    let inserted: HashSet<Uuid> = inserted.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
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
) -> Result<(), StoreError> {
    let ((send_after, send), (expire_after, expire)) = (time_columns(row.due), time_columns(row.expires));
    sql.query(&sql.insert_one)
        .bind(now)
        .bind(row.id.as_uuid())
        .bind(&row.message.format)
        .bind(&row.message.body)
        .bind(recipients_json(&row.recipients))
        .bind(row.template_id.as_deref())
        .bind(row.key.as_deref())
        .bind(priority_column(row.priority))
        .bind(row.when_in_doubt.as_str())
        .bind(send_after)
        .bind(send)
        .bind(expire_after)
        .bind(expire)
        .execute(connection)
        .await?;
    Ok(())
}

/// Binds many rows to a statement with an array for each column.
fn bind_rows(
    sql: &Sql,
    text: &Arc<str>,
    rows: &[NewRow],
    now: Option<Moment>,
) -> Query<'static, Postgres, PgArguments> {
    let (send_after, send): (Vec<_>, Vec<_>) = rows.iter().map(|row| time_columns(row.due)).unzip();
    let (expire_after, expire): (Vec<_>, Vec<_>) = rows.iter().map(|row| time_columns(row.expires)).unzip();
    let first = rows.first().and_then(|row| row.template_id.as_deref());
    let templates = omit_defaults(first, rows.iter().map(|row| row.template_id.as_deref()));
    let template = if templates.is_none() { first } else { None };
    sql.query(text)
        .bind(now)
        .bind(rows.iter().map(|row| row.id.as_uuid()).collect::<Vec<_>>())
        .bind(omit_defaults(DEFAULT_FORMAT, rows.iter().map(|row| row.message.format.as_str())))
        .bind(rows.iter().map(|row| row.message.body.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| recipients_json(&row.recipients)).collect::<Vec<_>>())
        .bind(templates)
        .bind(omit_defaults(None, rows.iter().map(|row| row.key.as_deref())))
        .bind(omit_defaults(priority_column(DEFAULT_PRIORITY), rows.iter().map(|row| priority_column(row.priority))))
        .bind(omit_defaults(DEFAULT_IN_DOUBT.as_str(), rows.iter().map(|row| row.when_in_doubt.as_str())))
        .bind(omit_defaults(false, send_after))
        .bind(omit_defaults(None, send))
        .bind(omit_defaults(false, expire_after))
        .bind(omit_defaults(None, expire))
        .bind(template)
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
