//! A rule: which refusals it matches, and what they mean.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use postrider_transport::{Class, Scope};

use super::input::RuleInput;
use super::phrase::Phrase;
use super::row::Row;
use super::verdict::Verdict;
use super::words::Words;
use crate::stage::Stage;

/// A rule of your own for refusals: for wordings that only your provider uses, or codes that your server uses in its own way.
///
/// [`new`](Self::new) sets what the refusals mean. The other methods set which refusals the rule matches, and all conditions must
/// hold. Rules are tried in the order of the [`SmtpBuilder::rule`](crate::SmtpBuilder::rule) calls, before those of this crate. The
/// first match decides.
///
/// ```
/// use std::time::Duration;
/// use postrider_smtp::{Rule, Smtp, Stage};
/// use postrider_transport::{Class, Scope};
///
/// # fn main() -> Result<(), postrider_smtp::SmtpConfigError> {
/// let smtp = Smtp::builder("smtp.example.com")
///     // `550 5.7.1 Mailing points used up`: the provider refuses all mail until it books new points.
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
    /// `None` if the rule has no wait.
    pub(crate) retry_after: Option<Duration>,
    source: Cow<'static, str>,
    stages: Cow<'static, [Stage]>,
    codes: Cow<'static, [(u16, u16)]>,
    enhanced: Cow<'static, [(u16, u16, u16)]>,
    says: Vec<Phrase>,
    unless: Vec<Phrase>,
}

impl Rule {
    /// Creates a rule for all refusals. `class` says whether the same mail may be accepted later, and `scope` what the failure affects.
    /// The result is sure, so a relay acts on it without evidence from other mail.
    pub fn new(class: Class, scope: Scope) -> Self {
        Self {
            verdict: Verdict { scope, class: Some(class), too_many_recipients: false },
            retry_after: None,
            source: Cow::Borrowed("a rule of your own"),
            stages: Cow::default(),
            codes: Cow::default(),
            enhanced: Cow::default(),
            says: Vec::new(),
            unless: Vec::new(),
        }
    }

    /// Matches this stage. Further calls add stages. Default: any stage.
    pub fn at(mut self, stage: Stage) -> Self {
        self.stages.to_mut().push(stage);
        self
    }

    /// Matches this code, such as 550. Further calls add codes. Default: any code.
    pub fn code(self, code: u16) -> Self {
        self.codes(code..=code)
    }

    /// Matches the codes of this range, such as `500..=599`. Further calls add codes.
    pub fn codes(mut self, codes: RangeInclusive<u16>) -> Self {
        self.codes.to_mut().push((*codes.start(), *codes.end()));
        self
    }

    /// Matches this subject and detail of the enhanced code (RFC 3463): `enhanced(7, 1)` is 4.7.1 and 5.7.1. Further calls add
    /// enhanced codes. One whose class contradicts the code is ignored (RFC 2034 section 4). Default: any, or none.
    pub fn enhanced(mut self, subject: u16, detail: u16) -> Self {
        self.enhanced.to_mut().push((subject, detail, detail));
        self
    }

    /// Matches replies that contain these words in this order, across lines and in any case. Further calls add alternatives.
    ///
    /// `|` separates alternatives of a word, `*` at the end of a word stands for any ending, and `…` or `...` stands for up to ten
    /// words. Mail addresses, links, host names, IP addresses and punctuation in the reply are skipped: `user unknown` matches
    /// `<bob@example.org>: User unknown`. `#address`, `#link`, `#host` and `#ip` match one of them.
    pub fn says(mut self, words: &str) -> Self {
        self.says.push(Phrase::new(words));
        self
    }

    /// Does not match replies that contain these words. Further calls exclude more.
    pub fn unless(mut self, words: &str) -> Self {
        self.unless.push(Phrase::new(words));
        self
    }

    /// Sets how long to wait, at most a day. A wait in the reply, as in `try again in 15 seconds`, takes precedence.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets where the meaning is documented. [`explain`](crate::Smtp::explain) shows it.
    pub fn source(mut self, source: impl Into<Cow<'static, str>>) -> Self {
        self.source = source.into();
        self
    }

    pub(super) fn from_row(row: &Row) -> Self {
        Self {
            verdict: row.verdict,
            retry_after: None,
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

    pub(super) fn matches(&self, stage: Stage, input: &RuleInput) -> bool {
        let any = |list: &[Phrase]| list.iter().any(|phrase| phrase.is_in(&input.words));
        (self.stages.is_empty() || self.stages.contains(&stage))
            && (self.codes.is_empty() || self.codes.iter().any(|(from, to)| (*from..=*to).contains(&input.code)))
            && (self.enhanced.is_empty()
                || input.enhanced.is_some_and(|code| {
                    let matches = |(subject, from, to): &(u16, u16, u16)| {
                        *subject == code.subject && (*from..=*to).contains(&code.detail)
                    };
                    self.enhanced.iter().any(matches)
                }))
            && (self.says.is_empty() || any(&self.says))
            && !any(&self.unless)
    }

    /// Describes the conditions, with the phrase that `words` contain.
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

/// Writes the conditions and the source.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.describe(&Words::new(std::iter::empty())), self.source)
    }
}
