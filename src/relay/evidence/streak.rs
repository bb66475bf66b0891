//! Counts the different messages that got the same refusal.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use postrider_transport::{DeliveryId, Recipient};

/// The largest number of messages to remember for a pattern. It exceeds every limit in `evidence.rs`.
const MAX_MAILS: usize = 16;

/// The largest number of patterns to remember.
const MAX_PATTERNS: usize = 256;

/// The data by which messages are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mail {
    id: DeliveryId,
    recipients: u64,
}

impl Mail {
    pub(super) fn new(id: DeliveryId, recipients: &[Recipient]) -> Self {
        let mut hasher = DefaultHasher::new();
        recipients.hash(&mut hasher);
        Self { id, recipients: hasher.finish() }
    }

    /// Whether these are different messages with different recipients. Messages for the same recipients may fail for the same reason.
    pub(super) fn differs(self, other: Self) -> bool {
        self.id != other.id && self.recipients != other.recipients
    }
}

/// The different messages in a row that failed with the same pattern.
#[derive(Debug, Default)]
pub(super) struct Streak {
    pattern: String,
    mails: Vec<Mail>,
}

impl Streak {
    /// Adds a failure, and returns the number of different messages. A failure with another pattern starts a new streak.
    pub(super) fn add(&mut self, pattern: &str, mail: Mail) -> usize {
        if self.pattern != pattern {
            self.mails.clear();
            pattern.clone_into(&mut self.pattern);
        }
        if self.mails.len() < MAX_MAILS && self.mails.iter().all(|other| other.differs(mail)) {
            self.mails.push(mail);
        }
        self.mails.len()
    }

    /// Whether a message is in the streak.
    pub(super) fn contains(&self, id: DeliveryId) -> bool {
        self.mails.iter().any(|mail| mail.id == id)
    }

    pub(super) fn clear(&mut self) {
        self.mails.clear();
    }
}

/// The messages that failed with each pattern since the relay started.
#[derive(Debug, Default)]
pub(super) struct PatternHistory {
    /// For each pattern, the number of its last failure, and its messages.
    patterns: HashMap<String, (u64, Streak)>,
    /// The number of failures so far.
    failures: u64,
}

/// How often a pattern was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PatternCount {
    /// Whether this message failed with the pattern before.
    pub(super) before: bool,
    /// The number of different messages that failed with it, including this one.
    pub(super) messages: usize,
}

impl PatternHistory {
    /// Records that a message failed with a pattern.
    pub(super) fn add(&mut self, pattern: &str, mail: Mail) -> PatternCount {
        self.failures += 1;
        if self.patterns.len() >= MAX_PATTERNS && !self.patterns.contains_key(pattern) {
            // Forget the pattern that was not seen for the longest time.
            let oldest = self.patterns.iter().min_by_key(|(_, (last, _))| *last).map(|(pattern, _)| pattern.clone());
            if let Some(oldest) = oldest {
                self.patterns.remove(&oldest);
            }
        }
        let (last, mails) = self.patterns.entry(pattern.to_owned()).or_default();
        *last = self.failures;
        let before = mails.contains(mail.id);
        PatternCount { before, messages: mails.add(pattern, mail) }
    }
}
