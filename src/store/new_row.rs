//! The row that a store inserts for each new delivery.

use std::fmt;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, MessageSummary, Recipient, TraceParent, mask_addresses};

#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::clock::{micros, to_micros};
use crate::state::{Priority, WhenInDoubt};

/// A time, absolute or relative to the database's clock. The enum is exhaustive, since a store must write both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(SystemTime),
    /// This long after the database receives the row.
    After(Duration),
}

/// The two columns of a time: whether it is relative to now, and its microseconds.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) fn time_columns(when: Option<When>) -> (bool, Option<i64>) {
    match when {
        None => (false, None),
        Some(When::At(time)) => (false, Some(to_micros(time))),
        Some(When::After(wait)) => (true, Some(micros(wait))),
    }
}

/// The subject as it is stored for lists: at most [`NewRow::MAX_SUBJECT`] characters, without NUL, which PostgreSQL cannot store.
pub(crate) fn stored_subject(summary: &MessageSummary) -> Option<String> {
    let subject = summary.subject.as_deref().filter(|subject| !subject.is_empty())?;
    Some(subject.chars().filter(|character| *character != '\0').take(NewRow::MAX_SUBJECT).collect())
}

/// The tags as a JSON array, without NUL. `None` if there are none.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn tags_json(tags: &[String]) -> Option<String> {
    (!tags.is_empty()).then(|| serde_json::Value::from_iter(tags.iter().map(|tag| tag.replace('\0', ""))).to_string())
}

/// The trace context as it is stored. `None` without one.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn traceparent_column(row: &NewRow) -> Option<String> {
    row.traceparent.map(|parent| parent.to_string())
}

/// A new delivery for a [`Store`](crate::Store) to insert.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewRow {
    /// Unique id.
    pub id: DeliveryId,
    /// The message.
    pub message: Encoded,
    /// All recipients.
    pub recipients: Vec<Recipient>,
    /// The subject and the tags, for lists and searches.
    pub summary: MessageSummary,
    /// The id of the template of the message. `None` without a template.
    pub template_id: Option<String>,
    /// The caller's idempotency key. `None` without a key.
    pub key: Option<String>,
    /// The priority.
    pub priority: Priority,
    /// The due time. `None` means now.
    pub due: Option<When>,
    /// The time from which on the delivery must not be sent. `None` leaves it to the retry policy.
    pub expires: Option<When>,
    /// What to do if the message may have been accepted.
    pub when_in_doubt: WhenInDoubt,
    /// The trace context of the request that enqueues it. `None` without one.
    pub traceparent: Option<TraceParent>,
}

impl fmt::Debug for NewRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRow")
            .field("id", &self.id)
            .field("message", &self.message)
            .field("key", &self.key.as_deref().map(mask_addresses))
            .finish_non_exhaustive()
    }
}

impl NewRow {
    /// The largest size of a stored message with its blobs: 64 MiB. SQLite and PostgreSQL store up to 1 GB in a field, but a relay holds
    /// several copies of each message in memory. By default MySQL accepts packets of 64 MiB, and MariaDB of 16 MiB (`max_allowed_packet`).
    pub const MAX_BODY: usize = 64 << 20;
    /// The largest length of a stored subject in characters. A longer one is cut in lists, and sent as it is.
    pub const MAX_SUBJECT: usize = 1_000;
    /// The largest number of recipients of a delivery. For more, enqueue several deliveries.
    pub const MAX_RECIPIENTS: usize = 10_000;
    /// The largest length of a recipient in characters, limited by the index in MySQL. A mail address has at most 254 (RFC 5321 section
    /// 4.5.3.1.3, with its erratum 1690).
    pub const MAX_RECIPIENT: usize = 700;
    /// The largest length of a template id in characters.
    pub const MAX_TEMPLATE_ID: usize = 255;
    /// The largest length of an idempotency key in characters.
    pub const MAX_KEY: usize = 255;

    /// The limit that the row exceeds, as a text for an error. `None` if it exceeds none.
    pub(crate) fn excess(&self) -> Option<&'static str> {
        let longer = |text: &str, most: usize| text.len() > most && text.chars().count() > most;
        if self.message.size() > Self::MAX_BODY {
            return Some("more than 64 MiB in its stored form");
        }
        if self.recipients.len() > Self::MAX_RECIPIENTS {
            return Some("more than 10,000 recipients");
        }
        if self.recipients.iter().any(|recipient| longer(recipient.as_str(), Self::MAX_RECIPIENT)) {
            return Some("a recipient of more than 700 characters");
        }
        if self.template_id.as_deref().is_some_and(|id| longer(id, Self::MAX_TEMPLATE_ID)) {
            return Some("a template id of more than 255 characters");
        }
        None
    }

    /// Refuses a row that exceeds a limit or has no recipient. PostgreSQL's functions do not check it.
    #[cfg(feature = "postgres")]
    pub(crate) fn check(&self) -> Result<(), crate::StoreError> {
        let longer_key = self.key.as_deref().is_some_and(|key| !(1..=Self::MAX_KEY).contains(&key.chars().count()));
        let excess = if self.recipients.is_empty() { Some("no recipient") } else { self.excess() };
        match excess.or(longer_key.then_some("a key that is empty or has more than 255 characters")) {
            None => Ok(()),
            Some(what) => {
                let text = format!("a delivery breaks a rule: {what}");
                Err(crate::StoreError::new(crate::StoreErrorKind::Rejected, text))
            }
        }
    }

    /// A row that is due now. Set the other fields one by one.
    pub fn new(id: DeliveryId, message: Encoded, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            message,
            recipients,
            summary: MessageSummary::default(),
            template_id: None,
            key: None,
            priority: Priority::default(),
            due: None,
            expires: None,
            when_in_doubt: WhenInDoubt::default(),
            traceparent: None,
        }
    }
}
