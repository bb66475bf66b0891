//! Inserting: one statement however many there are, in whatever transaction is open.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use postrider_transport::DeliveryId;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use sqlx::{Postgres, Row};
use uuid::Uuid;

use super::rows::Moment;
use super::sql::{Sql, USUAL_FORMAT, USUAL_IN_DOUBT, USUAL_PRIORITY};
use crate::clock::{micros, to_micros};
use crate::state::Priority;
use crate::store::row::{corrupt, recipients_json};
use crate::store::{NewRow, StoreError, When};

/// A moment as two columns: whether it counts from now, and how many microseconds.
fn moment(when: Option<When>) -> (bool, Option<i64>) {
    match when {
        None => (false, None),
        Some(When::At(time)) => (false, Some(to_micros(time))),
        Some(When::After(wait)) => (true, Some(micros(wait))),
    }
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
    if rows.iter().all(|row| row.key.is_none()) {
        match rows {
            [row] => insert_one(connection, sql, row, now).await?,
            rows => _ = many(sql, &sql.insert_many, rows, now).execute(connection).await?,
        }
        return Ok(rows.iter().map(|row| row.id).collect());
    }
    let inserted = many(sql, &sql.insert_keyed, rows, now).fetch_all(&mut *connection).await?;
    if inserted.len() == rows.len() {
        return Ok(rows.iter().map(|row| row.id).collect());
    }
    let inserted: HashSet<Uuid> = inserted.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    let first = first_of_keys(connection, sql, rows).await?;
    rows.iter()
        .map(|row| {
            if inserted.contains(&row.id.as_uuid()) {
                return Ok(row.id);
            }
            let taken = row.key.as_ref().and_then(|key| first.get(key));
            taken.map(|id| (*id).into()).ok_or_else(|| corrupt("a key was taken, and its delivery cannot be seen"))
        })
        .collect()
}

async fn insert_one(
    connection: &mut PgConnection,
    sql: &Sql,
    row: &NewRow,
    now: Option<Moment>,
) -> Result<(), StoreError> {
    let ((send_after, send), (expire_after, expire)) = (moment(row.due), moment(row.expires));
    sql.query(&sql.insert_one)
        .bind(now)
        .bind(row.id.as_uuid())
        .bind(&row.message.format)
        .bind(&row.message.body)
        .bind(recipients_json(&row.recipients))
        .bind(row.template_id.as_deref())
        .bind(row.key.as_deref())
        .bind(level(row.priority))
        .bind(row.when_in_doubt.as_str())
        .bind(send_after)
        .bind(send)
        .bind(expire_after)
        .bind(expire)
        .execute(connection)
        .await?;
    Ok(())
}

/// A statement over arrays, one for each column.
fn many(sql: &Sql, text: &Arc<str>, rows: &[NewRow], now: Option<Moment>) -> Query<'static, Postgres, PgArguments> {
    let (send_after, send): (Vec<_>, Vec<_>) = rows.iter().map(|row| moment(row.due)).unzip();
    let (expire_after, expire): (Vec<_>, Vec<_>) = rows.iter().map(|row| moment(row.expires)).unzip();
    let first = rows.first().and_then(|row| row.template_id.as_deref());
    let templates = unless_all(first, rows.iter().map(|row| row.template_id.as_deref()));
    let template = if templates.is_none() { first } else { None };
    sql.query(text)
        .bind(now)
        .bind(rows.iter().map(|row| row.id.as_uuid()).collect::<Vec<_>>())
        .bind(unless_all(USUAL_FORMAT, rows.iter().map(|row| row.message.format.as_str())))
        .bind(rows.iter().map(|row| row.message.body.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| recipients_json(&row.recipients)).collect::<Vec<_>>())
        .bind(templates)
        .bind(unless_all(None, rows.iter().map(|row| row.key.as_deref())))
        .bind(unless_all(level(USUAL_PRIORITY), rows.iter().map(|row| level(row.priority))))
        .bind(unless_all(USUAL_IN_DOUBT.as_str(), rows.iter().map(|row| row.when_in_doubt.as_str())))
        .bind(unless_all(false, send_after))
        .bind(unless_all(None, send))
        .bind(unless_all(false, expire_after))
        .bind(unless_all(None, expire))
        .bind(template)
}

/// A column; nothing where each row has the same usual value, which the statement then puts in.
fn unless_all<T: PartialEq>(usual: T, column: impl IntoIterator<Item = T>) -> Option<Vec<T>> {
    let column: Vec<T> = column.into_iter().collect();
    column.iter().any(|value| *value != usual).then_some(column)
}

fn level(priority: Priority) -> i16 {
    priority.level().into()
}

/// The delivery that has each key.
async fn first_of_keys(
    connection: &mut PgConnection,
    sql: &Sql,
    rows: &[NewRow],
) -> Result<HashMap<String, Uuid>, StoreError> {
    let keys: Vec<&str> = rows.iter().filter_map(|row| row.key.as_deref()).collect();
    let found = sql.query(&sql.ids_of_keys).bind(keys).fetch_all(connection).await?;
    found.iter().map(|row| Ok((row.try_get("key")?, row.try_get("id")?))).collect()
}
