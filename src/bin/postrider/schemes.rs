//! Telling by a URL's scheme what it takes to use it.

use crate::fail::Fail;

/// A scheme, and the feature that it needs.
#[derive(Debug)]
pub(crate) struct Scheme {
    pub(crate) name: &'static str,
    pub(crate) feature: &'static str,
    built: bool,
}

impl Scheme {
    /// A scheme that this build knows if `built`.
    pub(crate) const fn new(name: &'static str, feature: &'static str, built: bool) -> Self {
        Self { name, feature, built }
    }

    /// This build cannot do it.
    pub(crate) fn lacking(&self) -> Fail {
        let Self { name, feature, .. } = self;
        Fail::usage(format!("{name}:// needs the feature `{feature}`, and this postrider was built without it"))
    }
}

/// The scheme of a URL that may be missing. No error repeats the URL: it may hold a password.
pub(crate) fn find<'a>(
    what: &str,
    how_to_give: &str,
    schemes: &'static [Scheme],
    url: Option<&'a str>,
) -> Result<(&'static Scheme, &'a str), Fail> {
    let url = url.map(str::trim).filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| Fail::usage(format!("no {what} is named: give {how_to_give}")))?;
    // SQLite's own form does without the slashes.
    let name = url.split_once("://").map(|(name, _)| name).or(url.starts_with("sqlite:").then_some("sqlite"));
    if let Some(scheme) = name.and_then(|name| schemes.iter().find(|scheme| scheme.name.eq_ignore_ascii_case(name))) {
        return Ok((scheme, url));
    }
    let known: Vec<_> = schemes.iter().filter(|s| s.built).map(|s| format!("{}://", s.name)).collect();
    let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
    Err(Fail::usage(format!("the {what}'s URL has no scheme that is known; this postrider was built with {known}")))
}
