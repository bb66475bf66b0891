//! Reads rows of the databases into types.
//!
//! Other programs write rows too, so a row may be malformed. A claim then gives up that delivery, with the problem as the reason. Queries
//! for operators show what can be read, and name the problem.

use std::str::FromStr;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, Recipient, Scope, TraceParent};

use crate::admin::{HourlyCount, Stats};
use crate::audit::AuditEntry;
use crate::delivery::{Attempt, Delivery, DeliverySummary};
use crate::pause::{Controls, Pause, PauseTarget};
use crate::state::{Outcome, ParseError, Priority, RecipientState, State, WhenInDoubt, parse_scope};
use crate::store::recipients::{common_state, deduplicate, recipient_statuses};
pub(super) use crate::store::sqlx_error::corrupt;
#[cfg(feature = "mysql")]
pub(super) use crate::store::sqlx_error::mysql_number;
#[cfg(feature = "postgres")]
pub(super) use crate::store::sqlx_error::{is_invalid_text, is_unique_violation};
use crate::store::{LastAttempt, Lease, RecipientOutcome, StoreError};

/// A row of a query, of any database.
pub(super) trait Columns {
    /// The bytes of a text, which may be invalid UTF-8.
    fn bytes(&self, column: &str) -> Result<Option<&[u8]>, StoreError>;
    fn number_or_null(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: &str) -> Result<bool, StoreError>;
    fn time_or_null(&self, column: &str) -> Result<Option<SystemTime>, StoreError>;

    fn text(&self, column: &str) -> Result<&str, StoreError> {
        let bytes = self.bytes(column)?.ok_or_else(|| corrupt(&format!("{column} is null")))?;
        std::str::from_utf8(bytes).map_err(|_| corrupt(&format!("{column} is not valid UTF-8")))
    }
    /// A text for display. Invalid UTF-8 is replaced.
    fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(self.bytes(column)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    }
    fn number(&self, column: &str) -> Result<i64, StoreError> {
        self.number_or_null(column)?.ok_or_else(|| corrupt(&format!("{column} is null")))
    }
    fn time(&self, column: &str) -> Result<SystemTime, StoreError> {
        self.time_or_null(column)?.ok_or_else(|| corrupt(&format!("{column} is null")))
    }
}

macro_rules! columns {
    ($row:ty, $time:ty, $to_time:expr) => {
        impl Columns for $row {
            // The queries fix the type of each column, so the check is unnecessary.
            fn bytes(&self, column: &str) -> Result<Option<&[u8]>, StoreError> {
                Ok(sqlx::Row::try_get_unchecked(self, column)?)
            }
            fn number_or_null(&self, column: &str) -> Result<Option<i64>, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
            fn flag(&self, column: &str) -> Result<bool, StoreError> {
                Ok(sqlx::Row::try_get(self, column)?)
            }
            fn time_or_null(&self, column: &str) -> Result<Option<SystemTime>, StoreError> {
                let time: Option<$time> = sqlx::Row::try_get_unchecked(self, column)?;
                Ok(time.map($to_time))
            }
        }
    };
}

#[cfg(feature = "mysql")]
columns!(sqlx::mysql::MySqlRow, i64, crate::clock::from_micros);
#[cfg(feature = "postgres")]
columns!(sqlx::postgres::PgRow, super::postgres::Moment, |moment| moment.0);
#[cfg(feature = "sqlite")]
columns!(sqlx::sqlite::SqliteRow, i64, crate::clock::from_millis);

/// Reads a column with a value such as a state or an outcome.
pub(super) fn read_enum<T: FromStr<Err = ParseError>>(row: &impl Columns, column: &str) -> Result<T, StoreError> {
    row.text(column)?.parse().map_err(|error: ParseError| corrupt(&format!("{column}: {error}")))
}

/// Reads a count: not negative, and within `i32`, so that adding to it cannot overflow.
pub(super) fn read_count(row: &impl Columns, column: &str) -> Result<u32, StoreError> {
    let count = i32::try_from(row.number(column)?).ok().and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| corrupt(&format!("{column} is out of range")))
}

/// Reads the JSON array of all recipients.
pub(super) fn read_recipients(row: &impl Columns) -> Result<Vec<Recipient>, StoreError> {
    parse_recipients(row.text("recipients")?)
}

