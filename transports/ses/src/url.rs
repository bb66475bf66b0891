//! The URL that configures the transport, for environment variables.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sesv2::config::Credentials;
use postrider_transport::{Address, TransportUrl};
pub use postrider_transport::{UrlError, UrlErrorKind};

use crate::{SesBuilder, SesConfigError};

impl From<UrlError> for SesConfigError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

/// What the URL sets. The environment sets the rest.
#[derive(Default)]
pub(crate) struct UrlOptions {
    /// `None`: the credentials are the environment's.
    credentials: Option<Credentials>,
    region: Option<String>,
    configuration_set: Option<String>,
    feedback: Option<Address>,
    endpoint: Option<String>,
}

pub(crate) fn parse(text: &str) -> Result<UrlOptions, UrlError> {
    let mut url = TransportUrl::parse(text, &["ses"])?;
    if url.host() != "default" {
        return Err(url.error(UrlErrorKind::Other(
            "must have the host default; another endpoint goes after the ? as endpoint=URL",
        )));
    }
    if url.port().is_some() {
        return Err(url.error(UrlErrorKind::Other("has a port, which it does not take")));
    }
    let region = text_option(&mut url, "region")?;
    let configuration_set = text_option(&mut url, "configuration_set")?;
    let feedback = url.parsed("feedback_address", "a mail address")?;
    let endpoint = text_option(&mut url, "endpoint")?;
    let session_token = text_option(&mut url, "session_token")?;
    let secret = url.password().filter(|secret| !secret.is_empty());
    let credentials = match (url.username(), secret, session_token) {
        (Some(access_key), Some(secret), token) => Some(Credentials::new(access_key, secret, token, None, "url")),
        (None, None, None) => None,
        _ => {
            return Err(url.error(UrlErrorKind::Other("must have both an access key and its secret, or neither")));
        }
    };
    url.finish()?;
    Ok(UrlOptions { credentials, region, configuration_set, feedback, endpoint })
}

fn text_option(url: &mut TransportUrl, name: &'static str) -> Result<Option<String>, UrlError> {
    match url.option(name) {
        Some(value) if value.is_empty() || value.chars().any(char::is_control) => {
            Err(url.invalid_value(name, "text without control characters"))
        }
        value => Ok(value),
    }
}

impl UrlOptions {
    pub(crate) async fn into_builder(self) -> SesBuilder {
        let mut builder = SesBuilder::new(self.sdk().await);
        if let Some(region) = self.region {
            builder = builder.region(region);
        }
        if let Some(name) = self.configuration_set {
            builder = builder.configuration_set(name);
        }
        if let Some(address) = self.feedback {
            builder = builder.feedback_address(address);
        }
        if let Some(url) = self.endpoint {
            builder = builder.endpoint_url(url);
        }
        builder
    }

    /// Looks up only what the URL leaves out: on a machine without a role, looking up a region takes long and finds nothing.
    async fn sdk(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        loader.load().await
    }
}

#[cfg(test)]
mod tests;
