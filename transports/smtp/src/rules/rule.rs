//! A rule: which refusals it is about, and what they mean.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use super::row::Row;
use super::text::{Phrase, Words};
use crate::error::Stage;
use crate::reply::Enhanced;

/// What a refusal means, by our tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) scope: Scope,
    /// `None`: as the code says, 5yz permanent and 4yz transient.
    pub(crate) class: Option<Class>,
    /// The envelope is full: who was refused by it may be asked for again at once, in another transaction.
    pub(crate) envelope_full: bool,
}

/// Says what a refusal means where the rules of this crate know it less well than you do: your provider has a wording of its own,
/// or your server uses a code in its own way.
///
/// [`new`](Self::new) says what it means; the other methods say which refusals it is about, and all of them must hold. Rules are
/// tried in the order in which [`SmtpBuilder::rule`](crate::SmtpBuilder::rule) was called, before those of this crate. The first
/// that holds decides.
///
/// ```
/// use std::time::Duration;
/// use postrider_smtp::{Rule, Smtp, Stage};
/// use postrider_transport::{Class, Scope};
///
/// # fn main() -> Result<(), postrider_smtp::SmtpConfigError> {
/// let smtp = Smtp::builder("smtp.example.com")
///     // `550 5.7.1 Mailing points used up`: nothing leaves before the provider books new ones.
///     .rule(
///         Rule::new(Class::Transient, Scope::Transport)
///             .code(550)
///             .enhanced(7, 1)
///             .says("mailing points used|spent")
///             .retry_after(Duration::from_secs(3600))
///             .source("https://example.com/smtp-codes"),
///     )
///     .build()?;
/// let means = smtp.explain(Stage::Mail, "550 5.7.1 Mailing points used up").unwrap();
/// assert_eq!((means.class, means.scope), (Class::Transient, Scope::Transport));
/// assert_eq!(means.retry_after, Some(Duration::from_secs(3600)));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a rule does nothing until it is given to a builder"]
pub struct Rule {
    pub(crate) verdict: Verdict,
    pub(crate) wait: Option<Duration>,
    source: Cow<'static, str>,
    stages: Cow<'static, [Stage]>,
    codes: Cow<'static, [(u16, u16)]>,
    enhanced: Cow<'static, [(u16, u16, u16)]>,
    says: Vec<Phrase>,
    unless: Vec<Phrase>,
}

impl Rule {
    /// What the refusals mean: whether the same mail may be taken later, and whose condition it is. Such a rule is sure: a relay
    /// believes it.
    pub fn new(class: Class, scope: Scope) -> Self {
        Self {
            verdict: Verdict { scope, class: Some(class), envelope_full: false },
            wait: None,
            source: Cow::Borrowed("a rule of your own"),
            stages: Cow::default(),
            codes: Cow::default(),
            enhanced: Cow::default(),
            says: Vec::new(),
            unless: Vec::new(),
        }
    }

    /// At this stage. Called again, also at that one. Default: at any.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stages.to_mut().push(stage);
        self
    }

    /// With this code, such as 550. Called again, also with that one. Default: with any.
    pub fn code(self, code: u16) -> Self {
        self.codes(code..=code)
    }

    /// With a code in this range, such as `500..=599`. Called again, also with one in that range.
    pub fn codes(mut self, codes: RangeInclusive<u16>) -> Self {
        self.codes.to_mut().push((*codes.start(), *codes.end()));
        self
    }

    /// With this subject and detail in the enhanced code (RFC 3463): `enhanced(7, 1)` is 4.7.1 and 5.7.1. Called again, also with
    /// that one. An enhanced code counts only where its class is that of the code proper (RFC 2034 section 4). Default: with any,
    /// or with none.
    pub fn enhanced(mut self, subject: u16, detail: u16) -> Self {
        self.enhanced.to_mut().push((subject, detail, detail));
        self
    }

    /// With these words, one after the other, in any case and over line ends. Called again, with those instead will do as well.
    ///
    /// A word may be several, parted by `|`, and end in `*` for any ending; `…` or `...` stands for up to ten words. Mail
    /// addresses, links, host names, IP addresses and punctuation are passed over, so that `user unknown` is found in
    /// `<bob@example.org>: User unknown`. `#address`, `#link`, `#host` and `#ip` stand for one of these.
    pub fn says(mut self, words: &str) -> Self {
        self.says.push(Phrase::new(words));
        self
    }

    /// Without these words. Called again, without those either.
    pub fn unless(mut self, words: &str) -> Self {
        self.unless.push(Phrase::new(words));
        self
    }

    /// How long to wait. A wait that the reply names itself, as in `try again in 15 seconds`, comes first. A day at most.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Where this is documented, for whoever asks why.
    pub fn source(mut self, source: impl Into<Cow<'static, str>>) -> Self {
        self.source = source.into();
        self
    }

    pub(super) fn from_row(row: &Row) -> Self {
        Self {
            verdict: row.means,
            wait: None,
            source: Cow::Borrowed(row.source),
            stages: Cow::Borrowed(row.stages),
            codes: Cow::Borrowed(row.codes),
            enhanced: Cow::Borrowed(row.enhanced),
            says: row.says.iter().map(|text| Phrase::new(text)).collect(),
            unless: row.unless.iter().map(|text| Phrase::new(text)).collect(),
        }
    }

    pub(crate) fn source_text(&self) -> &str {
        &self.source
    }

    pub(crate) fn holds(&self, stage: Stage, code: u16, enhanced: Option<Enhanced>, words: &Words) -> bool {
        let any = |list: &[Phrase]| list.iter().any(|phrase| phrase.is_in(words));
        (self.stages.is_empty() || self.stages.contains(&stage))
            && (self.codes.is_empty() || self.codes.iter().any(|(from, to)| (*from..=*to).contains(&code)))
            && (self.enhanced.is_empty()
                || enhanced.is_some_and(|(_, subject, detail)| {
                    self.enhanced.iter().any(|(of, from, to)| *of == subject && (*from..=*to).contains(&detail))
                }))
            && (self.says.is_empty() || any(&self.says))
            && !any(&self.unless)
    }

    /// What it is about, in short, with the phrase that was found.
    pub(crate) fn describe(&self, words: &Words) -> String {
        let mut parts = Vec::new();
        if !self.stages.is_empty() {
            let stages: Vec<_> = self.stages.iter().map(Stage::to_string).collect();
            parts.push(format!("at {}", stages.join(", ")));
        }
        if !self.codes.is_empty() {
            let one = |(from, to): &(u16, u16)| match (from, to) {
                (400, 499) => "4yz".to_owned(),
                (500, 599) => "5yz".to_owned(),
                _ if from == to => from.to_string(),
                _ => format!("{from}-{to}"),
            };
            parts.push(self.codes.iter().map(one).collect::<Vec<_>>().join(", "));
        }
        if !self.enhanced.is_empty() {
            let one = |(subject, from, to): &(u16, u16, u16)| match from == to {
                true => format!("X.{subject}.{from}"),
                false => format!("X.{subject}.{from}-{to}"),
            };
            parts.push(self.enhanced.iter().map(one).collect::<Vec<_>>().join(", "));
        }
        if let Some(phrase) = self.says.iter().find(|phrase| phrase.is_in(words)) {
            parts.push(format!("says \"{}\"", phrase.text()));
        }
        if parts.is_empty() { "any refusal".to_owned() } else { parts.join(", ") }
    }
}

/// What it is about, and its source.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.describe(&Words::new(std::iter::empty())), self.source)
    }
}
