//! What a server answers (RFC 5321 section 4.2).

use std::fmt;

/// A reply: its code, and its lines without the code.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// An enhanced status code (RFC 3463): class, subject, detail.
pub(crate) type Enhanced = (u16, u16, u16);

impl Reply {
    /// A reply with its lines, from which the code is taken off.
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

    /// The enhanced code, unless it contradicts the code proper, in which case RFC 2034 section 4 calls it an error and the
    /// code proper is what counts. qmail and its kin put it at the end: `(#5.1.1)`.
    pub(crate) fn enhanced(&self) -> Option<Enhanced> {
        let first = self.lines.first()?.split_whitespace().next().and_then(enhanced);
        let last = || {
            self.lines.last()?.split_whitespace().next_back()?.strip_prefix('(')?.strip_suffix(')').and_then(enhanced)
        };
        first.or_else(last).filter(|(class, _, _)| *class == self.code / 100)
    }

    /// The lines without the enhanced codes that they begin with.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines().map(|line| match line.trim_start().split_once(' ') {
            Some((word, rest)) if enhanced(word).is_some() => rest,
            None if enhanced(line.trim()).is_some() => "",
            _ => line,
        })
    }

    /// The reply as it came, its lines parted by `\n`.
    pub(crate) fn verbatim(&self) -> String {
        let last = self.lines.len().saturating_sub(1);
        let line = |(index, text): (usize, &String)| match (index == last, text.is_empty()) {
            (true, true) => self.code.to_string(),
            (true, false) => format!("{} {text}", self.code),
            (false, _) => format!("{}-{text}", self.code),
        };
        self.lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Blots out texts that must not be kept. A server may quote in its reply what was said to it.
    pub(crate) fn without(mut self, secrets: &[String]) -> Self {
        for line in &mut self.lines {
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                if line.contains(secret) {
                    *line = line.replace(secret, "***");
                }
            }
        }
        self
    }

    /// The name under which the server queued the message, in the wordings of Postfix, Exim, Sendmail, Exchange and SES.
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

/// Some write a `#` before it.
fn enhanced(word: &str) -> Option<Enhanced> {
    let mut parts = word.strip_prefix('#').unwrap_or(word).split('.');
    let mut number = || parts.next().filter(|part| (1..=3).contains(&part.len()))?.parse::<u16>().ok();
    let enhanced = (number()?, number()?, number()?);
    parts.next().is_none().then_some(enhanced)
}

/// The code and the text, in one line that is safe to print.
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
pub(crate) fn reply(text: &str) -> Reply {
    let mut inbound = crate::inbound::Inbound::new();
    inbound.buffer().extend_from_slice(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes());
    inbound.reply().unwrap().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn believes_an_enhanced_code_only_of_the_same_class() {
        assert_eq!(reply("550 5.1.1 no such user").enhanced(), Some((5, 1, 1)));
        assert_eq!(reply("450 5.1.1 no such user").enhanced(), None);
        for none in ["550 no such user", "550 5.1 no", "550 5.1.1.1 no", "550 5.1.x no", "550"] {
            assert_eq!(reply(none).enhanced(), None, "{none}");
        }
    }

    #[test]
    fn finds_the_queue_id() {
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
    fn blots_out_secrets_and_control_characters() {
        let quoted = reply("500 what is AHVzZXIAcGFzcw==?\u{7}").without(&["AHVzZXIAcGFzcw==".to_owned()]);
        assert_eq!(quoted.to_string(), "500 what is ***? ");
        assert!(!quoted.verbatim().contains("AHVz"));
    }
}
