//! Writes the results of leased deliveries. Every change checks the token first, and a batch takes one or two statements.

use std::collections::HashSet;
use std::time::Duration;

use postrider_transport::Scope;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::Moment;
use super::sql::Sql;
use crate::clock::micros;
use crate::delivery::Attempt;
use crate::store::{LeaseKey, Next, Settled, Settlement, StoreError};

/// Settles plainly sent deliveries, which are nearly all: deletes them from the queue, and records their attempts. A null array of numbers
/// means 1. `$10` is the transport if it is the same for all. The result is null if all settlements were written. Otherwise it is an array
/// of the positions of the written ones, from 1 on.
///
/// The subqueries hide the length of the arrays from the planner. Otherwise it would scan and hash the whole queue for a large batch,
/// until it keeps a generic plan. With them it looks up each row by its key.
pub(super) const SETTLE_SENT: &str = r#"
    WITH gone AS (
        DELETE FROM "{s}".queue q
        USING unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::int[]), (SELECT $4::int[]), (SELECT $5::timestamptz[]),
                     (SELECT $6::timestamptz[]), (SELECT $7::text[]), (SELECT $8::text[]), (SELECT $9::text[])) WITH ORDINALITY
            u (id, token, number, cycle, started, finished, reply, provider_id, transport, place)
        WHERE q.delivery_id = u.id AND q.token = u.token
        RETURNING u.*),
    recorded AS (
        INSERT INTO "{s}".attempts
            (delivery_id, number, cycle, token, started_at, finished_at, outcome, reply, provider_id, transport)
        SELECT id, coalesce(number, 1), coalesce(cycle, 1), token, started, finished, 'sent', reply, provider_id, coalesce(transport, $10)
        FROM gone),
    total AS (
        INSERT INTO "{s}".totals AS t (state, slot, count) SELECT 'sent', {slot}, count(*) FROM gone HAVING count(*) > 0
        ON CONFLICT (state, slot) DO UPDATE SET count = t.count + excluded.count),
    hourly AS (
        INSERT INTO "{s}".hourly AS h (hour, event, transport, slot, count)
        SELECT {hour of finished}, 'sent', coalesce(transport, $10, ''), {slot}, count(*) FROM gone GROUP BY 1, 3
        ON CONFLICT (hour, event, transport, slot) DO UPDATE SET count = h.count + excluded.count)
    SELECT CASE WHEN count(*) < cardinality($1) THEN coalesce(array_agg(place), '{}') END FROM gone"#;

