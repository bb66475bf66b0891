//! A transport in one line, for environment variables.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::HttpConfigError;
use crate::config::is_loopback;

/// A provider's URL, taken apart: `NAME://KEY:SECOND@HOST?setting=value`. The host is `default` for the provider's own address.
///
/// A [`Provider`](crate::Provider) takes out what it knows; what is left over is an error.
pub struct ProviderUrl {
    user: Option<String>,
    password: Option<String>,
    base_url: Option<String>,
    settings: Vec<(String, String)>,
    /// The settings that the provider asked for.
    known: Vec<String>,
}

impl ProviderUrl {
    pub(crate) fn parse(scheme: &str, text: &str) -> Result<Self, HttpConfigError> {
        let url = Url::parse(text.trim()).map_err(|_| HttpConfigError::Url)?;
        if url.scheme() != scheme {
            return Err(HttpConfigError::Scheme);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(HttpConfigError::Missing { what: "a host" })?;
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() || host.contains(',') {
            return Err(HttpConfigError::Url);
        }
        // A host has no case.
        let base_url = (!host.eq_ignore_ascii_case("default")).then(|| base_url(&url, host)).transpose()?;
        let settings = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decode).transpose()?;
        let password = url.password().map(decode).transpose()?;
        Ok(Self { user, password, base_url, settings, known: Vec::new() })
    }

    /// The key: what stands before the `@`, and before a `:` if there is one.
    ///
    /// # Errors
    /// When there is none.
    pub fn key(&mut self) -> Result<String, HttpConfigError> {
        self.user.take().ok_or(HttpConfigError::Missing { what: "a key before the @" })
    }

    /// What stands between the `:` and the `@`. `what` names it for the error.
    ///
    /// # Errors
    /// When there is none.
    pub fn second(&mut self, what: &'static str) -> Result<String, HttpConfigError> {
        self.password.take().ok_or(HttpConfigError::Missing { what })
    }

    /// The value of a setting after the `?`, if it is there.
    pub fn setting(&mut self, name: &str) -> Option<String> {
        self.known.push(name.to_owned());
        let place = self.settings.iter().position(|(found, _)| found == name)?;
        Some(self.settings.swap_remove(place).1)
    }

    /// A setting that is `true` or `false`, and false where it is not given.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, HttpConfigError> {
        self.choice(name, "false", "true")
    }

    /// A setting with two values: false where it has the usual one or is not given, true where it has the other.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn choice(&mut self, name: &'static str, usual: &str, other: &str) -> Result<bool, HttpConfigError> {
        match self.setting(name) {
            None => Ok(false),
            Some(value) if value == usual => Ok(false),
            Some(value) if value == other => Ok(true),
            Some(_) => Err(HttpConfigError::Value { setting: name, expected: format!("{usual} or {other}") }),
        }
    }

    /// What is left is what nobody knows. Returns where the API is, if not at the provider's own address.
    pub(crate) fn finish(self) -> Result<Option<String>, HttpConfigError> {
        if self.user.is_some() || self.password.is_some() {
            return Err(HttpConfigError::Surplus);
        }
        if !self.settings.is_empty() {
            return Err(HttpConfigError::UnknownSetting { known: self.known });
        }
        Ok(self.base_url)
    }
}

/// Encrypted, unless it is on this very machine.
fn base_url(url: &Url, host: &str) -> Result<String, HttpConfigError> {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    // A URL of an unknown scheme keeps its host as it stands; only a known one tells names from addresses.
    let plain = format!("http://{host}{port}");
    let parsed = Url::parse(&plain).map_err(|_| HttpConfigError::Url)?;
    Ok(if is_loopback(&parsed) { plain } else { format!("https://{host}{port}") })
}

fn decode(text: &str) -> Result<String, HttpConfigError> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| HttpConfigError::Url)
}

/// Without what could be secret.
impl std::fmt::Debug for ProviderUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProviderUrl(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ProviderUrl, HttpConfigError> {
        ProviderUrl::parse("test", text)
    }

    #[test]
    fn takes_a_url_apart() -> Result<(), HttpConfigError> {
        let mut url = parse("test://K%2Fey:sec%3Aond@default?region=eu")?;
        assert_eq!((url.key()?, url.second("it")?), ("K/ey".to_owned(), "sec:ond".to_owned()));
        assert_eq!((url.setting("region"), url.setting("region")), (Some("eu".to_owned()), None));
        assert_eq!(url.finish(), Ok(None));
        Ok(())
    }

    #[test]
    fn another_host_is_reached_in_clear_on_this_machine_only() -> Result<(), HttpConfigError> {
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
    fn what_nobody_knows_is_an_error() -> Result<(), HttpConfigError> {
        let left_over = |text| {
            let mut url = parse(text)?;
            url.key()?;
            url.flag("sandbox")?;
            url.choice("region", "us", "eu")?;
            url.finish()
        };
        let unknown = HttpConfigError::UnknownSetting { known: vec!["sandbox".to_owned(), "region".to_owned()] };
        for text in ["test://K@default?regoin=eu", "test://K@default?region=eu&region=eu"] {
            assert_eq!(left_over(text), Err(unknown.clone()), "{text}");
        }
        assert!(unknown.to_string().ends_with("known are sandbox, region"), "{unknown}");
        assert_eq!(left_over("test://K:second@default"), Err(HttpConfigError::Surplus));
        let value = HttpConfigError::Value { setting: "region", expected: "us or eu".to_owned() };
        assert_eq!(left_over("test://K@default?region=mars"), Err(value));
        for (text, error) in [
            ("other://K@default", HttpConfigError::Scheme),
            ("test://K@default/path", HttpConfigError::Url),
            ("test://K@default#x", HttpConfigError::Url),
            ("K", HttpConfigError::Url),
            ("test://K@default,", HttpConfigError::Url),
            ("test://K@default,other://K@default", HttpConfigError::Url),
        ] {
            assert_eq!(parse(text).err(), Some(error), "{text}");
        }
        let mut shouted = parse("test://K@DEFAULT")?;
        shouted.key()?;
        assert_eq!(shouted.finish(), Ok(None));
        assert_eq!(parse("test://default")?.key(), Err(HttpConfigError::Missing { what: "a key before the @" }));
        Ok(())
    }
}
