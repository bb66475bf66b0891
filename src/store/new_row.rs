//! What a store inserts for each new delivery.

use std::fmt;
use std::time::{Duration, SystemTime};

use postrider_transport::{DeliveryId, Encoded, Recipient, mask_addresses};

use crate::state::{Priority, WhenInDoubt};

/// A moment, absolute or counted from the database's now. Exhaustive: a store must write both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(SystemTime),
    /// So long after the moment at which the database sees it.
    After(Duration),
}

/// One row to be inserted: what a [`Store`](crate::Store) is given for each new delivery.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewRow {
    /// The delivery's name.
    pub id: DeliveryId,
    /// The message.
    pub message: Encoded,
    /// Everyone it is for.
    pub recipients: Vec<Recipient>,
    /// What it was made from.
    pub template_id: Option<String>,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When it is due; now, if not given.
    pub due: Option<When>,
    /// When it is no longer worth sending.
    pub expires: Option<When>,
    /// What to do in doubt.
    pub when_in_doubt: WhenInDoubt,
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
    /// How many octets a stored message may have: 64 MiB. SQLite and PostgreSQL keep fields of up to 1 GB, but a relay holds what it
    /// sends in memory several times over, MySQL takes 64 MiB in one packet unless it is told otherwise, and MariaDB 16
    /// (`max_allowed_packet`).
    pub const MAX_BODY: usize = 64 << 20;
    /// How many recipients one delivery may have. For more, enqueue several.
    pub const MAX_RECIPIENTS: usize = 10_000;
    /// How many characters a recipient may have: as many as MySQL can index. An address of mail has at most 254 (RFC 5321 section
    /// 4.5.3.1.3, with its erratum 1690).
    pub const MAX_RECIPIENT: usize = 700;
    /// How many characters a template's name may have.
    pub const MAX_TEMPLATE_ID: usize = 255;
    /// How many characters an idempotency key may have.
    pub const MAX_KEY: usize = 255;

    /// What of it is larger than a store takes, if something is.
    pub(crate) fn excess(&self) -> Option<&'static str> {
        let longer = |text: &str, most: usize| text.len() > most && text.chars().count() > most;
        if self.message.body.len() > Self::MAX_BODY {
            return Some("more than 64 MiB, as it is stored");
        }
        if self.recipients.len() > Self::MAX_RECIPIENTS {
            return Some("more than 10,000 recipients");
        }
        if self.recipients.iter().any(|recipient| longer(recipient.as_str(), Self::MAX_RECIPIENT)) {
            return Some("a recipient of more than 700 characters");
        }
        if self.template_id.as_deref().is_some_and(|id| longer(id, Self::MAX_TEMPLATE_ID)) {
            return Some("a template's name of more than 255 characters");
        }
        None
    }

    /// A row due now, with nothing else wished for; the rest can be set field by field.
    pub fn new(id: DeliveryId, message: Encoded, recipients: Vec<Recipient>) -> Self {
        Self {
            id,
            message,
            recipients,
            template_id: None,
            key: None,
            priority: Priority::default(),
            due: None,
            expires: None,
            when_in_doubt: WhenInDoubt::default(),
        }
    }
}
