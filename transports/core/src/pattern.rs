//! What answers have in common that differ only in whom and what they are about.

/// How many words of an answer are compared. The first say what is the matter; a stranger decides how many there are.
const WORDS: usize = 40;

/// An answer without its variable parts: addresses, numbers, host names, URLs and ids each become one sign, and case and punctuation
/// go. Answers that say the same of different messages then read alike. A reply's code and enhanced code stay.
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
            if words.len() >= WORDS {
                return words.join(" ");
            }
            let word = raw.trim_matches(|c: char| !c.is_alphanumeric() && c != '@');
            if word.is_empty() || (place == 0 && is_enhanced(word) && number > 0) {
                continue;
            }
            words.push(sign(word, place == 0));
        }
    }
    words.join(" ")
}

/// The code of a reply's line, where it begins with one.
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

/// RFC 3463: class, subject, detail.
fn is_enhanced(word: &str) -> bool {
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    word.split('.').count() == 3 && word.split('.').all(number)
}

fn sign(word: &str, first: bool) -> String {
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
    fn what_differs_only_in_its_variable_parts_reads_alike() {
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
    fn what_says_something_else_reads_otherwise() {
        for (one, other) in [
            ("550 quota", "451 quota"),
            ("550 5.7.1 refused", "550 5.1.1 refused"),
            ("550 mailbox full", "550 mailbox gone"),
        ] {
            assert_ne!(pattern(one), pattern(other));
        }
    }

    #[test]
    fn is_bounded_whatever_a_server_says() {
        let long = "word ".repeat(100_000);
        assert_eq!(pattern(&long).split(' ').count(), WORDS);
        for odd in ["5", "55", "é5 0", "550", "550-", "@@@", "...", "5.7.1", "\u{0}"] {
            let _ = pattern(odd);
        }
    }
}
