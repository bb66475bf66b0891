//! The transport.

use std::fmt;
use std::sync::Arc;

use postrider_transport::{Email, Failure, Mime, Outgoing, Receipt, Transport};
use tracing::debug;

use crate::config::Config;
use crate::pool::Pool;
use crate::prepared_message::{self, PreparedMessage};
use crate::{Explanation, NoRefusal, SmtpBuilder, SmtpConfigError, Stage, explain, url};

/// Sends mail to one SMTP server. A clone is cheap and shares the connections.
///
/// ```no_run
/// use postrider_smtp::{Credentials, Smtp};
///
/// # fn main() -> Result<(), postrider_smtp::SmtpConfigError> {
/// let smtp = Smtp::builder("smtp.example.com").credentials(Credentials::new("ada", "secret")).build()?;
/// let same = Smtp::from_url("smtp://ada:secret@smtp.example.com")?;
/// assert_eq!(smtp.redacted_url(), "smtp://ada:***@smtp.example.com:587?tls=required");
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// The future of any method may be dropped at any time. Its connection is then in an unknown state, so it is closed.
#[derive(Clone)]
pub struct Smtp {
    pool: Arc<Pool>,
    mime: Mime,
}

impl Smtp {
    /// Returns a builder for a server's name or address. Using the transport, but not building it, needs a tokio runtime with time
    /// and I/O.
    pub fn builder(host: impl Into<String>) -> SmtpBuilder {
        SmtpBuilder::new(host.into())
    }

    /// Builds a transport from a URL. The [crate documentation](crate#urls) has the syntax.
    ///
    /// # Errors
    /// Those of [`SmtpBuilder::build`], and an invalid URL. No error repeats a part of the URL that may be secret.
    pub fn from_url(url: &str) -> Result<Self, SmtpConfigError> {
        Self::builder_from_url(url)?.build()
    }

    /// Returns a builder with the settings of a URL.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn builder_from_url(url: &str) -> Result<SmtpBuilder, SmtpConfigError> {
        url::parse(url)
    }

    pub(crate) fn new(config: Config, mime: Mime) -> Self {
        Self { pool: Arc::new(Pool::new(config)), mime }
    }

    #[cfg(test)]
    pub(crate) fn pool_config(&self) -> &Config {
        self.pool.config()
    }

    /// Returns the URL for logs: with `***` for the password, and a masked user name if it is a mail address.
    pub fn redacted_url(&self) -> String {
        url::redacted(self.pool.config())
    }

    /// Checks that the server can be reached and accepts the credentials. It connects, encrypts, authenticates and sends `QUIT`.
    /// The connection counts towards the [limit](SmtpBuilder::max_connections), so this may wait.
    ///
    /// # Errors
    /// The failure that a message would have met up to `AUTH`. Its scope is always the transport.
    pub async fn check_connection(&self) -> Result<(), Failure> {
        Ok(self.pool.check_connection().await?)
    }

    /// Checks a mail as [`check`](Transport::check) does, without a transport: it needs no server and no configuration.
    ///
    /// # Errors
    /// If the mail cannot be written as a message.
    pub fn check_email(email: &Email) -> Result<(), Failure> {
        prepared_message::check(email)
    }

    /// Explains what a reply means at a stage, by [your rules](SmtpBuilder::rule) and then by those of this crate. It does not
    /// connect. See [`explain`](crate::explain).
    ///
    /// # Errors
    /// The reply is not a refusal.
    pub fn explain(&self, stage: Stage, reply: &str) -> Result<Explanation, NoRefusal> {
        explain::with_rules(&self.pool.config().rules, stage, reply)
    }

    /// Closes the idle connections with `QUIT`. Calls under way continue, and later calls open connections again.
    pub async fn close(&self) {
        self.pool.close_idle().await;
    }
}

impl Transport for Smtp {
    type Message = Email;

    fn name(&self) -> &str {
        "smtp"
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        // The server cannot have taken the message before it is written.
        let mut waiting = Some(outgoing.waiting());
        let message = PreparedMessage::new(&self.mime, outgoing)?;
        let mut pooled = self.pool.acquire().await?;
        let timeouts = &self.pool.config().timeouts;
        let mut result = pooled.session.send(&message, timeouts, &mut waiting).await;
        if pooled.reused && result.as_ref().is_err_and(|error| error.stale_connection) {
            // The server closed the idle connection while our commands were on their way, and saw nothing of the message. So this
            // is still the first attempt. On a new connection it would be a failure.
            debug!("a reused connection had ended; connecting again");
            pooled = pooled.reconnect().await?;
            result = pooled.session.send(&message, timeouts, &mut waiting).await;
        }
        pooled.release();
        result.map_err(|error| {
            let failure = error.failure;
            debug!(class = ?failure.class(), scope = ?failure.scope(), in_doubt = failure.in_doubt(), "not accepted");
            failure
        })
    }

    /// Checks that the mail can be written as a message: a line that cannot be folded to 998 octets, for instance, is an error. It
    /// does not ask the server what it offers.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        Self::check_email(email)
    }
}

/// Shows the [redacted URL](Smtp::redacted_url) only.
impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("url", &self.redacted_url()).finish_non_exhaustive()
    }
}