/// Settles all other deliveries. For the subqueries see [`SETTLE_SENT`].
pub(super) const SETTLE: &str = r#"
    WITH u AS MATERIALIZED (
        SELECT * FROM unnest((SELECT $2::uuid[]), (SELECT $3::bigint[]), (SELECT $4::text[]), (SELECT $5::bigint[]),
                             (SELECT $6::text[]), (SELECT $7::int[]), (SELECT $8::bool[]), (SELECT $9::int[]), (SELECT $10::int[]),
                             (SELECT $11::timestamptz[]), (SELECT $12::timestamptz[]), (SELECT $13::text[]), (SELECT $14::text[]),
                             (SELECT $15::bool[]), (SELECT $16::bool[]), (SELECT $17::text[]), (SELECT $18::text[]),
                             (SELECT $19::text[]), (SELECT $20::text[]), (SELECT $21::text[]), (SELECT $22::bool[]))
            u (id, token, next, after, reason, charged_attempts, called, number, cycle, started, finished, outcome, scope, sure, charged, note,
               error, reply, provider_id, transport, has_outcomes)),
    gone AS (
        DELETE FROM "{s}".queue q USING u
        WHERE q.delivery_id = u.id AND q.token = u.token AND u.next <> 'pending'
        RETURNING q.delivery_id, q.token, q.attempts, q.cycle, u.next, u.reason, u.called, u.transport),
    back AS (
        UPDATE "{s}".queue q
        SET token = -1 - q.token, leased_at = NULL, abandoned_at = NULL, lease_until = '-infinity', due_at = {now} + u.after * interval '1 microsecond',
            leased_by = 0, attempts = least(q.attempts, 2147483646) + u.called::int, charged_attempts = u.charged_attempts,
            has_outcomes = q.has_outcomes OR u.has_outcomes
        FROM u
        WHERE q.delivery_id = u.id AND q.token = u.token AND u.next = 'pending'
        RETURNING q.delivery_id, u.token),
    done AS (SELECT delivery_id, token FROM gone UNION ALL SELECT delivery_id, token FROM back),
    recorded AS (
        INSERT INTO "{s}".attempts
            (delivery_id, number, cycle, token, started_at, finished_at, outcome, scope, sure, charged, note, error, reply, provider_id,
             transport)
        SELECT id, number, cycle, u.token, started, finished, outcome, scope, sure, charged, note, error, reply, provider_id, transport
        FROM u JOIN done ON done.delivery_id = u.id AND done.token = u.token WHERE u.called
        ON CONFLICT (delivery_id, number) DO UPDATE
        SET cycle = excluded.cycle, token = excluded.token, started_at = excluded.started_at, finished_at = excluded.finished_at,
            outcome = excluded.outcome, scope = excluded.scope, sure = excluded.sure, charged = excluded.charged, note = excluded.note,
            error = excluded.error, reply = excluded.reply, provider_id = excluded.provider_id, transport = excluded.transport),
    ended AS (
        INSERT INTO "{s}".ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
        SELECT delivery_id, next, reason, {now}, token, attempts, cycle FROM gone WHERE next <> 'sent' OR NOT called
        ON CONFLICT (delivery_id) DO UPDATE
        SET state = excluded.state, reason = excluded.reason, ended_at = excluded.ended_at, token = excluded.token,
            attempts = excluded.attempts, cycle = excluded.cycle),
    total AS (
        INSERT INTO "{s}".totals AS t (state, slot, count) SELECT next, {slot}, count(*) FROM gone GROUP BY next
        ON CONFLICT (state, slot) DO UPDATE SET count = t.count + excluded.count),
    hourly AS (
        INSERT INTO "{s}".hourly AS h (hour, event, transport, slot, count)
        SELECT {hour of finished}, outcome, coalesce(transport, ''), {slot}, count(*)
        FROM u JOIN done ON done.delivery_id = u.id AND done.token = u.token WHERE u.called AND outcome <> 'lost' GROUP BY 1, 2, 3
        UNION ALL
        SELECT {hour of now}, CASE next WHEN 'in_doubt' THEN 'held' ELSE next END, coalesce(transport, ''), {slot}, count(*)
        FROM gone WHERE next <> 'sent' GROUP BY 2, 3
        ON CONFLICT (hour, event, transport, slot) DO UPDATE SET count = h.count + excluded.count)
    SELECT delivery_id, token FROM done"#;

pub(super) const RECORD_RECIPIENTS: &str = r#"
    INSERT INTO "{s}".recipients (delivery_id, address, outcome, reply)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
    ON CONFLICT (delivery_id, address) DO UPDATE SET outcome = excluded.outcome, reply = excluded.reply"#;

/// Extends leases. It skips rows that a settlement has locked, since these no longer need a lease. For the subqueries see [`SETTLE_SENT`].
pub(super) const RENEW: &str = r#"
    UPDATE "{s}".queue q SET lease_until = {now} + $2 * interval '1 microsecond'
    WHERE ctid = ANY (ARRAY (
        SELECT h.ctid FROM "{s}".queue h JOIN unnest((SELECT $3::uuid[]), (SELECT $4::bigint[])) u (id, token)
            ON h.delivery_id = u.id AND h.token = u.token
        FOR UPDATE OF h SKIP LOCKED))
    RETURNING q.delivery_id, q.token"#;

