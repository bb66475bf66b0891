//! A reply of a server (RFC 5321 section 4.2).

use std::fmt;

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    /// The lines without the code.
    lines: Vec<String>,
}

/// An enhanced status code (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnhancedCode {
    pub(crate) class: u16,
    pub(crate) subject: u16,
    pub(crate) detail: u16,
}

impl Reply {
    /// `lines` come without the code.
    pub(crate) fn new(code: u16, lines: Vec<String>) -> Self {
        Self { code, lines }
    }

    pub(crate) fn code(&self) -> u16 {
        self.code
    }

    pub(crate) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.code >= 400
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Returns the enhanced code. `None` if there is none, or if its class contradicts the code (RFC 2034 section 4). qmail writes
    /// it at the end: `(#5.1.1)`.
    pub(crate) fn enhanced_code(&self) -> Option<EnhancedCode> {
        let first = self.lines.first()?.split_whitespace().next().and_then(parse_enhanced);
        let last = || {
            let word = self.lines.last()?.split_whitespace().next_back()?;
            word.strip_prefix('(')?.strip_suffix(')').and_then(parse_enhanced)
        };
        first.or_else(last).filter(|enhanced| enhanced.class == self.code / 100)
    }

    /// Returns the lines without the enhanced codes at their start.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines().map(|line| match line.trim_start().split_once(' ') {
            Some((word, rest)) if parse_enhanced(word).is_some() => rest,
            None if parse_enhanced(line.trim()).is_some() => "",
            _ => line,
        })
    }

    /// Returns the reply as it came. Its lines are separated by `\n`.
    pub(crate) fn verbatim(&self) -> String {
        let last = self.lines.len().saturating_sub(1);
        let line = |(index, text): (usize, &String)| match (index == last, text.is_empty()) {
            (true, true) => self.code.to_string(),
            (true, false) => format!("{} {text}", self.code),
            (false, _) => format!("{}-{text}", self.code),
        };
        self.lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Replaces secrets by `***`. A server may repeat in its reply what the client sent.
    pub(crate) fn redact(mut self, secrets: &[String]) -> Self {
        for line in &mut self.lines {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                if line.contains(secret) {
                    *line = line.replace(secret, "***");
                }
            }
        }
        self
    }

    /// Returns the server's queue id, as Postfix, Exim, Sendmail, Exchange and SES write it.
    pub(crate) fn queue_id(&self) -> Option<String> {
        let text = self.lines.join(" ");
        let word = |rest: &str| {
            let word = rest.split([' ', ',', ']', ')']).next().unwrap_or_default().trim_end_matches('.');
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            (!word.is_empty() && word.chars().all(plain)).then(|| word.to_owned())
        };
        for marker in ["queued as ", " id=", "InternalId="] {
            if let Some((_, rest)) = text.split_once(marker) {
                return word(rest);
            }
        }
        if let Some((before, _)) = text.split_once(" Message accepted for delivery") {
            return before.split(' ').next_back().and_then(word);
        }
        let id = text.strip_prefix("Ok ").or_else(|| text.strip_prefix("OK "))?;
        let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
        (id.len() >= 20 && id.chars().all(hex)).then(|| id.to_owned())
    }
}

/// Parses an enhanced code. Some servers write a `#` before it.
fn parse_enhanced(word: &str) -> Option<EnhancedCode> {
    let mut parts = word.strip_prefix('#').unwrap_or(word).split('.');
    let mut number = || parts.next().filter(|part| (1..=3).contains(&part.len()))?.parse::<u16>().ok();
    let enhanced = EnhancedCode { class: number()?, subject: number()?, detail: number()? };
    parts.next().is_none().then_some(enhanced)
}

/// Writes the code and the text in one line without control characters.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {}", line.replace(char::is_control, " "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&postrider_transport::mask_addresses(&self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply_parser::reply;

    #[test]
    fn an_enhanced_code_of_another_class_is_ignored() {
        let expected = EnhancedCode { class: 5, subject: 1, detail: 1 };
        assert_eq!(reply("550 5.1.1 no such user").enhanced_code(), Some(expected));
        assert_eq!(reply("450 5.1.1 no such user").enhanced_code(), None);
        for none in ["550 no such user", "550 5.1 no", "550 5.1.1.1 no", "550 5.1.x no", "550"] {
            assert_eq!(reply(none).enhanced_code(), None, "{none}");
        }
    }

    #[test]
    fn the_queue_id_is_found() {
        for (text, id) in [
            ("250 2.0.0 Ok: queued as 4Xh2Lq1", Some("4Xh2Lq1")),
            ("250 OK id=1rABCd-0003Xy-2Z", Some("1rABCd-0003Xy-2Z")),
            ("250 2.0.0 31A9x Message accepted for delivery", Some("31A9x")),
            ("250 2.6.0 <a@b> [InternalId=123456, Hostname=x.example] Queued mail for delivery", Some("123456")),
            ("250 Ok 0100018c-aaaa-bbbb-cccc-000000000000-000000", Some("0100018c-aaaa-bbbb-cccc-000000000000-000000")),
            ("250 2.0.0 Ok", None),
            ("250 Ok", None),
            ("250 queued as <ada@example.com>", None),
        ] {
            assert_eq!(reply(text).queue_id().as_deref(), id, "{text}");
        }
    }

    #[test]
    fn secrets_and_control_characters_are_replaced() {
        let quoted = reply("500 what is AHVzZXIAcGFzcw==?\u{7}").redact(&["AHVzZXIAcGFzcw==".to_owned()]);
        assert_eq!(quoted.to_string(), "500 what is ***? ");
        assert!(!quoted.verbatim().contains("AHVz"));
    }
}
