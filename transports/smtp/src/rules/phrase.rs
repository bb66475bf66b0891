//! Phrases that are searched for in a reply.

use super::words::Words;

/// The most words that `…` in a phrase stands for.
const MAX_GAP: usize = 10;

/// Words that must follow each other in a reply.
///
/// `|` separates alternatives of a word, `*` at the end of a word stands for any ending, and `…` stands for up to ten words. The
/// placeholders `#address`, `#link`, `#host` and `#ip` in a reply are skipped, unless the phrase names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phrase {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Whether other words may come before it.
    gap: bool,
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Alternative {
    Word(String),
    Prefix(String),
}

impl Part {
    fn matches(&self, word: &str) -> bool {
        self.alternatives.iter().any(|alternative| match alternative {
            Alternative::Word(text) => word == text,
            Alternative::Prefix(text) => word.starts_with(text.as_str()),
        })
    }
}

impl Phrase {
    pub(crate) fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut gap = false;
        for word in text.to_lowercase().replace("...", " … ").split_whitespace() {
            if word == "…" {
                gap = true;
                continue;
            }
            let without_apostrophes = |text: &str| text.replace(['\'', '’'], "");
            let alternatives = word.split('|').map(|word| match word.strip_suffix('*') {
                Some(prefix) => Alternative::Prefix(without_apostrophes(prefix)),
                None => Alternative::Word(without_apostrophes(word)),
            });
            parts.push(Part { gap, alternatives: alternatives.collect() });
            gap = false;
        }
        Self { text: text.to_owned(), parts }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_in(&self, words: &Words) -> bool {
        let words = words.as_slice();
        !self.parts.is_empty() && (0..words.len()).any(|start| match_parts(&self.parts, &words[start..], true))
    }
}

/// Whether the parts follow each other from the first word on. `first` says that no part matched before.
fn match_parts(parts: &[Part], words: &[String], first: bool) -> bool {
    let Some((part, rest)) = parts.split_first() else { return true };
    let gap = if part.gap && !first { MAX_GAP } else { 0 };
    let mut skipped = 0;
    for (index, word) in words.iter().enumerate() {
        if part.matches(word) && match_parts(rest, &words[index + 1..], false) {
            return true;
        }
        // A placeholder between two words is skipped. One before the first word is not.
        if first || (!word.starts_with('#') && skipped == gap) {
            return false;
        }
        skipped += usize::from(!word.starts_with('#'));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found() {
        let is = |phrase: &str, text: &str| Phrase::new(phrase).is_in(&Words::new(text.lines()));
        assert!(is("user|mailbox unknown", "550 <a@example.com>: User unknown in table"));
        assert!(is("over quota", "mailbox is over\nquota"));
        assert!(!is("over quota", "moreover quota"));
        assert!(is("blacklist*", "is blacklisted by"));
        assert!(is("your ip … block*", "Your IP 192.0.2.1 has been blocked"));
        assert!(is("user … locked", "User bob@example.org temporary locked"));
        assert!(is("user temporary", "User bob@example.org temporary locked"), "a placeholder is skipped");
        assert!(is("from #ip", "messages from 192.0.2.1 will"));
        assert!(!is("from #ip", "messages from him 192.0.2.1 will"));
        assert!(!is("one … two", &format!("one {} two", "word ".repeat(MAX_GAP + 1))), "a gap spans at most ten words");
        assert!(is("one … two", &format!("one {} two", "word ".repeat(MAX_GAP))));
        assert!(is("you've reached", "you’ve reached") && is("one...two", "one or two"));
        assert!(!is("", "anything"));
    }
}
