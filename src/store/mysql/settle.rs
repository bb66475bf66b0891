//! Writing what became of leased deliveries. A batch first locks the rows whose tokens are the present ones, and then changes these
//! rows and no others. What was changed is not read from the server's counts: they leave out, or not, rows that an update left as
//! they were. Deleted rows they do count: where all were sent, as nearly always, and all are still held, one look at them is enough.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::rows::{attempt_item, back_item, end_item, id, keys, list, numbered, outcome_item, sent_item};
use super::sql::{BEGIN, Sql};
use crate::clock::micros;
use crate::state::State;
use crate::store::row::Columns;
use crate::store::{ClaimId, LeaseKey, Next, Settled, Settlement, StoreError};

/// A row of the queue that is locked and held under the token that was given.
struct Held {
    attempts: i64,
    cycle: i64,
}

/// Locks what is held under the given keys; with it comes the time.
async fn hold<'a>(
    connection: &mut MySqlConnection,
    sql: &Sql,
    wanted: impl Iterator<Item = &'a LeaseKey>,
    test_now: Option<i64>,
) -> Result<(HashMap<LeaseKey, Held>, i64), StoreError> {
    let rows = sql.query(&sql.hold).bind(test_now).bind(keys(wanted)).fetch_all(connection).await?;
    let now = rows.first().map_or(Ok(0), |row| row.number("now"))?;
    let mut held = HashMap::with_capacity(rows.len());
    for row in &rows {
        let key = LeaseKey { id: id(row, "delivery_id")?, token: row.number("token")? };
        held.insert(key, Held { attempts: row.number("attempts")?, cycle: row.number("cycle")? });
    }
    Ok((held, now))
}

