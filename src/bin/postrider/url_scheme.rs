//! URL schemes, and the cargo feature that each one needs.

use crate::error::CliError;

/// A scheme and its cargo feature.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) feature: &'static str,
    /// Whether this build has the feature.
    enabled: bool,
}

impl Scheme {
    pub(crate) const fn new(name: &'static str, feature: &'static str, enabled: bool) -> Self {
        Self { name, feature, enabled }
    }

    /// The error for a scheme whose feature is not enabled.
    pub(crate) fn missing_feature(&self) -> CliError {
        let Self { name, feature, .. } = self;
        CliError::usage(format!("{name}:// needs the feature `{feature}`, and this postrider was built without it"))
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
    // An SQLite URL can omit the slashes.
    let name = url.split_once("://").map(|(name, _)| name).or(url.starts_with("sqlite:").then_some("sqlite"));
    if let Some(scheme) = name.and_then(|name| schemes.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name))) {
        return Ok((scheme, url));
    }
    let enabled: Vec<_> = schemes.iter().filter(|s| s.enabled).map(|s| format!("{}://", s.name)).collect();
    let enabled = if enabled.is_empty() { "none".to_owned() } else { enabled.join(", ") };
    Err(CliError::usage(format!("the {what} URL has no known scheme; this postrider was built with {enabled}")))
}
