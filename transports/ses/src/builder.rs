//! The builder of the transport.

use std::fmt;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{Builder, StalledStreamProtectionConfig};
use postrider_transport::{Address, Mime};
use url::Url;

use crate::{Ses, SesConfigError, Timeouts};

/// Builder of a [`Ses`] transport. [`build`](Self::build) checks all settings.
#[derive(Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct SesBuilder {
    sdk: SdkConfig,
    region: Option<String>,
    endpoint: Option<String>,
    configuration_set: Option<String>,
    feedback_address: Option<Address>,
    timeouts: Timeouts,
    mime: Mime,
}

impl SesBuilder {
    pub(crate) fn new(sdk: SdkConfig) -> Self {
        Self {
            sdk,
            region: None,
            endpoint: None,
            configuration_set: None,
            feedback_address: None,
            timeouts: Timeouts::default(),
            mime: Mime::new(),
        }
    }

    /// Sets the AWS region, such as `eu-west-1`. Default: the region of the AWS configuration.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the URL of the server, such as a VPC endpoint. Default: the endpoint of the AWS configuration, or else of the region.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets the configuration set for every mail. Default: the one of the sending identity in SES, if it has one.
    pub fn configuration_set(mut self, name: impl Into<String>) -> Self {
        self.configuration_set = Some(name.into());
        self
    }

    /// Sets the address for bounces and complaints of mails without an [`envelope_from`](postrider_transport::EmailBuilder::envelope_from).
    /// It must be verified in SES. Default: the mail's Sender, or else From.
    pub fn feedback_address(mut self, address: Address) -> Self {
        self.feedback_address = Some(address);
        self
    }

    /// Sets the time limits. Those of the AWS configuration are ignored.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Signs each mail, without Date and Message-ID, which SES replaces (developer guide, manual DKIM signing).
    ///
    /// SES adds its own signature. If SES signs for the domain already (Easy DKIM), this setting is not needed.
    #[cfg(feature = "dkim")]
    pub fn dkim(mut self, dkim: postrider_transport::Dkim) -> Self {
        self.mime = self.mime.with_dkim(dkim.without_date_and_message_id());
        self
    }

    /// Checks the settings and creates the transport. It does not connect or load credentials yet.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn build(self) -> Result<Ses, SesConfigError> {
        let Timeouts { connect, request, response } = &self.timeouts;
        for (timeout, limit) in [("connect", connect), ("request", request), ("response", response)] {
            if limit.is_zero() {
                return Err(SesConfigError::ZeroTimeout { timeout });
            }
        }
        let region = self.region.as_deref().or(self.sdk.region().map(AsRef::as_ref)).ok_or(SesConfigError::NoRegion)?;
        // The region becomes a part of the host name.
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(SesConfigError::Region);
        }
        if self.sdk.credentials_provider().is_none() {
            return Err(SesConfigError::NoCredentials);
        }
        if self.configuration_set.as_deref().is_some_and(|name| !is_configuration_set_name(name)) {
            return Err(SesConfigError::ConfigurationSet);
        }
        if self.feedback_address.as_ref().is_some_and(|address| !address.as_str().is_ascii()) {
            return Err(SesConfigError::FeedbackAddress);
        }
        let mut config = Builder::from(&self.sdk)
            .region(Region::new(region.to_owned()))
            // One call is one attempt. After a timeout the message may have been accepted, so the SDK must not retry.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(*connect)
                    .disable_read_timeout()
                    .disable_operation_timeout()
                    .disable_operation_attempt_timeout()
                    .build(),
            )
            // This would abort a transfer that stalls for seconds. The time limits of this crate are enough.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        // The SDK panics without a behavior version.
        if self.sdk.behavior_version().is_none() {
            config = config.behavior_version(BehaviorVersion::latest());
        }
        if let Some(endpoint) = &self.endpoint {
            if !is_endpoint(endpoint) {
                return Err(SesConfigError::Endpoint);
            }
            config = config.endpoint_url(endpoint);
        }
        let region = region.to_owned();
        let Self { configuration_set, feedback_address, timeouts, mime, .. } = self;
        let client = Client::from_conf(config.build());
        Ok(Ses { client, region, configuration_set, feedback_address, timeouts, mime })
    }
}

/// Checks a name by the API reference v2, CreateConfigurationSet.
fn is_configuration_set_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_endpoint(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

/// Hides the AWS configuration and the endpoint, which may contain credentials.
impl fmt::Debug for SesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SesBuilder")
            .field("region", &self.region)
            .field("configuration_set", &self.configuration_set)
            .field("feedback_address", &self.feedback_address)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}
