//! How a line of our own tables is written.

use crate::error::Stage;
use crate::rules::rule::Verdict;

/// A line: what a reply must have, and what it then means. What is left empty is not looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) means: Verdict,
    pub(super) source: &'static str,
    pub(super) stages: &'static [Stage],
    /// The codes, from and to.
    pub(super) codes: &'static [(u16, u16)],
    /// Subject and detail of the enhanced code, from and to; its class is always that of the code.
    pub(super) enhanced: &'static [(u16, u16, u16)],
    /// Phrases, of which one must be there.
    pub(super) says: &'static [&'static str],
    /// Phrases, of which none may be there.
    pub(super) unless: &'static [&'static str],
}

pub(super) const fn row(means: Verdict, source: &'static str) -> Row {
    Row { means, source, stages: &[], codes: &[], enhanced: &[], says: &[], unless: &[] }
}

impl Row {
    pub(super) const fn at(mut self, stages: &'static [Stage]) -> Self {
        self.stages = stages;
        self
    }

    pub(super) const fn codes(mut self, codes: &'static [(u16, u16)]) -> Self {
        self.codes = codes;
        self
    }

    /// `X.subject.from` to `X.subject.to`.
    pub(super) const fn x(mut self, enhanced: &'static [(u16, u16, u16)]) -> Self {
        self.enhanced = enhanced;
        self
    }

    pub(super) const fn says(mut self, phrases: &'static [&'static str]) -> Self {
        self.says = phrases;
        self
    }

    pub(super) const fn unless(mut self, phrases: &'static [&'static str]) -> Self {
        self.unless = phrases;
        self
    }
}
