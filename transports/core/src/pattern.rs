//! The constant part of an answer.

/// The number of words that a pattern keeps. The first words state the problem; the server decides how many follow.
const MAX_WORDS: usize = 40;

/// Replaces the variable parts of an answer, so that answers with the same cause are equal.
///
/// Addresses, numbers, ids, host names and URLs become placeholders. Case and punctuation are removed. The reply code and the enhanced
/// code stay.
///
/// ```
/// use postrider_transport::pattern;
///
/// let one = pattern("550 5.7.999 <ada@example.com>: id 4Xh2Lq1 is over quota, see https://help.example.com/q?id=1");
/// let other = pattern("550-5.7.999 <bob@example.org>: ID 9Zk0Bb7 is over quota,\n550 5.7.999 see https://help.example.com/q?id=2");
/// assert_eq!(one, "550 5.7.999 @ id # is over quota see url");
/// assert_eq!(one, other);
/// ```
pub fn pattern(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (code, rest) = split_code(line);
        if number == 0 {
            words.extend(code);
        }
        for (place, raw) in rest.split_whitespace().enumerate() {
            if words.len() >= MAX_WORDS {
                return words.join(" ");
            }
            let word = raw.trim_matches(|c: char| !c.is_alphanumeric() && c != '@');
            if word.is_empty() || (place == 0 && is_enhanced(word) && number > 0) {
                continue;
            }
            words.push(placeholder(word, place == 0));
        }
    }
    words.join(" ")
}

/// Splits the reply code off a line that starts with one.
fn split_code(line: &str) -> (Option<String>, &str) {
    match line.split_at_checked(3) {
        Some((code, rest))
            if code.bytes().all(|byte| byte.is_ascii_digit()) && (rest.is_empty() || rest.starts_with([' ', '-'])) =>
        {
            (Some(code.to_owned()), rest.get(1..).unwrap_or_default())
        }
        _ => (None, line),
    }
}

/// Whether the word is an enhanced code: class, subject and detail (RFC 3463).
fn is_enhanced(word: &str) -> bool {
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    word.split('.').count() == 3 && word.split('.').all(number)
}

/// A word of the pattern: a placeholder, or the word in lower case.
fn placeholder(word: &str, first: bool) -> String {
    let is_host = || {
        let mut labels = word.split('.');
        labels.clone().count() > 1 && labels.all(|label| !label.is_empty())
    };
    if first && is_enhanced(word) {
        word.to_owned()
    } else if word.contains('@') {
        "@".to_owned()
    } else if word.contains("://") {
        "url".to_owned()
    } else if word.contains(|c: char| c.is_numeric()) {
        "#".to_owned()
    } else if is_host() {
        "host".to_owned()
    } else {
        word.to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_the_same_cause_are_equal() {
        for (one, other) in [
            ("550 no such user ada", "550 No such user ADA"),
            ("452 <a@b.example> queue id 4Xh2Lq1", "452 <c@d.example> queue id 9Z"),
            ("550 blocked by mx1.example.com [192.0.2.1]", "550 blocked by mx7.example.org [198.51.100.7]"),
            ("550-first\n550 second", "550 first second"),
            ("", "\n"),
        ] {
            assert_eq!(pattern(one), pattern(other));
        }
    }

    #[test]
    fn answers_with_other_causes_differ() {
        for (one, other) in [
            ("550 quota", "451 quota"),
            ("550 5.7.1 refused", "550 5.1.1 refused"),
            ("550 mailbox full", "550 mailbox gone"),
        ] {
            assert_ne!(pattern(one), pattern(other));
        }
    }

    #[test]
    fn long_and_odd_answers_are_bounded() {
        let long = "word ".repeat(100_000);
        assert_eq!(pattern(&long).split(' ').count(), MAX_WORDS);
        for odd in ["5", "55", "é5 0", "550", "550-", "@@@", "...", "5.7.1", "\u{0}"] {
            let _ = pattern(odd);
        }
    }
}