pub(super) async fn settle(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Settlement],
    now: Option<Moment>,
    on_conflict: OnAttemptConflict,
) -> Result<Vec<Settled>, StoreError> {
    let is_plain = |settlement: &Settlement| on_conflict == OnAttemptConflict::Fail && settlement.is_plainly_sent();
    let (plain, rest): (Vec<Indexed<'_>>, Vec<Indexed<'_>>) =
        settlements.iter().enumerate().partition(|(_, settlement)| is_plain(settlement));
    let mut lost = settle_sent(connection, sql, &plain).await?;
    lost.extend(settle_others(connection, sql, rest, now).await?);
    let mut results = vec![Settled::Applied; settlements.len()];
    for index in lost {
        results[index] = Settled::LeaseLost;
    }
    Ok(results)
}

/// What to do if the history already has a row with an attempt's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnAttemptConflict {
    /// Fail. The outbox itself never writes a number twice.
    Fail,
    /// Overwrite the row, which another program wrote. If the result could not be written, the mail would be sent again.
    Overwrite,
}

/// A settlement with its index in the batch.
type Indexed<'a> = (usize, &'a Settlement);

/// Reads the keys of the settlements that were written, or of the leases that were renewed.
fn read_keys(rows: &[PgRow]) -> Result<HashSet<LeaseKey>, StoreError> {
    let key = |row: &PgRow| Ok(LeaseKey { id: row.try_get::<Uuid, _>(0)?.into(), token: row.try_get(1)? });
    rows.iter().map(key).collect()
}

/// Collects a column of the settlements.
fn column<T>(settlements: &[Indexed<'_>], of: impl Fn(&Settlement) -> T) -> Vec<T> {
    settlements.iter().map(|(_, settlement)| of(settlement)).collect()
}

/// Collects a column of the settlements' attempts. `None` for a settlement without one.
fn attempt_column<'a, T>(settlements: &[Indexed<'a>], of: impl Fn(&'a Attempt) -> T) -> Vec<Option<T>> {
    settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref().map(&of)).collect()
}

/// Collects a text column of the settlements' attempts. `None` if no attempt has the text: the server then fills the column with nulls.
fn text_column<'a>(
    settlements: &[Indexed<'a>],
    of: impl Fn(&'a Attempt) -> Option<&'a str>,
) -> Option<Vec<Option<&'a str>>> {
    let texts: Vec<_> = settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref().and_then(&of)).collect();
    texts.iter().any(Option::is_some).then_some(texts)
}

/// Collects a number column of the settlements' attempts. `None` if each number is 1, as for first attempts.
fn number_column(settlements: &[Indexed<'_>], of: impl Fn(&Attempt) -> u32) -> Option<Vec<Option<i32>>> {
    let numbers = attempt_column(settlements, |attempt| to_i32(of(attempt)));
    numbers.iter().any(|number| *number != Some(1)).then_some(numbers)
}

/// The transport of all settlements. `None` if they differ, or have none.
fn common_transport<'a>(settlements: &[Indexed<'a>]) -> Option<&'a str> {
    let mut transports = settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref()?.transport.as_deref());
    let first = transports.next()?;
    transports.all(|transport| transport == first).then_some(first)?
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Settles plainly sent deliveries. Returns the indices of those whose lease was lost.
async fn settle_sent(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Indexed<'_>],
) -> Result<Vec<usize>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let transport = common_transport(settlements);
    let done: Option<Vec<i64>> = sql
        .scalar(sql.variant(&sql.settle_sent))
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(number_column(settlements, |a| a.number))
        .bind(number_column(settlements, |a| a.cycle))
        .bind(attempt_column(settlements, |a| Moment(a.started_at)))
        .bind(attempt_column(settlements, |a| Moment(a.finished_at)))
        .bind(text_column(settlements, |a| a.reply.as_deref()))
        .bind(text_column(settlements, |a| a.provider_id.as_deref()))
        .bind(if transport.is_none() { text_column(settlements, |a| a.transport.as_deref()) } else { None })
        .bind(transport)
        .fetch_one(connection)
        .await?;
    let Some(done) = done else {
        return Ok(Vec::new());
    };
    let done: HashSet<i64> = done.into_iter().collect();
    let lost = (1..).zip(settlements).filter(|(nth, _)| !done.contains(nth));
    Ok(lost.map(|(_, (index, _))| *index).collect())
}

