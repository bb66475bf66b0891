//! Adds to the counters. A transaction does it last, since their rows are locked until it ends.

use std::sync::Arc;

use serde_json::json;
use sqlx::mysql::MySqlConnection;

use super::rows::json_array;
use super::sql::Sql;
use crate::store::StoreError;
use crate::store::counters::Counts;

/// The largest length of a transport's name here, in characters.
const MAX_TRANSPORT: usize = 255;

pub(super) const ADD_TOTALS: &str = "
    INSERT INTO {p}totals (state, slot, `count`)
    SELECT t.state, {slot}, t.n FROM JSON_TABLE(?, '$[*]' COLUMNS (state {name} '$[0]', n BIGINT PATH '$[1]')) t
    ON DUPLICATE KEY UPDATE `count` = {p}totals.`count` + t.n";

pub(super) const ADD_HOURLY: &str = "
    INSERT INTO {p}hourly (hour, event, transport, slot, `count`)
    SELECT t.hour, t.event, t.transport, {slot}, t.n
    FROM JSON_TABLE(?, '$[*]' COLUMNS (
        hour BIGINT PATH '$[0]', event {name} '$[1]', transport VARCHAR(255) CHARACTER SET utf8mb4 PATH '$[2]', n BIGINT PATH '$[3]')) t
    ON DUPLICATE KEY UPDATE `count` = {p}hourly.`count` + t.n";

/// Adds the counts of settlements, to the slots of relays.
pub(super) async fn add_counts(connection: &mut MySqlConnection, sql: &Sql, counts: Counts) -> Result<(), StoreError> {
    add(connection, sql, [&sql.add_totals, &sql.add_hourly], counts).await
}

/// Adds the counts of an operator's call, to the slots of operators.
pub(super) async fn add_admin_counts(
    connection: &mut MySqlConnection,
    sql: &Sql,
    counts: Counts,
) -> Result<(), StoreError> {
    add(connection, sql, [&sql.fill(ADD_TOTALS), &sql.fill(ADD_HOURLY)], counts).await
}

async fn add(
    connection: &mut MySqlConnection,
    sql: &Sql,
    [add_totals, add_hourly]: [&Arc<str>; 2],
    counts: Counts,
) -> Result<(), StoreError> {
    let Counts { ended, hourly } = counts;
    // In a fixed order, so that two transactions with the same slot cannot deadlock.
    let totals = json_array(ended.into_iter().map(|(state, count)| json!([state, count])));
    let hourly = json_array(hourly.into_iter().map(|((hour, event, transport), count)| {
        let transport: String = transport.unwrap_or_default().chars().take(MAX_TRANSPORT).collect();
        json!([hour.saturating_mul(1_000), event.as_str(), transport, count])
    }));
    for (text, items) in [(add_totals, totals), (add_hourly, hourly)] {
        if items != "[]" {
            sql.query(text).bind(items).execute(&mut *connection).await?;
        }
    }
    Ok(())
}
