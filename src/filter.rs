//! Which deliveries to list or to count.

use std::fmt;
use std::time::SystemTime;

use postrider_transport::{DeliveryId, mask_addresses};

use crate::state::State;

/// Which deliveries to list or to count. A delivery must meet every condition that is set.
///
/// A recipient, a key, a provider id, and every state but `Sent` are found by an index or in a small table. The other conditions are
/// checked on each delivery, from the newest or the oldest on, until the page is full. On a large outbox, combine them with one of those or
/// with a time. SQLite has no index for a domain.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use postrider::{Filter, State};
///
/// let dead_letters = Filter::new().state(State::Dead).newest_first().limit(50);
/// let day = Duration::from_secs(24 * 3600);
/// let to_ada = Filter::new().recipient("ada@example.com").created_from(SystemTime::now() - 2 * day);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Filter {
    /// The state.
    pub state: Option<State>,
    /// A recipient. The case of ASCII letters does not matter. `@example.com` stands for every recipient at this domain.
    pub recipient: Option<String>,
    /// The beginning of the subject.
    pub subject_prefix: Option<String>,
    /// The template's name.
    pub template_id: Option<String>,
    /// A tag.
    pub tag: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// The next hop's id of the message, in any attempt.
    pub provider_id: Option<String>,
    /// The transport of the last attempt. The name of a combined transport includes those that it chose: `failover` finds `failover/ses`.
    pub transport: Option<String>,
    /// A part of [`last_error`](crate::DeliverySummary::last_error).
    pub error: Option<String>,
    /// The earliest time of enqueueing. A delivery whose id is more than a day older is not found in a database, because the search goes by
    /// the ids. An id has the time of the program that enqueued.
    pub created_from: Option<SystemTime>,
    /// The time before which the delivery was enqueued. A delivery whose id is more than a day newer is not found in a database.
    pub created_before: Option<SystemTime>,
    /// The earliest time at which the delivery finished. An unfinished delivery never matches.
    pub finished_from: Option<SystemTime>,
    /// The time before which the delivery finished. A delivery whose id is more than a day newer is not found in a database.
    pub finished_before: Option<SystemTime>,
    /// Whether the newest delivery comes first.
    pub newest_first: bool,
    /// The last delivery of the page before, in the same order.
    pub after: Option<DeliveryId>,
    /// The largest number of deliveries.
    pub limit: u32,
}

/// Defines the methods that set one condition.
macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $convert:expr;)*) => {
        impl Filter {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(mut self, $name: $type) -> Self {
                    self.$name = Some($convert($name));
                    self
                }
            )*
        }
    };
}

conditions! {
    /// Sets the state.
    state: State => |state| state;
    /// Sets the recipient, `ada@example.com`, or a domain, `@example.com`.
    recipient: impl Into<String> => Into::into;
    /// Sets the beginning of the subject.
    subject_prefix: impl Into<String> => Into::into;
    /// Sets the template's name.
    template_id: impl Into<String> => Into::into;
    /// Sets a tag.
    tag: impl Into<String> => Into::into;
    /// Sets the idempotency key.
    key: impl Into<String> => Into::into;
    /// Sets the next hop's id of the message.
    provider_id: impl Into<String> => Into::into;
    /// Sets the transport of the last attempt.
    transport: impl Into<String> => Into::into;
    /// Sets a part of the last error.
    error: impl Into<String> => Into::into;
    /// Sets the earliest time of enqueueing.
    created_from: SystemTime => |time| time;
    /// Sets the time before which the delivery was enqueued.
    created_before: SystemTime => |time| time;
    /// Sets the earliest time at which the delivery finished.
    finished_from: SystemTime => |time| time;
    /// Sets the time before which the delivery finished.
    finished_before: SystemTime => |time| time;
    /// Sets the last delivery of the page before.
    after: DeliveryId => |id| id;
}

impl Filter {
    /// A filter for the 100 oldest deliveries.
    pub fn new() -> Self {
        Self {
            state: None,
            recipient: None,
            subject_prefix: None,
            template_id: None,
            tag: None,
            key: None,
            provider_id: None,
            transport: None,
            error: None,
            created_from: None,
            created_before: None,
            finished_from: None,
            finished_before: None,
            newest_first: false,
            after: None,
            limit: 100,
        }
    }

    /// Lists the newest delivery first.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Sets the largest number of deliveries.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = |text: &Option<String>| text.as_deref().map(mask_addresses).map(|text| text.into_owned());
        f.debug_struct("Filter")
            .field("state", &self.state)
            .field("recipient", &masked(&self.recipient))
            .field("template_id", &self.template_id)
            .field("tag", &self.tag)
            .field("key", &masked(&self.key))
            .field("transport", &self.transport)
            .field("newest_first", &self.newest_first)
            .field("after", &self.after)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
