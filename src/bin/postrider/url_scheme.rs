//! URL schemes, and the cargo feature that each one needs.

use crate::error::CliError;

/// A scheme and its cargo feature.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) feature: &'static str,
    /// Whether this build has the feature.
    enabled: bool,
    /// What follows the name in a URL.
    separator: &'static str,
}

impl Scheme {
    pub(crate) const fn new(name: &'static str, feature: &'static str, enabled: bool) -> Self {
        Self { name, feature, enabled, separator: "://" }
    }

    /// A scheme whose URLs have no host: `mailbox:`.
    pub(crate) const fn without_host(name: &'static str, feature: &'static str, enabled: bool) -> Self {
        Self { name, feature, enabled, separator: ":" }
    }

    /// The beginning of its URLs.
    pub(crate) fn prefix(&self) -> String {
        format!("{}{}", self.name, self.separator)
    }

    /// The error for a scheme whose feature is not enabled.
    pub(crate) fn missing_feature(&self) -> CliError {
        let (prefix, feature) = (self.prefix(), self.feature);
        CliError::usage(format!("{prefix} needs the feature `{feature}`, and this postrider was built without it"))
    }
}

/// Finds the scheme of a URL. `what` names the URL's target in errors, and `how_to_set` the options that set it.
///
/// No error repeats the URL, because it can contain a password.
pub(crate) fn find<'a>(
    what: &str,
    how_to_set: &str,
    schemes: &'static [Scheme],
    url: Option<&'a str>,
) -> Result<(&'static Scheme, &'a str), CliError> {
    let url = url.map(str::trim).filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| CliError::usage(format!("no {what} is given: {how_to_set}")))?;
    let is_named = |scheme: &&Scheme| {
        let name = url.split_once(scheme.separator).map(|(name, _)| name);
        // An SQLite URL can omit the slashes.
        let name = name.or(url.starts_with("sqlite:").then_some("sqlite"));
        name.is_some_and(|name| name.eq_ignore_ascii_case(scheme.name))
    };
    if let Some(scheme) = schemes.iter().find(is_named) {
        return Ok((scheme, url));
    }
    let enabled: Vec<_> = schemes.iter().filter(|s| s.enabled).map(Scheme::prefix).collect();
    let enabled = if enabled.is_empty() { "none".to_owned() } else { enabled.join(", ") };
    Err(CliError::usage(format!("the {what} URL has no known scheme; this postrider was built with {enabled}")))
}
