//! Different messages that are refused alike.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use postrider_transport::{DeliveryId, Recipient};

/// So many are remembered: enough to know that they are several.
const MOST: usize = 16;

/// So many patterns are remembered.
const MOST_PATTERNS: usize = 256;

/// A message, for comparison.
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

    /// Neither the same message nor one for the same recipients: a condition of these would be the same.
    pub(super) fn differs(self, other: Self) -> bool {
        self.id != other.id && self.recipients != other.recipients
    }
}

/// Failures in a row that say the same.
#[derive(Debug, Default)]
pub(super) struct Streak {
    pattern: String,
    mails: Vec<Mail>,
}

impl Streak {
    /// Adds a failure and counts how many different messages failed so. One that says something else begins anew.
    pub(super) fn add(&mut self, pattern: &str, mail: Mail) -> usize {
        if self.pattern != pattern {
            self.mails.clear();
            pattern.clone_into(&mut self.pattern);
        }
        if self.mails.len() < MOST && self.mails.iter().all(|other| other.differs(mail)) {
            self.mails.push(mail);
        }
        self.mails.len()
    }

    /// Whether a message is among those that count.
    pub(super) fn contains(&self, id: DeliveryId) -> bool {
        self.mails.iter().any(|mail| mail.id == id)
    }

    pub(super) fn clear(&mut self) {
        self.mails.clear();
    }
}

/// Which words different messages were refused in, over the life of the relay.
#[derive(Debug, Default)]
pub(super) struct Words {
    patterns: HashMap<String, (u64, Streak)>,
    turn: u64,
}

/// Who has heard some words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// This message has heard them before.
    pub(super) before: bool,
    /// So many different messages have, with this one.
    pub(super) by: usize,
}

impl Words {
    /// Takes note that a message was refused in some words.
    pub(super) fn add(&mut self, pattern: &str, mail: Mail) -> Heard {
        self.turn += 1;
        if self.patterns.len() >= MOST_PATTERNS && !self.patterns.contains_key(pattern) {
            // What was heard longest ago goes.
            let oldest = self.patterns.iter().min_by_key(|(_, (turn, _))| *turn).map(|(pattern, _)| pattern.clone());
            if let Some(oldest) = oldest {
                self.patterns.remove(&oldest);
            }
        }
        let (turn, mails) = self.patterns.entry(pattern.to_owned()).or_default();
        *turn = self.turn;
        let before = mails.contains(mail.id);
        Heard { before, by: mails.add(pattern, mail) }
    }
}
