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

use crate::request::{self, Request};
use crate::wire::{Progress, Watch};
use crate::{SesBuilder, SesConfigError, SesError, Stage, Timeouts, url};

/// Carries mail to Amazon SES. Cheap to clone; clones share the connections.
///
/// ```no_run
/// use postrider_ses::Ses;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let ses = Ses::from_env().await?;
/// let same = Ses::from_url("ses://default").await?;
///
/// let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
/// let by_set = Ses::builder(&config).configuration_set("receipts").build()?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// The future of a call may be dropped at any time. Its connection is then closed, and never used again.
#[derive(Clone)]
pub struct Ses {
    pub(crate) client: Client,
    pub(crate) region: String,
    pub(crate) configuration_set: Option<String>,
    pub(crate) feedback: Option<Address>,
    pub(crate) timeouts: Timeouts,
    pub(crate) mime: Mime,
}

impl Ses {
    /// Takes the credentials, the region, the HTTP client and the endpoint of an AWS configuration. Its retries and time-outs
    /// are not used.
    ///
    /// # Errors
    /// As [`SesBuilder::build`].
    pub fn new(config: &SdkConfig) -> Result<Self, SesConfigError> {
        Self::builder(config).build()
    }

    /// As [`new`](Self::new), to be added to.
    pub fn builder(config: &SdkConfig) -> SesBuilder {
        SesBuilder::new(config.clone())
    }

    /// Takes what AWS's tools take: the environment's variables, the files in `~/.aws`, or the role of the machine. (Profiles
    /// that log in by SSO or run a program need the features `sso` and `credentials-process` of `aws-config`.)
    ///
    /// # Errors
    /// As [`SesBuilder::build`]. That there are no credentials shows at the first mail only.
    pub async fn from_env() -> Result<Self, SesConfigError> {
        Self::new(&aws_config::load_defaults(BehaviorVersion::latest()).await)
    }

    /// Reads everything from a URL; the [crate's manual](crate#urls) has the forms.
    ///
    /// # Errors
    /// As [`SesBuilder::build`], and when the URL cannot be read. No error repeats a part of the URL.
    pub async fn from_url(url: &str) -> Result<Self, SesConfigError> {
        Self::builder_from_url(url).await?.build()
    }

    /// As [`from_url`](Self::from_url), to be added to.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub async fn builder_from_url(url: &str) -> Result<SesBuilder, SesConfigError> {
        Ok(url::parse(url)?.into_builder().await)
    }

    /// One request, which tells how far it has come.
    async fn request(
        &self,
        request: Request,
        progress: &Progress,
    ) -> Result<SendEmailOutput, SdkError<SendEmailError>> {
        // A raw message's own From is whom SES takes it to be from.
        self.client
            .send_email()
            .destination(Destination::builder().set_to_addresses(Some(request.recipients)).build())
            .content(EmailContent::builder().raw(RawMessage::builder().data(Blob::new(request.raw)).build()?).build())
            .set_email_tags((!request.tags.is_empty()).then_some(request.tags))
            .set_configuration_set_name(self.configuration_set.clone())
            .set_feedback_forwarding_email_address(request.feedback)
            .customize()
            .interceptor(Watch(progress.clone()))
            .send()
            .await
    }

    async fn call(&self, request: Request) -> Result<SendEmailOutput, SesError> {
        let progress = Progress::default();
        let recipients = request.recipients.clone();
        let limits = &self.timeouts;
        let mut call = pin!(self.request(request, &progress));
        let sent = timeout(limits.send, async {
            tokio::select! {
                biased;
                result = &mut call => Some(result),
                () = progress.handed_over() => None,
            }
        });
        let result = match sent.await {
            Ok(Some(result)) => result,
            Err(_) if progress.stage() == Stage::Send => return Err(SesError::timeout(Stage::Send, limits.send)),
            Ok(None) | Err(_) => match timeout(limits.answer, call).await {
                Ok(result) => result,
                Err(_) => return Err(SesError::timeout(Stage::Answer, limits.answer)),
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
        let request = Request::new(&self.mime, self.feedback.as_ref(), outgoing)?;
        let answer = self.call(request).await;
        let answer = answer.and_then(|output| match output.message_id() {
            Some(id) if !id.is_empty() => Ok(Receipt::new().with_provider_id(id)),
            // By the API's model the id may be missing. That the answer is from SES, the id of the request says.
            _ if output.request_id().is_some() => Ok(Receipt::new()),
            _ => Err(SesError::nameless(output.request_id())),
        });
        answer.map_err(|error| {
            let failure = Failure::from(error);
            debug!(class = ?failure.class(), scope = ?failure.scope(), in_doubt = failure.in_doubt(), "not accepted");
            failure
        })
    }

    /// Writes the mail out, unless it has large attachments, to see whether it can be done, and looks for what SES does not take:
    /// the [crate's manual](crate#what-ses-does-not-take) lists it.
    fn check(&self, email: &Email) -> Result<(), Failure> {
        request::check(email)
    }
}

/// Shows no credentials.
impl fmt::Debug for Ses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ses")
            .field("region", &self.region)
            .field("configuration_set", &self.configuration_set)
            .finish_non_exhaustive()
    }
}