fn parse_recipients(recipients: &str) -> Result<Vec<Recipient>, StoreError> {
    let addresses: Vec<String> =
        serde_json::from_str(recipients).map_err(|_| corrupt("the recipients are not a JSON array of strings"))?;
    Ok(deduplicate(addresses.into_iter().map(Recipient::new).collect()))
}

/// Reads the JSON array of the tags.
fn read_tags(row: &impl Columns) -> Result<Vec<String>, StoreError> {
    match row.bytes("tags")? {
        None => Ok(Vec::new()),
        Some(tags) => serde_json::from_slice(tags).map_err(|_| corrupt("the tags are not a JSON array of strings")),
    }
}

/// Parses a stored trace context. An invalid one counts as none: it must not stop a mail.
///
/// Queries read only the first 56 characters, since another program may have stored a long text. Version 00 has exactly 55 characters, so
/// one more shows that the text is too long. A later version may be longer, but only its first 55 characters have a meaning here.
pub(super) fn parse_traceparent(bytes: Option<&[u8]>) -> Option<TraceParent> {
    std::str::from_utf8(bytes?).ok()?.parse().ok()
}

/// Reads the trace context.
pub(super) fn read_traceparent(row: &impl Columns) -> Result<Option<TraceParent>, StoreError> {
    Ok(parse_traceparent(row.bytes("traceparent")?))
}

/// Collects the problems of a row while the rest of it is read.
#[derive(Default)]
pub(super) struct Problems(Option<StoreError>);

impl Problems {
    /// Returns the value, or the fallback after recording the problem.
    pub(super) fn unwrap_or<T>(&mut self, value: Result<T, StoreError>, fallback: T) -> T {
        value.unwrap_or_else(|error| {
            self.0.get_or_insert(error);
            fallback
        })
    }

    /// The first problem. `None` if there is none.
    pub(super) fn first(self) -> Option<String> {
        self.0.map(|error| error.to_string())
    }
}

/// Adds the columns of the delivery to its lease. A value that cannot be parsed makes the lease malformed. It must not be an error, since
/// an error would fail the claim of other deliveries too.
pub(super) fn add_delivery_columns(
    lease: Lease,
    recipients: Result<&str, StoreError>,
    when_in_doubt: Result<WhenInDoubt, StoreError>,
    mut problems: Problems,
) -> Lease {
    let recipients = problems.unwrap_or(recipients.and_then(parse_recipients), Vec::new());
    let when_in_doubt = problems.unwrap_or(when_in_doubt, lease.when_in_doubt);
    Lease { recipients, when_in_doubt, malformed: problems.first(), ..lease }
}

/// Reads the recorded state of a recipient. A malformed one counts as a refusal, so that nobody is mailed because of it.
fn read_recipient_state(row: &impl Columns, column: &str) -> RecipientState {
    read_enum(row, column).unwrap_or(RecipientState::Refused)
}

/// Reads the outcome of a recipient.
pub(super) fn read_outcome(row: &impl Columns) -> Result<RecipientOutcome, StoreError> {
    Ok(RecipientOutcome {
        recipient: Recipient::new(row.text_or_null("address")?.unwrap_or_default()),
        state: read_recipient_state(row, "outcome"),
        reply: row.text_or_null("reply")?,
    })
}

fn read_scope(row: &impl Columns) -> Result<Option<Scope>, StoreError> {
    match row.bytes("scope")? {
        None => Ok(None),
        Some(_) => parse_scope(row.text("scope")?).map(Some).map_err(|error| corrupt(&format!("scope: {error}"))),
    }
}

/// Reads the last attempt of a delivery. `None` if the row is malformed.
pub(super) fn read_last_attempt(row: &impl Columns) -> Option<LastAttempt> {
    let read = || -> Result<LastAttempt, StoreError> {
        Ok(LastAttempt {
            cycle: read_count(row, "cycle")?,
            finished_at: row.time("finished_at")?,
            outcome: read_enum(row, "outcome")?,
            scope: read_scope(row)?,
            sure: row.flag("sure")?,
            error: row.text_or_null("error")?,
        })
    };
    read().ok()
}

