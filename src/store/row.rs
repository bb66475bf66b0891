//! From the rows of the stores on sqlx to types.
//!
//! Other programs write rows too. A claim takes what makes no sense in one for a reason to give the delivery up, and what shows rows
//! shows as much as it can, and says what it cannot.

use std::str::FromStr;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, Recipient, Scope};

use crate::admin::Stats;
use crate::delivery::{Attempt, Delivery, DeliverySummary};
use crate::state::{Outcome, ParseError, Priority, RecipientState, State, WhenInDoubt, scope_of};
use crate::store::recipients::{distinct, statuses};
pub(super) use crate::store::sqlx_error::corrupt;
#[cfg(feature = "mysql")]
pub(super) use crate::store::sqlx_error::mysql_number;
#[cfg(feature = "postgres")]
pub(super) use crate::store::sqlx_error::{is_no_text, is_taken};
use crate::store::{LastAttempt, Lease, RecipientOutcome, StoreError};

/// A row of one of the outbox's queries, whatever the database: texts, whole numbers, flags, times.
pub(super) trait Columns {
    /// A text's octets, whatever they are.
    fn octets(&self, column: &str) -> Result<Option<&[u8]>, StoreError>;
    fn number_or_null(&self, column: &str) -> Result<Option<i64>, StoreError>;
    fn flag(&self, column: &str) -> Result<bool, StoreError>;
    fn time_or_null(&self, column: &str) -> Result<Option<SystemTime>, StoreError>;

