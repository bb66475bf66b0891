//! What rules match.

use super::words::Words;
use crate::reply::{EnhancedCode, Reply};

/// The parts of a reply that rules match. They are equal for replies that differ only in an address, a link or a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleInput {
    pub(super) code: u16,
    pub(super) enhanced: Option<EnhancedCode>,
    pub(super) words: Words,
}

impl RuleInput {
    pub(crate) fn new(reply: &Reply) -> Self {
        Self { code: reply.code(), enhanced: reply.enhanced_code(), words: Words::new(reply.texts()) }
    }
}
