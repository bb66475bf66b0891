//! A transport in one line, for environment variables.

use std::fmt;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sesv2::config::Credentials;
use percent_encoding::percent_decode_str;
use postrider_transport::Address;
use url::Url;

use crate::{SesBuilder, SesConfigError};

/// Why a URL cannot be read. It repeats no part of the URL, save the name of a known key: a secret that is not
/// percent-encoded may end up in any part.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL.
    Malformed,
    /// The scheme is not `ses`.
    Scheme,
    /// The host is not `default`.
    Host,
    /// There is a port, a path, or a `#`. A `/`, `?` or `#` in a secret must be percent-encoded.
    Path,
    /// The access key or secret is not UTF-8 once decoded, or holds a control character.
    Credentials,
    /// There is an access key without a secret, or a secret or session token without an access key.
    HalfCredentials,
    /// A key after the `?` is not one of those in the manual.
    UnknownKey,
    /// A key is given twice.
    Twice {
        /// The key.
        key: &'static str,
    },
    /// The value of a key is empty, or is not what the manual has for it.
    Value {
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the SES URL ")?;
        match self {
            Self::Malformed => f.write_str("is not a URL; in a secret, / must be written %2F and + %2B"),
            Self::Scheme => f.write_str("must begin with ses://"),
            Self::Host => f.write_str("must have the host default; another endpoint goes after the ? as endpoint=URL"),
            Self::Path => f.write_str(
                "has a port, a path or a fragment; in a secret, /, ? and # must be written %2F, %3F and %23",
            ),
            Self::Credentials => f.write_str("has an access key or secret that is not text once decoded"),
            Self::HalfCredentials => f.write_str("must have both an access key and its secret, or neither"),
            Self::UnknownKey => write!(f, "has an unknown key; known are {}", KEYS.join(", ")),
            Self::Twice { key } => write!(f, "has the key {key} twice"),
            Self::Value { key } => write!(f, "has a value for {key} that cannot be used"),
        }
    }
}

impl std::error::Error for UrlError {}

impl From<UrlError> for SesConfigError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

const KEYS: [&str; 5] = ["region", "configuration_set", "feedback_address", "endpoint", "session_token"];

/// What a URL says, before the environment is asked for the rest.
#[derive(Default)]
pub(crate) struct Wishes {
    access_key: String,
    secret: String,
    session_token: Option<String>,
    region: Option<String>,
    configuration_set: Option<String>,
    feedback: Option<Address>,
    endpoint: Option<String>,
}

pub(crate) fn parse(text: &str) -> Result<Wishes, UrlError> {
    let url = Url::parse(text.trim()).map_err(|error| match error {
        url::ParseError::InvalidPort => UrlError::Path,
        url::ParseError::EmptyHost => UrlError::Host,
        _ => UrlError::Malformed,
    })?;
    if url.scheme() != "ses" {
        return Err(UrlError::Scheme);
    }
    if url.port().is_some() || !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(UrlError::Path);
    }
    if url.host_str() != Some("default") {
        return Err(UrlError::Host);
    }
    let mut wishes = Wishes {
        access_key: decode(url.username())?,
        secret: decode(url.password().unwrap_or_default())?,
        ..Wishes::default()
    };
    let mut seen = Vec::new();
    for (key, value) in url.query_pairs() {
        let key = KEYS.into_iter().find(|known| *known == key).ok_or(UrlError::UnknownKey)?;
        if seen.contains(&key) {
            return Err(UrlError::Twice { key });
        }
        seen.push(key);
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(UrlError::Value { key });
        }
        let value = value.into_owned();
        match key {
            "region" => wishes.region = Some(value),
            "configuration_set" => wishes.configuration_set = Some(value),
            "endpoint" => wishes.endpoint = Some(value),
            "session_token" => wishes.session_token = Some(value),
            _ => wishes.feedback = Some(value.parse().map_err(|_| UrlError::Value { key })?),
        }
    }
    let given = !wishes.access_key.is_empty();
    if given == wishes.secret.is_empty() || (wishes.session_token.is_some() && !given) {
        return Err(UrlError::HalfCredentials);
    }
    Ok(wishes)
}

fn decode(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Credentials)?;
    if decoded.chars().any(char::is_control) {
        return Err(UrlError::Credentials);
    }
    Ok(decoded.into_owned())
}

impl Wishes {
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

    /// What is named here is not looked for elsewhere: a machine without a role would be asked for its region in vain.
    async fn sdk(&self) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if !self.access_key.is_empty() {
            loader = loader.credentials_provider(Credentials::new(
                self.access_key.clone(),
                self.secret.clone(),
                self.session_token.clone(),
                None,
                "url",
            ));
        }
        loader.load().await
    }
}

#[cfg(test)]
mod tests;
