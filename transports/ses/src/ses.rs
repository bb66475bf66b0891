//! The transport.

use std::fmt;
use std::pin::pin;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::error::SdkError;
use aws_sdk_sesv2::operation::RequestId;
use aws_sdk_sesv2::operation::send_email::{SendEmailError, SendEmailOutput};
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, RawMessage};
use postrider_transport::{Address, Email, Failure, Mime, Outgoing, Receipt, Transport};
use tokio::time::timeout;
use tracing::debug;

use crate::interceptor::{ProgressInterceptor, RequestProgress};
use crate::request::{self, PreparedMessage};
use crate::{SesBuilder, SesConfigError, SesError, Stage, Timeouts, url};

/// Sends mail through Amazon SES. Cheap to clone; clones share their connections.
///
/// ```no_run
/// use postrider_ses::Ses;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let ses = Ses::from_env().await?;
/// let same = Ses::from_url("ses://default").await?;
///
/// let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
/// let with_set = Ses::builder(&config).configuration_set("receipts").build()?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// The future of any method may be dropped at any time. Its connection is then closed and not used again.
#[derive(Clone)]
pub struct Ses {
    pub(crate) client: Client,
    pub(crate) region: String,
    pub(crate) configuration_set: Option<String>,
    pub(crate) feedback_address: Option<Address>,
    pub(crate) timeouts: Timeouts,
    pub(crate) mime: Mime,
}

impl Ses {
    /// Creates a transport with the credentials, region, HTTP client and endpoint of an AWS configuration.
    ///
    /// Ignores its settings for retries and timeouts.
    ///
    /// # Errors
    /// As [`SesBuilder::build`].
    pub fn new(config: &SdkConfig) -> Result<Self, SesConfigError> {
        Self::builder(config).build()
    }

    /// Creates a builder with an AWS configuration.
    pub fn builder(config: &SdkConfig) -> SesBuilder {
        SesBuilder::new(config.clone())
    }

    /// Creates a transport with the configuration of the AWS tools: environment variables, the files in `~/.aws`, or the role of the
    /// machine.
    ///
    /// Profiles that use SSO or run a program need the features `sso` and `credentials-process` of `aws-config`.
    ///
    /// # Errors
    /// As [`SesBuilder::build`]. Missing credentials are an error only when the first mail is sent.
    pub async fn from_env() -> Result<Self, SesConfigError> {
        Self::new(&aws_config::load_defaults(BehaviorVersion::latest()).await)
    }

    /// Creates a transport from a URL. The [crate documentation](crate#urls) lists the formats.
    ///
    /// # Errors
    /// As [`SesBuilder::build`], and if the URL is invalid. The error contains no secret from the URL.
    pub async fn from_url(url: &str) -> Result<Self, SesConfigError> {
        Self::builder_from_url(url).await?.build()
    }

    /// Creates a builder from a URL.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub async fn builder_from_url(url: &str) -> Result<SesBuilder, SesConfigError> {
        Ok(url::parse(url)?.into_builder().await)
    }

    /// Checks a mail as [`check`](Transport::check) does, without a transport: it needs no credentials and no region.
    ///
    /// # Errors
    /// If SES does not [support](crate#unsupported-mail) the mail.
    pub fn check_email(email: &Email) -> Result<(), Failure> {
        request::check(email)
    }

    /// Sends one request and records its progress.
    async fn send_request(
        &self,
        message: PreparedMessage,
        progress: &RequestProgress,
    ) -> Result<SendEmailOutput, SdkError<SendEmailError>> {
        // SES reads the sender from the From of the raw message.
        self.client
            .send_email()
            .destination(Destination::builder().set_to_addresses(Some(message.recipients)).build())
            .content(EmailContent::builder().raw(RawMessage::builder().data(Blob::new(message.raw)).build()?).build())
            .set_email_tags((!message.tags.is_empty()).then_some(message.tags))
            .set_configuration_set_name(self.configuration_set.clone())
            .set_feedback_forwarding_email_address(message.feedback_address)
            .customize()
            .interceptor(ProgressInterceptor(progress.clone()))
            .send()
            .await
    }

    /// Sends one request within the time limits.
    async fn send_within_limits(&self, message: PreparedMessage) -> Result<SendEmailOutput, SesError> {
        let progress = RequestProgress::default();
        let recipients = message.recipients.clone();
        let limits = &self.timeouts;
        let mut call = pin!(self.send_request(message, &progress));
        let sent = timeout(limits.request, async {
            tokio::select! {
                biased;
                result = &mut call => Some(result),
                () = progress.request_taken() => None,
            }
        });
        let result = match sent.await {
            Ok(Some(result)) => result,
            Err(_) if progress.stage() == Stage::Request => {
                return Err(SesError::timeout(Stage::Request, limits.request));
            }
            Ok(None) | Err(_) => match timeout(limits.response, call).await {
                Ok(result) => result,
                Err(_) => return Err(SesError::timeout(Stage::Response, limits.response)),
            },
        };
        result.map_err(|error| SesError::from_sdk(progress.stage(), error, recipients))
    }
}

impl Transport for Ses {
    type Message = Email;

    fn name(&self) -> &str {
        "ses"
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        let message = PreparedMessage::new(&self.mime, self.feedback_address.as_ref(), outgoing)?;
        let result = self.send_within_limits(message).await;
        let result = result.and_then(|output| match output.message_id() {
            Some(id) if !id.is_empty() => Ok(Receipt::new().with_provider_id(id)),
            // The API model allows a missing message id. The request id shows that the response is from SES.
            _ if output.request_id().is_some() => Ok(Receipt::new()),
            _ => Err(SesError::no_message_id(output.request_id())),
        });
        result.map_err(|error| {
            let failure = Failure::from(error);
            debug!(class = ?failure.class(), scope = ?failure.scope(), in_doubt = failure.in_doubt(), "message not accepted");
            failure
        })
    }

    /// Checks the mail against the [limits of SES](crate#unsupported-mail), and renders it unless it has large attachments.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        Self::check_email(email)
    }
}

/// Hides the credentials.
impl fmt::Debug for Ses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ses")
            .field("region", &self.region)
            .field("configuration_set", &self.configuration_set)
            .finish_non_exhaustive()
    }
}
