//! Checks of messages by a transport's name, for a process that does not have the transport.

use std::fmt;
use std::sync::Arc;

use postrider_transport::{Email, Failure};

use crate::outbox::AcceptMessages;

/// The transports by name. Each name is the feature, the scheme of the URL, and the name in the history.
const TRANSPORTS: &[(&str, bool)] = &[
    ("brevo", cfg!(feature = "brevo")),
    ("mailersend", cfg!(feature = "mailersend")),
    ("mailgun", cfg!(feature = "mailgun")),
    ("mailjet", cfg!(feature = "mailjet")),
    ("mailtrap", cfg!(feature = "mailtrap")),
    ("postmark", cfg!(feature = "postmark")),
    ("resend", cfg!(feature = "resend")),
    ("sendgrid", cfg!(feature = "sendgrid")),
    ("ses", cfg!(feature = "ses")),
    ("smtp", cfg!(feature = "smtp")),
    ("sparkpost", cfg!(feature = "sparkpost")),
];

type CheckFn = dyn Fn(&Email) -> Result<(), Failure> + Send + Sync;

/// The check of one transport.
pub(crate) struct Check {
    name: &'static str,
    check: Arc<CheckFn>,
}

impl Check {
    #[allow(dead_code, reason = "without a transport, there is nothing to check")]
    fn new(name: &'static str, check: impl Fn(&Email) -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self { name, check: Arc::new(check) }
    }

    /// The check of the transport with this name.
    pub(crate) fn named(name: &str) -> Result<Self, CheckAsError> {
        #[allow(clippy::match_single_binding, reason = "without a transport, no other arm is left")]
        let found: Option<Self> = match name {
            #[cfg(feature = "smtp")]
            "smtp" => Some(Self::new("smtp", postrider_smtp::Smtp::check_email)),
            #[cfg(feature = "ses")]
            "ses" => Some(Self::new("ses", postrider_ses::Ses::check_email)),
            #[cfg(feature = "brevo")]
            "brevo" => provider(postrider_http::Brevo::new(KEY)),
            #[cfg(feature = "mailersend")]
            "mailersend" => provider(postrider_http::MailerSend::new(KEY)),
            #[cfg(feature = "mailgun")]
            "mailgun" => provider(postrider_http::Mailgun::new(KEY, "example.com")),
            #[cfg(feature = "mailjet")]
            "mailjet" => provider(postrider_http::Mailjet::new(KEY, KEY)),
            #[cfg(feature = "mailtrap")]
            "mailtrap" => provider(postrider_http::Mailtrap::new(KEY)),
            #[cfg(feature = "postmark")]
            "postmark" => provider(postrider_http::Postmark::new(KEY)),
            #[cfg(feature = "resend")]
            "resend" => provider(postrider_http::Resend::new(KEY)),
            #[cfg(feature = "sendgrid")]
            "sendgrid" => provider(postrider_http::SendGrid::new(KEY)),
            #[cfg(feature = "sparkpost")]
            "sparkpost" => provider(postrider_http::SparkPost::new(KEY)),
            _ => None,
        };
        found.ok_or_else(|| CheckAsError::new(name))
    }
}

impl crate::outbox::sealed::Sealed for Check {}

impl AcceptMessages for Check {
    type Message = Email;

    fn accepts(&self, email: &Email) -> Result<(), Failure> {
        (self.check)(email)
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Takes the place of a provider's key, which a check does not use.
#[allow(dead_code, reason = "its use depends on the enabled providers")]
const KEY: &str = "no-key";

#[cfg(feature = "http")]
#[allow(dead_code, reason = "its use depends on the enabled providers")]
fn provider<P: postrider_http::Provider>(provider: Result<P, postrider_http::HttpConfigError>) -> Option<Check> {
    let provider = provider.ok()?;
    Some(Check::new(P::NAME, move |email| Ok(provider.check(email)?)))
}

/// The error of [`EnqueueOnly::check_as`](crate::EnqueueOnly::check_as): there is no check of this name. `Display` lists the names that this
/// build has.
///
/// It does not repeat the text that was given, which may be a URL with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckAsError {
    /// The transport of this name needs a feature that this build does not have. The feature has the same name.
    MissingFeature(&'static str),
    /// No transport has this name.
    Unknown,
}

impl CheckAsError {
    fn new(name: &str) -> Self {
        let known = TRANSPORTS.iter().find(|(known, _)| *known == name);
        known.map_or(Self::Unknown, |(name, _)| Self::MissingFeature(name))
    }

    /// The names that this build has.
    pub fn available() -> impl Iterator<Item = &'static str> {
        TRANSPORTS.iter().filter(|(_, enabled)| *enabled).map(|(name, _)| *name)
    }
}

impl fmt::Display for CheckAsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFeature(name) => write!(f, "a check as {name} needs the feature `{name}`; this build has ")?,
            Self::Unknown => f.write_str("no transport has this name; this build can check as ")?,
        }
        let names: Vec<_> = Self::available().collect();
        f.write_str(&if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

impl std::error::Error for CheckAsError {}
