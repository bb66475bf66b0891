//! Telling a transport what it needs to know.

use std::fmt;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{Builder, StalledStreamProtectionConfig};
use postrider_transport::{Address, Mime};
use url::Url;

use crate::{Ses, SesConfigError, Timeouts};

/// Collects what [`Ses`] needs beside an AWS configuration. What is wrong comes out of [`build`](Self::build).
#[derive(Clone)]
#[must_use = "a builder does nothing until build is called"]
pub struct SesBuilder {
    sdk: SdkConfig,
    region: Option<String>,
    endpoint: Option<String>,
    configuration_set: Option<String>,
    feedback: Option<Address>,
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
            feedback: None,
            timeouts: Timeouts::default(),
            mime: Mime::new(),
        }
    }

    /// The AWS region, such as `eu-west-1`. Default: that of the AWS configuration.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The URL to send requests to, for a VPC endpoint or a server of one's own. Default: that of the AWS configuration, or
    /// else the region's.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The configuration set that every mail goes by. Default: that of the sending identity in SES, if it has one.
    pub fn configuration_set(mut self, name: impl Into<String>) -> Self {
        self.configuration_set = Some(name.into());
        self
    }

    /// Where SES reports bounces and complaints of mails that name no envelope sender of their own
    /// ([`envelope_from`](postrider_transport::EmailBuilder::envelope_from)). SES must know it as verified. Default: the
    /// mail's Sender, or else From.
    pub fn feedback_address(mut self, address: Address) -> Self {
        self.feedback = Some(address);
        self
    }

    /// How long each stage may take. What the AWS configuration says of time-outs is not used.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Signs each mail, but for Date and Message-ID, which SES replaces (developer guide, manual DKIM signing). SES adds a
    /// signature of its own; where it signs for the domain already (Easy DKIM), this adds nothing.
    #[cfg(feature = "dkim")]
    pub fn dkim(mut self, dkim: postrider_transport::Dkim) -> Self {
        self.mime = self.mime.with_dkim(dkim.without_date_and_message_id());
        self
    }

    /// Checks, and makes the transport. It connects to nothing, and asks for no credentials yet.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn build(self) -> Result<Ses, SesConfigError> {
        let Timeouts { connect, send, answer } = &self.timeouts;
        for (what, limit) in [("connect", connect), ("send", send), ("answer", answer)] {
            if limit.is_zero() {
                return Err(SesConfigError::Zero { what });
            }
        }
        let region = self.region.as_deref().or(self.sdk.region().map(AsRef::as_ref)).ok_or(SesConfigError::NoRegion)?;
        // It becomes part of a host name.
        if region.is_empty() || !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(SesConfigError::Region);
        }
        if self.sdk.credentials_provider().is_none() {
            return Err(SesConfigError::NoCredentials);
        }
        if self.configuration_set.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(SesConfigError::ConfigurationSet);
        }
        if self.feedback.as_ref().is_some_and(|address| !address.as_str().is_ascii()) {
            return Err(SesConfigError::FeedbackAddress);
        }
        let mut config = Builder::from(&self.sdk)
            .region(Region::new(region.to_owned()))
            // One call is one attempt. What the SDK would repeat after a time-out may have been accepted.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(*connect)
                    .disable_read_timeout()
                    .disable_operation_timeout()
                    .disable_operation_attempt_timeout()
                    .build(),
            )
            // It gives up on what stands still for seconds, in either direction; the limits of the stages are enough.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        // Without one the SDK panics.
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
        let Self { configuration_set, feedback, timeouts, mime, .. } = self;
        let client = Client::from_conf(config.build());
        Ok(Ses { client, region, configuration_set, feedback, timeouts, mime })
    }
}

/// API reference v2, CreateConfigurationSet.
fn is_name(name: &str) -> bool {
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

/// Shows no credentials, and neither the AWS configuration nor the endpoint, which could have some in them.
impl fmt::Debug for SesBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SesBuilder")
            .field("region", &self.region)
            .field("configuration_set", &self.configuration_set)
            .field("feedback", &self.feedback)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}
