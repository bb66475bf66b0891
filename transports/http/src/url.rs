//! The URL that configures the transport, for environment variables.

use std::fmt;

use postrider_transport::{TransportUrl, UrlError, UrlErrorKind};
use url::Url;

use crate::HttpConfigError;
use crate::config::is_loopback;

/// A provider's URL, taken apart: `NAME://KEY:SECRET@HOST?SETTING=VALUE`. The host `default` is the provider's own address.
///
/// A [`Provider`](crate::Provider) takes the parts it knows; a part that is left is an error.
pub struct ProviderUrl {
    key: Option<String>,
    secret: Option<String>,
    url: TransportUrl,
}

impl ProviderUrl {
    pub(crate) fn parse(schemes: &'static [&'static str], text: &str) -> Result<Self, HttpConfigError> {
        let url = TransportUrl::parse(text, schemes)?;
        Ok(Self { key: url.username().map(str::to_owned), secret: url.password().map(str::to_owned), url })
    }

    /// Takes the key: the text before the `@`, and before the `:` if there is one.
    ///
    /// # Errors
    /// [`HttpConfigError::Missing`] if there is none.
    pub fn key(&mut self) -> Result<String, HttpConfigError> {
        self.key.take().ok_or(HttpConfigError::Missing { what: "a key before the @" })
    }

    /// Takes the text between the `:` and the `@`. `what` names it in the error.
    ///
    /// # Errors
    /// [`HttpConfigError::Missing`] if there is none.
    pub fn secret(&mut self, what: &'static str) -> Result<String, HttpConfigError> {
        self.secret.take().ok_or(HttpConfigError::Missing { what })
    }

    /// Takes the value of a setting after the `?`. `None` if it is missing.
    pub fn setting(&mut self, name: &'static str) -> Option<String> {
        self.url.option(name)
    }

    /// Takes a setting that is `true` or `false`. The default is `false`.
    ///
    /// # Errors
    /// [`HttpConfigError::Value`] if it has another value.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, HttpConfigError> {
        self.choice(name, "false", "true")
    }

    /// Takes a setting with two values. Returns `true` if it has the value `other`, and `false` if it has the value `default` or is
    /// missing.
    ///
    /// # Errors
    /// [`HttpConfigError::Value`] if it has another value.
    pub fn choice(&mut self, name: &'static str, default: &str, other: &str) -> Result<bool, HttpConfigError> {
        Ok(self.url.choice(name, &[(default, false), (other, true)])?.unwrap_or(false))
    }

    /// Checks that every part was taken. Returns the base URL of the API, or `None` for the provider's own address.
    pub(crate) fn finish(self) -> Result<Option<String>, HttpConfigError> {
        if self.key.is_some() || self.secret.is_some() {
            return Err(HttpConfigError::ExtraCredentials);
        }
        let base_url = (self.url.host() != "default").then(|| base_url(&self.url)).transpose()?;
        self.url.finish()?;
        Ok(base_url)
    }
}

/// `https`, or `http` for a host on this machine.
fn base_url(url: &TransportUrl) -> Result<String, HttpConfigError> {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let plain = format!("http://{}{port}", url.host());
    let parsed = Url::parse(&plain).map_err(|_| HttpConfigError::Url)?;
    Ok(if is_loopback(&parsed) { plain } else { format!("https://{}{port}", url.host()) })
}

impl From<UrlError> for HttpConfigError {
    fn from(error: UrlError) -> Self {
        match error.into_kind() {
            UrlErrorKind::Scheme => Self::Scheme,
            UrlErrorKind::NoHost => Self::Missing { what: "a host" },
            UrlErrorKind::Credentials => Self::Secret,
            UrlErrorKind::UnknownOption { known } => {
                Self::UnknownSetting { known: known.into_iter().map(str::to_owned).collect() }
            }
            UrlErrorKind::DuplicateOption { option } => {
                Self::Value { setting: option, expected: "given once".to_owned() }
            }
            UrlErrorKind::InvalidValue { option, expected } => Self::Value { setting: option, expected },
            _ => Self::Url,
        }
    }
}

impl fmt::Debug for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderUrl(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProviderUrl, HttpConfigError> {
        ProviderUrl::parse(&["test"], text)
    }

    #[test]
    fn every_part_can_be_taken_once() -> Result<(), HttpConfigError> {
        let mut url = parse("test://K%2Fey:sec%3Aond@DEFAULT?region=eu")?;
        assert_eq!((url.key()?, url.secret("it")?), ("K/ey".to_owned(), "sec:ond".to_owned()));
        assert_eq!((url.setting("region"), url.setting("region")), (Some("eu".to_owned()), None));
        assert_eq!(url.finish(), Ok(None));
        Ok(())
    }

    #[test]
    fn only_a_loopback_host_is_reached_without_tls() -> Result<(), HttpConfigError> {
        for (url, base) in [
            ("test://K@127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("test://K@localhost:8080", "http://localhost:8080"),
            ("test://K@[::1]:8080", "http://[::1]:8080"),
            ("test://K@gateway.example", "https://gateway.example"),
        ] {
            let mut url = parse(url)?;
            url.key()?;
            assert_eq!(url.finish(), Ok(Some(base.to_owned())));
        }
        Ok(())
    }

    #[test]
    fn unknown_or_malformed_parts_are_refused() {
        let left_over = |text| {
            let mut url = parse(text)?;
            url.key()?;
            url.flag("sandbox")?;
            url.choice("region", "us", "eu")?;
            url.finish()
        };
        let unknown = HttpConfigError::UnknownSetting { known: vec!["sandbox".to_owned(), "region".to_owned()] };
        assert!(unknown.to_string().ends_with("known are sandbox, region"), "{unknown}");
        let value = |expected: &str| HttpConfigError::Value { setting: "region", expected: expected.to_owned() };
        for (text, error) in [
            ("test://K@default?regoin=eu", unknown),
            ("test://K@default?region=eu&region=eu", value("given once")),
            ("test://K@default?region=mars", value("us or eu")),
            ("test://K:second@default", HttpConfigError::ExtraCredentials),
            ("test://default", HttpConfigError::Missing { what: "a key before the @" }),
            ("test://K@", HttpConfigError::Missing { what: "a host" }),
            ("other://K@default", HttpConfigError::Scheme),
            ("test://K%0A@default", HttpConfigError::Secret),
            ("test://K@default/path", HttpConfigError::Url),
            ("test://K@default#x", HttpConfigError::Url),
            ("K", HttpConfigError::Url),
            ("test://K@default,", HttpConfigError::Url),
            ("test://K@default,other://K@default", HttpConfigError::Url),
        ] {
            assert_eq!(left_over(text), Err(error), "{text}");
        }
    }
}
