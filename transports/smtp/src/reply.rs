//! What a server answers (RFC 5321 section 4.2).

use std::fmt;

/// RFC 5321 section 4.5.3.1.5 allows 512 octets to a line; servers that explain themselves at length exceed it.
const MAX_LINE: usize = 4 * 1024;
/// No honest reply comes near this; a server that never ends its reply must not fill the memory.
const MAX_REPLY: usize = 64 * 1024;

/// A reply: its code, and its lines without the code.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// An enhanced status code (RFC 3463): class, subject, detail.
pub(crate) type Enhanced = (u16, u16, u16);

impl Reply {
    /// Takes one whole reply from the front of `inbound`, where there is one.
    ///
    /// # Errors
    /// What makes it no reply, as a noun.
    pub(crate) fn take(inbound: &mut Vec<u8>) -> Result<Option<Self>, &'static str> {
        let (mut code, mut lines, mut from) = (None, Vec::new(), 0);
        while let Some(length) = inbound[from..].iter().position(|byte| *byte == b'\n') {
            let line = inbound[from..from + length].strip_suffix(b"\r").unwrap_or(&inbound[from..from + length]);
            if line.len() > MAX_LINE {
                return Err("a line without end");
            }
            from += length + 1;
            let (line_code, more, text) = split(line)?;
            if code.is_some_and(|code| code != line_code) {
                return Err("lines with different codes");
            }
            code = Some(line_code);
            // Not every server has heard of UTF-8; a reply is no less a refusal for being written in another encoding.
            lines.push(String::from_utf8_lossy(text).into_owned());
            if !more {
                inbound.drain(..from);
                return Ok(Some(Self { code: line_code, lines }));
            }
            if from > MAX_REPLY {
                return Err("a reply without end");
            }
        }
        if inbound.len() - from > MAX_LINE { Err("a line without end") } else { Ok(None) }
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
    /// code proper is what counts.
    pub(crate) fn enhanced(&self) -> Option<Enhanced> {
        let mut parts = self.lines.first()?.split_whitespace().next()?.split('.');
        let mut number = || parts.next().filter(|part| part.len() <= 3)?.parse::<u16>().ok();
        let enhanced = (number()?, number()?, number()?);
        (parts.next().is_none() && enhanced.0 == self.code / 100).then_some(enhanced)
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

/// One line as its code, whether more lines follow, and its text. The text may be missing, and its space with it.
fn split(line: &[u8]) -> Result<(u16, bool, &[u8]), &'static str> {
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return Err("a line without a code");
    };
    let code = [a, b, c].into_iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Ok((code, false, rest)),
        [b' ', text @ ..] => Ok((code, false, text)),
        [b'-', text @ ..] => Ok((code, true, text)),
        _ => Err("a line without a code"),
    }
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
    Reply::take(&mut format!("{text}\r\n").into_bytes()).unwrap().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_whole_replies_and_leaves_the_rest() {
        let mut inbound = b"250-one\r\n250 two\r\n354 go\r\n2".to_vec();
        let first = Reply::take(&mut inbound).unwrap().unwrap();
        assert_eq!((first.code(), first.verbatim().as_str()), (250, "250-one\n250 two"));
        assert_eq!(Reply::take(&mut inbound).unwrap().unwrap().code(), 354);
        assert_eq!(Reply::take(&mut inbound), Ok(None));
        assert_eq!(inbound, b"2");
        let mut half = b"250-one\r\n250 tw".to_vec();
        assert_eq!(Reply::take(&mut half), Ok(None));
        assert_eq!(half, b"250-one\r\n250 tw", "half a reply is kept until the other half comes");
    }

    #[test]
    fn reads_what_is_unusual_but_clear() {
        assert_eq!(reply("250").verbatim(), "250");
        assert_eq!(Reply::take(&mut b"550 bo\xeete pleine\n".to_vec()).unwrap().unwrap().code(), 550);
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bad in ["hello\r\n", "25\r\n", "250x\r\n", "250-a\r\n251 b\r\n", "199 a\r\n", "600 a\r\n", "\r\n"] {
            assert!(Reply::take(&mut bad.as_bytes().to_vec()).is_err(), "took {bad:?}");
        }
        assert!(Reply::take(&mut vec![b'2'; MAX_LINE + 1]).is_err());
        assert!(Reply::take(&mut b"250-a\r\n".repeat(MAX_REPLY / 6)).is_err());
    }

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