/// Reads an attempt. A malformed row becomes a lost attempt whose note names the problem.
pub(super) fn read_attempt(row: &impl Columns) -> Attempt {
    let mut problems = Problems::default();
    let (number, cycle) =
        (problems.unwrap_or(read_count(row, "number"), 0), problems.unwrap_or(read_count(row, "cycle"), 1));
    let started = problems.unwrap_or(row.time("started_at"), SystemTime::UNIX_EPOCH);
    let finished = problems.unwrap_or(row.time("finished_at"), started);
    let outcome = problems.unwrap_or(read_enum(row, "outcome"), Outcome::Lost);
    let mut attempt = Attempt::new(number, cycle, started, finished, outcome);
    attempt.scope = problems.unwrap_or(read_scope(row), None);
    attempt.sure = problems.unwrap_or(row.flag("sure"), false);
    attempt.charged = problems.unwrap_or(row.flag("charged"), true);
    attempt.error = problems.unwrap_or(row.text_or_null("error"), None);
    attempt.reply = problems.unwrap_or(row.text_or_null("reply"), None);
    attempt.provider_id = problems.unwrap_or(row.text_or_null("provider_id"), None);
    attempt.transport = problems.unwrap_or(row.text_or_null("transport"), None);
    attempt.note = problems.unwrap_or(row.text_or_null("note"), None);
    attempt.note = problems.first().or(attempt.note);
    attempt
}

/// Reads a row of a list. The problem of a malformed row replaces the last error.
pub(super) fn read_summary(row: &impl Columns, id: DeliveryId) -> DeliverySummary {
    let mut problems = Problems::default();
    let reason = problems.unwrap_or(row.text_or_null("reason"), None);
    let error = problems.unwrap_or(row.text_or_null("last_error"), None);
    let state = problems.unwrap_or(read_enum(row, "state"), State::Dead);
    let outcome = row
        .text_or_null("recipient_outcome")
        .map(|outcome| outcome.map(|_| read_recipient_state(row, "recipient_outcome")));
    let mut summary = DeliverySummary {
        id,
        state,
        template_id: problems.unwrap_or(row.text_or_null("template_id"), None),
        subject: problems.unwrap_or(row.text_or_null("subject"), None),
        recipient: problems.unwrap_or(row.text_or_null("recipient"), None).map(Recipient::new),
        recipient_state: problems.unwrap_or(outcome, None).unwrap_or_else(|| common_state(state)),
        recipients: problems.unwrap_or(read_count(row, "recipient_count"), 0),
        failed_recipients: problems.unwrap_or(read_count(row, "failed_recipients"), 0),
        attempts: problems.unwrap_or(read_count(row, "attempts"), 0),
        created_at: problems.unwrap_or(row.time("created_at"), SystemTime::UNIX_EPOCH),
        due_at: problems.unwrap_or(row.time_or_null("due_at"), None),
        finished_at: problems.unwrap_or(row.time_or_null("finished_at"), None),
        last_error: None,
    };
    summary.last_error = problems.first().or(reason).or(error);
    summary
}

