//! A transport for development that sends nothing.

use std::fmt;

use postrider_transport::{Class, Email, Failure, Mime, Outgoing, Receipt, Recipient, Refusal, Scope, Transport};

use crate::outbox::AcceptMessages;
use crate::{CheckAsError, EnqueueOnly};

/// A transport for development. It accepts every mail and **sends nothing**: the outbox itself is the inbox, and the dashboard shows each
/// mail with its HTML, text, source and attachments.
///
/// ```
/// use postrider::{DevMailbox, MemoryStore, Outbox};
///
/// let outbox = Outbox::new(MemoryStore::new(), DevMailbox::new());
/// ```
///
/// The feature `mailbox` adds this type, so a production build without that feature cannot choose it. `new` and `from_url` log a warning,
/// and the reply in the history of each mail says that nothing was sent. The transport's name is `mailbox`.
///
/// # What is refused
/// A mail that cannot be written as a message is refused when it is enqueued, as by SMTP. [`check_as`](Self::check_as) refuses instead what
/// production's transport would refuse, so that a mistake shows on the developer's machine:
///
/// ```
/// # #[cfg(feature = "smtp")]
/// # fn demo() -> Result<(), postrider::CheckAsError> {
/// use postrider::DevMailbox;
///
/// let transport = DevMailbox::new().check_as("smtp")?;
/// # Ok(()) }
/// ```
///
/// If production uses a [`Failover`](crate::transport::Failover) of two transports, use a `Failover` of two mailboxes, each with its check.
///
/// # Addresses for tests
/// Two domains get another result than "accepted". Nobody can own them (RFC 2606 section 2), so no real mail has them.
///
/// | Recipient | Result |
/// |---|---|
/// | `…@refuse.invalid` | refused for good, as an unknown user is |
/// | `…@defer.invalid` | refused for now, as by greylisting or a full mailbox |
///
/// A mail to several recipients has a result for each.
#[derive(Clone)]
pub struct DevMailbox {
    checks: EnqueueOnly<Email>,
}

/// Its mail is refused.
const REFUSES: &str = "refuse.invalid";

/// Its mail is deferred.
const DEFERS: &str = "defer.invalid";

/// The name in the history, and the scheme of the URL.
const NAME: &str = "mailbox";

impl DevMailbox {
    /// Creates the transport, and logs a warning that it sends nothing.
    pub fn new() -> Self {
        tracing::warn!("the transport `mailbox` sends no mail; it is for development");
        Self { checks: EnqueueOnly::new() }
    }

    /// Creates the transport from a URL: `mailbox:`, or `mailbox:?check_as=ses`. It logs the warning of [`new`](Self::new).
    ///
    /// # Errors
    /// If the URL is another one, or its check is not available.
    pub fn from_url(url: &str) -> Result<Self, DevMailboxError> {
        let (scheme, rest) = url.trim().split_once(':').ok_or(DevMailboxError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(NAME) {
            return Err(DevMailboxError::Scheme);
        }
        let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !matches!(host, "" | "//" | "//default") {
            return Err(DevMailboxError::Host);
        }
        let checks = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            Some(("check_as", transport)) => Ok(transport),
            _ => Err(DevMailboxError::UnknownOption),
        });
        let checks = checks.collect::<Result<Vec<_>, _>>()?;
        checks
            .into_iter()
            .try_fold(Self::new(), |mailbox, transport| mailbox.check_as(transport).map_err(DevMailboxError::CheckAs))
    }

    /// Refuses what the transport of this name refuses, and nothing else: see [`EnqueueOnly::check_as`]. If it is called again, a mail
    /// must pass both checks.
    ///
    /// # Errors
    /// If no transport has this name, or this build lacks its feature.
    pub fn check_as(self, transport: &str) -> Result<Self, CheckAsError> {
        Ok(Self { checks: self.checks.check_as(transport)? })
    }

    /// Refuses what this transport refuses: see [`EnqueueOnly::check_with`].
    #[must_use]
    pub fn check_with<T: Transport<Message = Email>>(self, transport: T) -> Self {
        Self { checks: self.checks.check_with(transport) }
    }
}

impl Default for DevMailbox {
    /// As [`new`](Self::new).
    fn default() -> Self {
        Self::new()
    }
}

impl Transport for DevMailbox {
    type Message = Email;

    fn name(&self) -> &str {
        NAME
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        // Another program may have enqueued it without a check.
        self.check(outgoing.message())?;
        let recipients = outgoing.recipients();
        let refused: Vec<_> = recipients.iter().filter_map(refusal).collect();
        if !refused.is_empty() && refused.len() == recipients.len() {
            let deferred = refused.iter().any(|refusal| refusal.class == Class::Transient);
            let failure = match deferred {
                true => Failure::transient(Scope::Message, "the mailbox refuses the recipients for now"),
                false => Failure::permanent(Scope::Message, "the mailbox refuses the recipients for good"),
            };
            return Err(failure.with_refused(refused));
        }
        Ok(Receipt::new().with_reply("mailbox: nothing was sent; the outbox keeps the mail").with_refused(refused))
    }

    /// Checks that the mail can be written as a message, or what [`check_as`](DevMailbox::check_as) says.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        if self.checks.has_checks() {
            return self.checks.accepts(email);
        }
        Mime::new().check(email)?;
        Ok(())
    }
}

impl fmt::Debug for DevMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DevMailbox")
    }
}

/// The refusal of a recipient at a domain for tests. `None` if the recipient is accepted.
fn refusal(recipient: &Recipient) -> Option<Refusal> {
    let (_, domain) = recipient.as_str().rsplit_once('@')?;
    let (class, does) = if domain.eq_ignore_ascii_case(REFUSES) {
        (Class::Permanent, "refuses mail for good")
    } else if domain.eq_ignore_ascii_case(DEFERS) {
        (Class::Transient, "refuses mail for now")
    } else {
        return None;
    };
    let domain = domain.to_ascii_lowercase();
    Some(Refusal::new(recipient.as_str(), class, format!("mailbox: {domain} {does}, to try a refusal")))
}

/// Why [`DevMailbox::from_url`] refused a URL. It repeats no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DevMailboxError {
    /// The scheme is not `mailbox`.
    Scheme,
    /// There is something between the scheme and the options. A mailbox has no host.
    Host,
    /// There is an option other than `check_as`.
    UnknownOption,
    /// The check is not available.
    CheckAs(CheckAsError),
}

impl fmt::Display for DevMailboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("the URL of a mailbox begins with mailbox:"),
            Self::Host => f.write_str("the URL of a mailbox has no host: write mailbox: or mailbox:?check_as=smtp"),
            Self::UnknownOption => f.write_str("the mailbox URL has an unknown option; the only one is check_as"),
            Self::CheckAs(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DevMailboxError {}
