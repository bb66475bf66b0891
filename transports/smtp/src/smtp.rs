//! The transport.

use std::fmt;
use std::sync::Arc;

use postrider_transport::{Email, Failure, Mime, Outgoing, Receipt, Transport};
use tracing::debug;

use crate::config::Config;
use crate::job::{self, Job};
use crate::pool::Pool;
use crate::{Explanation, NoRefusal, SmtpBuilder, SmtpConfigError, Stage, explain, url};

/// Carries mail to one SMTP server. Cheap to clone; clones share the connections.
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
/// The future of any method may be dropped at any time. What it was doing on a connection is then unknown, so that connection
/// is closed and never used again.
#[derive(Clone)]
pub struct Smtp {
    pool: Arc<Pool>,
    mime: Mime,
}

impl Smtp {
    /// Begins with a server's name or address. It must run in a tokio runtime with time and I/O when it is used, not yet when
    /// it is built.
    pub fn builder(host: impl Into<String>) -> SmtpBuilder {
        SmtpBuilder::new(host.into())
    }

    /// Reads everything from a URL; the [crate's manual](crate#urls) has the forms.
    ///
    /// # Errors
    /// As [`SmtpBuilder::build`], and when the URL cannot be read. No error repeats the URL or a part of it that could be
    /// secret.
    pub fn from_url(url: &str) -> Result<Self, SmtpConfigError> {
        Self::builder_from_url(url)?.build()
    }

    /// As [`from_url`](Self::from_url), to be added to.
    ///
    /// # Errors
    /// When the URL cannot be read.
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

    /// Where this goes, for logs: a URL with `***` for the password, and the user name masked where it is a mail address.
    pub fn redacted_url(&self) -> String {
        url::redacted(self.pool.config())
    }

    /// Connects, encrypts, authenticates and says goodbye: does the configuration hold, and is the server there? It takes one
    /// of the connections allowed, and waits for it.
    ///
    /// # Errors
    /// What a message would have met, up to `AUTH`; always the transport's condition.
    pub async fn check_connection(&self) -> Result<(), Failure> {
        Ok(self.pool.probe().await?)
    }

    /// Says what a reply means at a stage, by the [rules of your own](SmtpBuilder::rule) and then by those of this crate. Connects
    /// to nothing. See [`explain`](crate::explain).
    ///
    /// # Errors
    /// The reply accepts.
    pub fn explain(&self, stage: Stage, reply: &str) -> Result<Explanation, NoRefusal> {
        explain::with_rules(&self.pool.config().rules, stage, reply)
    }

    /// Closes the connections that wait for a message, politely. Calls under way are not disturbed, and later ones open
    /// connections again.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Transport for Smtp {
    type Message = Email;

    fn name(&self) -> &str {
        "smtp"
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        // Until the message itself goes out, the server cannot have taken it.
        let mut waiting = Some(outgoing.waiting());
        let job = Job::new(&self.mime, outgoing)?;
        let mut lease = self.pool.acquire().await?;
        let timeouts = &self.pool.config().timeouts;
        let mut result = lease.session.carry(&job, timeouts, &mut waiting).await;
        if lease.reused && result.as_ref().is_err_and(|rejected| rejected.unheard) {
            // The server had closed the connection, and the news crossed our first words on the way. It has not heard of the
            // message, so this is no second attempt at it: it is the first one, on a connection that exists. A new connection
            // has no such excuse.
            debug!("a connection had ended as it was used again; connecting anew");
            lease = lease.renew().await?;
            result = lease.session.carry(&job, timeouts, &mut waiting).await;
        }
        lease.release();
        result.map_err(|rejected| {
            let failure = rejected.failure;
            debug!(class = ?failure.class(), scope = ?failure.scope(), in_doubt = failure.in_doubt(), "not accepted");
            failure
        })
    }

    /// Writes the mail out, without the attachments that are encoded, to see whether it can be done: a line that cannot be folded to
    /// 998 octets is one reason why not. What the server offers is not asked for.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        job::check(email)
    }
}

/// Shows the [redacted URL](Smtp::redacted_url).
impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("url", &self.redacted_url()).finish_non_exhaustive()
    }
}