/// Builds a delivery from its row, its attempts and the recorded outcomes of its recipients.
pub(super) fn read_delivery(
    row: &impl Columns,
    id: DeliveryId,
    attempts: Vec<Attempt>,
    outcomes: &[RecipientOutcome],
) -> Delivery {
    let mut problems = Problems::default();
    let state = problems.unwrap_or(read_enum(row, "state"), State::Dead);
    let reply = attempts.last().and_then(|attempt| attempt.reply.as_deref());
    let level = read_count(row, "priority").and_then(|level| {
        let priority = u8::try_from(level).ok().and_then(Priority::new);
        priority.ok_or_else(|| corrupt("priority is out of range"))
    });
    let cycle = match row.number_or_null("cycle") {
        Ok(None) => attempts.last().map_or(1, |attempt| attempt.cycle),
        _ => problems.unwrap_or(read_count(row, "cycle"), 1),
    };
    let recipients = problems.unwrap_or(read_recipients(row), Vec::new());
    // A delivery without a row of its own for its end was sent by its last attempt.
    let sent_at = attempts.last().filter(|_| state == State::Sent).map(|attempt| attempt.finished_at);
    let finished_at = problems.unwrap_or(row.time_or_null("ended_at"), None).or(sent_at);
    Delivery {
        id,
        state,
        subject: problems.unwrap_or(row.text_or_null("subject"), None),
        template_id: problems.unwrap_or(row.text_or_null("template_id"), None),
        tags: problems.unwrap_or(read_tags(row), Vec::new()),
        key: problems.unwrap_or(row.text_or_null("key"), None),
        priority: problems.unwrap_or(level, Priority::default()),
        when_in_doubt: problems.unwrap_or(read_enum(row, "when_in_doubt"), WhenInDoubt::default()),
        traceparent: problems.unwrap_or(read_traceparent(row), None),
        created_at: problems.unwrap_or(row.time("created_at"), SystemTime::UNIX_EPOCH),
        due_at: problems.unwrap_or(row.time_or_null("due_at"), None),
        finished_at,
        expires_at: problems.unwrap_or(row.time_or_null("expires_at"), None),
        cycle,
        reason: problems.unwrap_or(row.text_or_null("reason"), None),
        recipients: recipient_statuses(state, recipients, outcomes, reply),
        attempts,
        malformed: problems.first(),
    }
}

/// The counts of the queue, and those of the other states from rows with `state` and `deliveries`.
pub(super) fn read_counts<R: Columns>(queued: i64, leased: i64, ended: &[R]) -> Result<Stats, StoreError> {
    let mut stats = Stats { pending: to_u64(queued - leased), leased: to_u64(leased), ..Stats::default() };
    for row in ended {
        *stats.count_mut(read_enum(row, "state").unwrap_or(State::Dead)) += to_u64(row.number("deliveries")?);
    }
    Ok(stats)
}

/// Reads the counts of each hour. An event of a newer release is left out.
pub(super) fn read_hourly<R: Columns>(rows: &[R]) -> Result<Vec<HourlyCount>, StoreError> {
    let read = |row: &R| -> Result<Option<HourlyCount>, StoreError> {
        let Ok(event) = read_enum(row, "event") else { return Ok(None) };
        let transport = Some(row.text("transport")?.to_owned()).filter(|transport| !transport.is_empty());
        Ok(Some(HourlyCount::new(row.time("hour")?, event, transport, to_u64(row.number("count")?))))
    };
    let mut counts: Vec<HourlyCount> = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
    counts.sort_by(|a, b| (a.hour, a.event, &a.transport).cmp(&(b.hour, b.event, &b.transport)));
    Ok(counts)
}

/// All recipients as a JSON array.
pub(super) fn recipients_json(recipients: &[Recipient]) -> String {
    serde_json::Value::from_iter(recipients.iter().map(Recipient::as_str)).to_string()
}

/// Converts a number of the database. Negative ones become 0.
pub(super) fn to_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Reads the pauses and the request for a probe. A pause of a kind that only a newer release knows is left out.
pub(super) fn read_controls<R: Columns>(rows: &[R]) -> Result<Controls, StoreError> {
    let mut controls = Controls::default();
    for row in rows {
        let set_at = row.time("set_at")?;
        if row.text("control")? == "probe" {
            controls.probe_requested_at = Some(set_at);
        } else if let Some(target) = PauseTarget::from_stored(row.text("kind")?, row.text("name")?.to_owned()) {
            let (operator, note) = (row.text("operator")?.to_owned(), row.text_or_null("note")?);
            controls.pauses.push(Pause::new(target, set_at, operator, note));
        }
    }
    controls.pauses.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(controls)
}

/// Reads an entry of the audit trail, with the id of its delivery. `None` for an action that only a newer release knows.
pub(super) fn read_audit_entry<R: Columns>(
    row: &R,
    delivery: Option<DeliveryId>,
) -> Result<Option<AuditEntry>, StoreError> {
    let Ok(action) = read_enum(row, "action") else { return Ok(None) };
    let mut entry = AuditEntry::new(row.number("number")?, row.time("at")?, row.text("operator")?.to_owned(), action);
    entry.delivery = delivery;
    entry.target = row.text_or_null("target")?;
    entry.note = row.text_or_null("note")?;
    Ok(Some(entry))
}
