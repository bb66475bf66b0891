//! Which deliveries to list or to count.

use std::fmt;
use std::time::SystemTime;

use postrider_transport::{Address, AddressError, DeliveryId, Mailbox, mask_addresses};

use crate::state::State;

/// Which deliveries to list or to count. A delivery must meet every condition that is set.
///
/// A recipient, a key, a provider id, and every state but `Leased` are found by an index or in a small table. The other conditions are
/// checked on each delivery, from the newest or the oldest on, until the page is full. On a large outbox, combine them with one of those or
/// with a time, or use [`Outbox::search`](crate::Outbox::search), which stops after a time. SQLite has no index for a domain.
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
    /// A part of [`last_error`](crate::DeliverySummary::last_error). The case of letters matters.
    pub error: Option<String>,
    /// The earliest time of enqueueing. A database searches by the ids, whose time is by the clock of the program that enqueued. It does
    /// not find a delivery whose id is more than a day older than this time.
    pub created_from: Option<SystemTime>,
    /// The time before which the delivery was enqueued. A database does not find a delivery whose id is more than a day newer.
    pub created_before: Option<SystemTime>,
    /// The earliest time at which the delivery finished. An unfinished delivery never matches.
    pub finished_from: Option<SystemTime>,
    /// The time before which the delivery finished. A database does not find a delivery whose id is more than a day newer.
    pub finished_before: Option<SystemTime>,
    /// Whether the newest delivery comes first.
    pub newest_first: bool,
    /// The last delivery of the page before, in the same order.
    pub after: Option<DeliveryId>,
    /// The last delivery to look at, in the same order. It need not exist.
    pub through: Option<DeliveryId>,
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
    /// Sets the last delivery to look at.
    through: DeliveryId => |id| id;
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
            through: None,
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

impl Filter {
    /// Whether the store reads little more than a page to answer a search. `domains` says whether it has an index for domains.
    pub(crate) fn is_indexed(&self, domains: bool) -> bool {
        let is_domain = self.recipient.as_ref().is_some_and(|wanted| wanted.starts_with('@'));
        let by_address = self.recipient.is_some() && !is_domain;
        let texts = [&self.subject_prefix, &self.template_id, &self.tag, &self.transport, &self.error];
        let times = [self.created_from, self.created_before, self.finished_from, self.finished_before];
        let checks_each = self.state == Some(State::Leased)
            || texts.iter().any(|text| text.is_some())
            || times.iter().any(Option::is_some)
            || is_domain && !domains;
        // The oldest rows may be those of deleted deliveries, whose keys are kept.
        let skips_many = !self.newest_first && !is_domain && matches!(self.state, None | Some(State::Sent));
        by_address || self.key.is_some() || self.provider_id.is_some() || !(checks_each || skips_many)
    }

    /// Reads a recipient, or a domain with an `@` before it, as a person writes or pastes it: of `Ada <ada@example.com>`,
    /// `mailto:ada@example.com` or ` ada@example.com,` it returns `ada@example.com`. The fields and setters of this type take a text as it
    /// is.
    ///
    /// ```
    /// use postrider::Filter;
    ///
    /// assert_eq!(Filter::parse_recipient(" Ada <ada@example.com>, ")?, "ada@example.com");
    /// assert_eq!(Filter::parse_recipient("@example.com")?, "@example.com");
    /// assert!(Filter::parse_recipient("ada").is_err());
    /// # Ok::<(), postrider::transport::AddressError>(())
    /// ```
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse_recipient(text: &str) -> Result<String, AddressError> {
        let text = text.trim().trim_end_matches([',', ';']).trim_end();
        let text = match text.split_at_checked("mailto:".len()) {
            Some((scheme, address)) if scheme.eq_ignore_ascii_case("mailto:") => {
                address.split('?').next().unwrap_or(address)
            }
            _ => text,
        };
        let is_bare = |text: &str| !text.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';'));
        match (text.strip_prefix('@'), text.parse::<Mailbox>()) {
            (Some(domain), _) if !domain.is_empty() && is_bare(domain) && !domain.contains('@') => {
                // As a mail has it: an international domain in its ASCII form.
                let address = format!("postmaster@{domain}").parse::<Address>();
                let ascii = address.ok().and_then(|address| Some(address.as_str().split_once('@')?.1.to_owned()));
                Ok(format!("@{}", ascii.as_deref().unwrap_or(domain)))
            }
            (_, Ok(mailbox)) => Ok(mailbox.address().as_str().to_owned()),
            // A message type of one's own can have recipients that are no addresses of RFC 5321.
            (None, Err(_)) if is_bare(text) && text.split_once('@').is_some_and(|(_, domain)| !domain.is_empty()) => {
                Ok(text.to_owned())
            }
            (_, Err(error)) => Err(error),
        }
    }

    /// The conditions in one line, with masked addresses, such as `state dead, recipient a***@example.com`.
    pub(crate) fn describe(&self) -> String {
        let time = |time: Option<SystemTime>| time.map(crate::clock::utc_text);
        let conditions = [
            ("state", self.state.map(|state| state.as_str().to_owned())),
            ("recipient", self.recipient.clone()),
            ("subject", self.subject_prefix.clone()),
            ("template", self.template_id.clone()),
            ("tag", self.tag.clone()),
            ("key", self.key.clone()),
            ("provider id", self.provider_id.clone()),
            ("transport", self.transport.clone()),
            ("error", self.error.clone()),
            ("from", time(self.created_from)),
            ("before", time(self.created_before)),
            ("finished from", time(self.finished_from)),
            ("finished before", time(self.finished_before)),
        ];
        let set = conditions.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?)));
        mask_addresses(&set.collect::<Vec<_>>().join(", ")).into_owned()
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
            .field("through", &self.through)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_read_as_it_is_pasted() {
        for text in [
            "ada@example.com",
            " ada@example.com\n",
            "ada@example.com,",
            "ada@example.com;",
            "<ada@example.com>",
            "Ada <ada@example.com>",
            "\"Lovelace, Ada\" <ada@example.com>,",
            "mailto:ada@example.com",
            "MAILTO:ada@example.com?subject=Hello",
        ] {
            assert_eq!(Filter::parse_recipient(text).as_deref(), Ok("ada@example.com"), "{text:?}");
        }
        for same in ["@example.com", "\"a b\"@example.com", "a..b@example.com", "@under_score.example"] {
            assert_eq!(Filter::parse_recipient(same).as_deref(), Ok(same));
        }
        // A mail has the ASCII form of the domain.
        assert_eq!(Filter::parse_recipient("jürgen@bücher.example").as_deref(), Ok("jürgen@xn--bcher-kva.example"));
        assert_eq!(Filter::parse_recipient("@bücher.example").as_deref(), Ok("@xn--bcher-kva.example"));
        for bad in ["", "@", "ada", "ada@", "a@b.example, c@d.example", "a b@example.com", "mailto:", "@a@b", "ä"] {
            assert!(Filter::parse_recipient(bad).is_err(), "{bad:?}");
        }
    }
}