/// Settles all other deliveries. Returns the indices of those whose lease was lost.
async fn settle_others(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: Vec<Indexed<'_>>,
    now: Option<Moment>,
) -> Result<Vec<usize>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    // A duplicate settlement in a batch finds no lease.
    let mut seen = HashSet::new();
    let (settlements, duplicates): (Vec<_>, Vec<_>) = settlements.into_iter().partition(|(_, s)| seen.insert(s.key));
    let settlements = &settlements[..];
    let (next, (after, reason)): (Vec<_>, (Vec<_>, Vec<_>)) = settlements
        .iter()
        .map(|(_, settlement)| match &settlement.next {
            Next::Pending { after } => ("pending", (Some(micros(*after).max(1_000)), None)),
            Next::Sent => ("sent", (None, None)),
            Next::Dead { reason } => ("dead", (None, Some(reason.as_str()))),
            Next::InDoubt { reason } => ("in_doubt", (None, Some(reason.as_str()))),
        })
        .unzip();
    let rows = sql
        .query(sql.variant(&sql.settle))
        .bind(now)
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(next)
        .bind(after)
        .bind(reason)
        .bind(column(settlements, |s| to_i32(s.charged_attempts)))
        .bind(column(settlements, |s| s.attempt.is_some()))
        .bind(attempt_column(settlements, |a| to_i32(a.number)))
        .bind(attempt_column(settlements, |a| to_i32(a.cycle)))
        .bind(attempt_column(settlements, |a| Moment(a.started_at)))
        .bind(attempt_column(settlements, |a| Moment(a.finished_at)))
        .bind(attempt_column(settlements, |a| a.outcome.as_str()))
        .bind(text_column(settlements, |a| a.scope.map(Scope::as_str)))
        .bind(attempt_column(settlements, |a| a.sure))
        .bind(attempt_column(settlements, |a| a.charged))
        .bind(text_column(settlements, |a| a.note.as_deref()))
        .bind(text_column(settlements, |a| a.error.as_deref()))
        .bind(text_column(settlements, |a| a.reply.as_deref()))
        .bind(text_column(settlements, |a| a.provider_id.as_deref()))
        .bind(text_column(settlements, |a| a.transport.as_deref()))
        .bind(column(settlements, |s| !s.recipients.is_empty()))
        .fetch_all(&mut *connection)
        .await?;
    let done = read_keys(&rows)?;
    record_recipients(connection, sql, settlements, &done).await?;
    let lost = settlements.iter().filter(|(_, settlement)| !done.contains(&settlement.key));
    Ok(lost.chain(&duplicates).map(|(index, _)| *index).collect())
}

async fn record_recipients(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Indexed<'_>],
    done: &HashSet<LeaseKey>,
) -> Result<(), StoreError> {
    // Each recipient once, since the statement cannot change one row twice.
    let mut seen = HashSet::new();
    let outcomes: Vec<_> = settlements
        .iter()
        .filter(|(_, settlement)| done.contains(&settlement.key))
        .flat_map(|(_, settlement)| settlement.recipients.iter().map(|outcome| (settlement.key.id.as_uuid(), outcome)))
        .filter(|(id, outcome)| seen.insert((*id, &outcome.recipient)))
        .collect();
    if outcomes.is_empty() {
        return Ok(());
    }
    sql.query(&sql.record_recipients)
        .bind(outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.recipient.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.state.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.reply.as_deref()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn renew(
    connection: &mut PgConnection,
    sql: &Sql,
    keys: &[LeaseKey],
    lease: Duration,
    now: Option<Moment>,
) -> Result<Vec<Settled>, StoreError> {
    let rows = sql
        .query(sql.variant(&sql.renew))
        .bind(now)
        .bind(micros(lease))
        .bind(keys.iter().map(|key| key.id.as_uuid()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.token).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let renewed = self::read_keys(&rows)?;
    Ok(keys.iter().map(|key| if renewed.contains(key) { Settled::Applied } else { Settled::LeaseLost }).collect())
}
