//! A row of the tables.

use super::verdict::Verdict;
use crate::stage::Stage;

/// Codes 4yz.
pub(super) const TRANSIENT: (u16, u16) = (400, 499);
/// Codes 5yz.
pub(super) const PERMANENT: (u16, u16) = (500, 599);

/// Conditions on a refusal, and what it means if all hold. An empty condition always holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) verdict: Verdict,
    pub(super) source: &'static str,
    pub(super) stages: &'static [Stage],
    /// Ranges of codes: from and to.
    pub(super) codes: &'static [(u16, u16)],
    /// Ranges of enhanced codes: subject, and detail from and to. The class is always that of the code.
    pub(super) enhanced: &'static [(u16, u16, u16)],
    /// Phrases, one of which the reply must contain.
    pub(super) says: &'static [&'static str],
    /// Phrases, none of which the reply may contain.
    pub(super) unless: &'static [&'static str],
}

pub(super) const fn row(verdict: Verdict, source: &'static str) -> Row {
    Row { verdict, source, stages: &[], codes: &[], enhanced: &[], says: &[], unless: &[] }
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

    /// Each triple is `X.subject.from` to `X.subject.to`.
    pub(super) const fn enhanced(mut self, enhanced: &'static [(u16, u16, u16)]) -> Self {
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