    fn text(&self, column: &str) -> Result<&str, StoreError> {
        let octets = self.octets(column)?.ok_or_else(|| corrupt(&format!("{column} is null")))?;
        std::str::from_utf8(octets).map_err(|_| corrupt(&format!("{column} is no UTF-8")))
    }
    /// A text for somebody to look at: octets that are no UTF-8 are replaced.
    fn text_or_null(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(self.octets(column)?.map(|octets| String::from_utf8_lossy(octets).into_owned()))
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
            // The queries say of which type each column is.
            fn octets(&self, column: &str) -> Result<Option<&[u8]>, StoreError> {
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

/// A word of ours.
pub(super) fn word<T: FromStr<Err = ParseError>>(row: &impl Columns, column: &str) -> Result<T, StoreError> {
    row.text(column)?.parse().map_err(|error: ParseError| corrupt(&format!("{column}: {error}")))
}

/// A number that is never negative, and that one can be added to.
pub(super) fn count(row: &impl Columns, column: &str) -> Result<u32, StoreError> {
    let count = i32::try_from(row.number(column)?).ok().and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| corrupt(&format!("{column} is out of range")))
}

/// The JSON array of all recipients.
pub(super) fn recipients(row: &impl Columns) -> Result<Vec<Recipient>, StoreError> {
    parsed(row.text("recipients")?)
}

fn parsed(recipients: &str) -> Result<Vec<Recipient>, StoreError> {
    let addresses: Vec<String> =
        serde_json::from_str(recipients).map_err(|_| corrupt("the recipients are no JSON array of strings"))?;
    Ok(distinct(addresses.into_iter().map(Recipient::new).collect()))
}

/// What makes no sense in a row, while as much as possible is read from it.
#[derive(Default)]
pub(super) struct Problems(Option<StoreError>);

impl Problems {
    /// The value, or another in its place.
    pub(super) fn or<T>(&mut self, value: Result<T, StoreError>, instead: T) -> T {
        value.unwrap_or_else(|error| {
            self.0.get_or_insert(error);
            instead
        })
    }

    /// The first of them.
    pub(super) fn first(self) -> Option<String> {
        self.0.map(|error| error.to_string())
    }
}

/// Puts into a lease what its delivery's row says in words. Words that make no sense must not keep other deliveries from being
/// claimed, so they make the lease malformed, and no error.
pub(super) fn addressed(
    lease: Lease,
    recipients: Result<&str, StoreError>,
    when_in_doubt: Result<WhenInDoubt, StoreError>,
    mut problems: Problems,
) -> Lease {
    let recipients = problems.or(recipients.and_then(parsed), Vec::new());
    let when_in_doubt = problems.or(when_in_doubt, lease.when_in_doubt);
    Lease { recipients, when_in_doubt, malformed: problems.first(), ..lease }
}

/// An outcome that differs from the delivery's. One that makes no sense is taken for a refusal: nobody is mailed on account of it.
pub(super) fn outcome(row: &impl Columns) -> Result<RecipientOutcome, StoreError> {
    Ok(RecipientOutcome {
        recipient: Recipient::new(row.text_or_null("address")?.unwrap_or_default()),
        state: word(row, "outcome").unwrap_or(RecipientState::Refused),
        reply: row.text_or_null("reply")?,
    })
}

fn scope(row: &impl Columns) -> Result<Option<Scope>, StoreError> {
    match row.octets("scope")? {
        None => Ok(None),
        Some(_) => scope_of(row.text("scope")?).map(Some).map_err(|error| corrupt(&format!("scope: {error}"))),
    }
}

/// The last attempt of a delivery; nothing where its row makes no sense.
pub(super) fn last_attempt(row: &impl Columns) -> Option<LastAttempt> {
    let read = || -> Result<LastAttempt, StoreError> {
        Ok(LastAttempt {
            cycle: count(row, "cycle")?,
            finished_at: row.time("finished_at")?,
            outcome: word(row, "outcome")?,
            scope: scope(row)?,
            sure: row.flag("sure")?,
            error: row.text_or_null("error")?,
        })
    };
    read().ok()
}

/// A row of the history. One that makes no sense is shown as a lost attempt, with what is the matter.
pub(super) fn attempt(row: &impl Columns) -> Attempt {
    let mut problems = Problems::default();
    let (number, cycle) = (problems.or(count(row, "number"), 0), problems.or(count(row, "cycle"), 1));
    let started = problems.or(row.time("started_at"), SystemTime::UNIX_EPOCH);
    let finished = problems.or(row.time("finished_at"), started);
    let outcome = problems.or(word(row, "outcome"), Outcome::Lost);
    let mut attempt = Attempt::new(number, cycle, started, finished, outcome);
    attempt.scope = problems.or(scope(row), None);
    attempt.sure = problems.or(row.flag("sure"), false);
    attempt.charged = problems.or(row.flag("charged"), true);
    attempt.error = problems.or(row.text_or_null("error"), None);
    attempt.reply = problems.or(row.text_or_null("reply"), None);
    attempt.provider_id = problems.or(row.text_or_null("provider_id"), None);
    attempt.transport = problems.or(row.text_or_null("transport"), None);
    attempt.note = problems.or(row.text_or_null("note"), None);
    attempt.note = problems.first().or(attempt.note);
    attempt
}

/// A row of a list. What makes no sense stands where the last error would.
pub(super) fn summary(row: &impl Columns, id: DeliveryId) -> DeliverySummary {
    let mut problems = Problems::default();
    let reason = problems.or(row.text_or_null("reason"), None);
    let error = problems.or(row.text_or_null("last_error"), None);
    let mut summary = DeliverySummary {
        id,
        state: problems.or(word(row, "state"), State::Dead),
        template_id: problems.or(row.text_or_null("template_id"), None),
        attempts: problems.or(count(row, "attempts"), 0),
        created_at: problems.or(row.time("created_at"), SystemTime::UNIX_EPOCH),
        due_at: problems.or(row.time_or_null("due_at"), None),
        last_error: None,
    };
    summary.last_error = problems.first().or(reason).or(error);
    summary
}

/// A delivery, from its row, its history and the outcomes that differ.
pub(super) fn delivery(
    row: &impl Columns,
    id: DeliveryId,
    attempts: Vec<Attempt>,
    outcomes: &[RecipientOutcome],
) -> Delivery {
    let mut problems = Problems::default();
    let state = problems.or(word(row, "state"), State::Dead);
    let reply = attempts.last().and_then(|attempt| attempt.reply.as_deref());
    let level = count(row, "priority").and_then(|level| {
        let priority = u8::try_from(level).ok().and_then(Priority::new);
        priority.ok_or_else(|| corrupt("priority is out of range"))
    });
    let cycle = match row.number_or_null("cycle") {
        Ok(None) => attempts.last().map_or(1, |attempt| attempt.cycle),
        _ => problems.or(count(row, "cycle"), 1),
    };
    let recipients = problems.or(recipients(row), Vec::new());
    Delivery {
        id,
        state,
        template_id: problems.or(row.text_or_null("template_id"), None),
        key: problems.or(row.text_or_null("key"), None),
        priority: problems.or(level, Priority::default()),
        when_in_doubt: problems.or(word(row, "when_in_doubt"), WhenInDoubt::default()),
        created_at: problems.or(row.time("created_at"), SystemTime::UNIX_EPOCH),
        due_at: problems.or(row.time_or_null("due_at"), None),
        expires_at: problems.or(row.time_or_null("expires_at"), None),
        cycle,
        reason: problems.or(row.text_or_null("reason"), None),
        recipients: statuses(state, recipients, outcomes, reply),
        attempts,
        malformed: problems.first(),
    }
}

/// The counts, from how many deliveries there are, how many of them are queued and leased, and the rows that count those that
/// ended. What is in none of these was sent.
pub(super) fn stats<R: Columns>(everything: i64, queued: i64, leased: i64, ended: &[R]) -> Result<Stats, StoreError> {
    let mut stats = Stats { pending: unsigned(queued - leased), leased: unsigned(leased), ..Stats::default() };
    let mut rest = everything - queued;
    for row in ended {
        let deliveries = row.number("deliveries")?;
        rest -= deliveries;
        *stats.count_mut(word(row, "state").unwrap_or(State::Dead)) += unsigned(deliveries);
    }
    stats.sent += unsigned(rest);
    Ok(stats)
}

/// All recipients as a JSON array.
pub(super) fn recipients_json(recipients: &[Recipient]) -> String {
    serde_json::Value::from_iter(recipients.iter().map(Recipient::as_str)).to_string()
}

/// A count from the database.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