pub(super) async fn settle(
    connection: &mut MySqlConnection,
    sql: &Sql,
    settlements: &[Settlement],
    test_now: Option<i64>,
) -> Result<Vec<Settled>, StoreError> {
    if let Some(settled) = settle_sent(connection, sql, settlements).await? {
        return Ok(settled);
    }
    let mut tx = connection.begin_with(BEGIN).await?;
    let (held, now) = hold(&mut tx, sql, settlements.iter().map(|settlement| &settlement.key), test_now).await?;
    // A second settlement of the same delivery in one batch finds nothing left.
    let mut settled = HashSet::with_capacity(held.len());
    let first: Vec<bool> = settlements.iter().map(|s| held.contains_key(&s.key) && settled.insert(s.key)).collect();
    let done = || settlements.iter().zip(&first).filter_map(|(settlement, first)| first.then_some(settlement));
    if settled.is_empty() {
        tx.rollback().await?;
        return Ok(vec![Settled::LeaseLost; settlements.len()]);
    }

    let gone = done().filter(|s| !matches!(s.next, Next::Pending { .. })).map(|s| (s.key.id, 0));
    let mut back = Vec::new();
    let mut ends = Vec::new();
    for settlement in done() {
        let counts = held.get(&settlement.key).map_or((0, 1), |held| (held.attempts, held.cycle));
        let end = |state: State, reason| end_item(settlement.key, state.as_str(), reason, now, counts);
        let (called, partial) = (settlement.attempt.is_some(), !settlement.recipients.is_empty());
        match &settlement.next {
            Next::Pending { after } => {
                let due_at = now.saturating_add(micros(*after).max(1_000));
                back.push(back_item(settlement.key.id, due_at, called, settlement.charged_attempts, partial));
            }
            // The attempt's own row is all that a sent delivery needs to be known by.
            Next::Sent if called => {}
            Next::Sent => ends.push(end(State::Sent, None)),
            Next::Dead { reason } => ends.push(end(State::Dead, Some(reason.as_str()))),
            Next::InDoubt { reason } => ends.push(end(State::InDoubt, Some(reason.as_str()))),
        }
    }
    let sent = done().filter(|s| s.is_plainly_sent()).filter_map(|s| Some(sent_item(s.key, s.attempt.as_ref()?)));
    let attempts = done().filter(|s| !s.is_plainly_sent());
    let attempts = attempts.filter_map(|s| Some(attempt_item(s.key, s.attempt.as_ref()?)));
    let outcomes = done().flat_map(|s| s.recipients.iter().map(|outcome| outcome_item(s.key.id, outcome)));
    let steps = [
        (&sql.leave, numbered(gone)),
        (&sql.give_back, list(back)),
        (&sql.record_sent, list(sent)),
        (&sql.record_attempts, list(attempts)),
        (&sql.record_ends, list(ends)),
        (&sql.record_recipients, list(outcomes)),
    ];
    for (text, items) in steps {
        if items != "[]" {
            sql.query(text).bind(items).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    Ok(first.into_iter().map(|first| if first { Settled::Applied } else { Settled::LeaseLost }).collect())
}

/// Writes a batch of which all was plainly sent. Nothing is written, and nothing returned, where it is another, or one of the leases
/// is lost.
async fn settle_sent(
    connection: &mut MySqlConnection,
    sql: &Sql,
    settlements: &[Settlement],
) -> Result<Option<Vec<Settled>>, StoreError> {
    if !settlements.iter().all(Settlement::is_plainly_sent) {
        return Ok(None);
    }
    let mut firsts = HashSet::with_capacity(settlements.len());
    let results = settlements.iter().map(|s| if firsts.insert(s.key) { Settled::Applied } else { Settled::LeaseLost });
    let results: Vec<Settled> = results.collect();
    let mut tx = connection.begin_with(BEGIN).await?;
    let left = sql.query(&sql.leave_held).bind(keys(firsts.iter())).execute(&mut *tx).await?.rows_affected();
    if usize::try_from(left) != Ok(firsts.len()) {
        tx.rollback().await?;
        return Ok(None);
    }
    let first = settlements.iter().zip(&results).filter(|(_, result)| **result == Settled::Applied);
    let sent = first.filter_map(|(s, _)| Some(sent_item(s.key, s.attempt.as_ref()?)));
    sql.query(&sql.record_sent).bind(list(sent)).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(results))
}

/// Gives back what these claims leased, and returns how many there were.
pub(super) async fn take_back(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claims: &[ClaimId],
    test_now: Option<i64>,
) -> Result<u64, StoreError> {
    let claims = serde_json::Value::from_iter(claims.iter().map(|claim| claim.number())).to_string();
    let rows = sql.query(&sql.leased_by).bind(claims).fetch_all(&mut *connection).await?;
    let mut theirs = Vec::with_capacity(rows.len());
    for row in &rows {
        theirs.push(LeaseKey { id: id(row, "delivery_id")?, token: row.number("token")? });
    }
    if theirs.is_empty() {
        return Ok(0);
    }
    let mut tx = connection.begin_with(BEGIN).await?;
    let (held, now) = hold(&mut tx, sql, theirs.iter(), test_now).await?;
    if !held.is_empty() {
        sql.query(&sql.take_back).bind(keys(held.keys())).bind(now).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(u64::try_from(held.len()).unwrap_or(u64::MAX))
}

pub(super) async fn renew(
    connection: &mut MySqlConnection,
    sql: &Sql,
    wanted: &[LeaseKey],
    lease: Duration,
    test_now: Option<i64>,
) -> Result<Vec<Settled>, StoreError> {
    let mut tx = connection.begin_with(BEGIN).await?;
    let (held, now) = hold(&mut tx, sql, wanted.iter(), test_now).await?;
    if held.is_empty() {
        tx.rollback().await?;
        return Ok(vec![Settled::LeaseLost; wanted.len()]);
    }
    sql.query(&sql.renew).bind(keys(held.keys())).bind(now.saturating_add(micros(lease))).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(wanted.iter().map(|key| if held.contains_key(key) { Settled::Applied } else { Settled::LeaseLost }).collect())
}
