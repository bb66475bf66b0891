//! Content transfer encodings (RFC 2045 section 6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::{memchr, memchr_iter};

use super::header_text::hex;

/// A content transfer encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    SevenBit,
    EightBit,
    QuotedPrintable,
    Base64,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
        }
    }

    /// The encoding of a text: 7bit if no server could change the text, else the shorter of quoted-printable and base64.
    ///
    /// RFC 2049 section 3 lists what servers change: white space at line ends, long lines, and `From `. Never 8bit, because a server that
    /// converts it breaks a DKIM signature (RFC 6376 section 5.3).
    ///
    /// `last`: whether the text ends the message. A message ends with a line end (RFC 5321 section 4.1.1.4), but a text need not.
    pub(super) fn of_text(text: &str, last: bool) -> Self {
        let bytes = text.as_bytes();
        let escaped = bytes.iter().filter(|byte| !is_plain(**byte)).count();
        let is_safe = escaped == 0
            && lines(text).all(|line| line.len() <= 78 && !line.starts_with("From ") && !line.ends_with([' ', '\t']))
            && (!last || text.is_empty() || text.ends_with('\n'));
        if is_safe {
            Self::SevenBit
        } else if escaped <= bytes.len() / 3 {
            Self::QuotedPrintable
        } else {
            Self::Base64
        }
    }
}

/// Whether an octet needs no encoding in 7bit and, except for `=`, in quoted-printable. RFC 2045 section 2.7 forbids NUL, and RFC 5322
/// section 3.5 the other control characters.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b' '..=b'~')
}

/// The lines of a text, separated by `\n`. The text after the last `\n` is a line, even if it is empty.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let ends = memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    ends.scan(0, |from, end| Some(&text[std::mem::replace(from, end + 1)..end]))
}

/// Writes an encoded text with CRLF line ends. With `last`, the output ends with CRLF even if the text has no line end there.
pub(super) fn text(text: &str, encoding: Encoding, last: bool, out: &mut Vec<u8>) {
    match encoding {
        Encoding::SevenBit | Encoding::EightBit => crlf(text.as_bytes(), out),
        Encoding::QuotedPrintable => {
            quoted_printable(text, out);
            if last && !out.ends_with(b"\n") {
                // RFC 2045 section 6.7 (5): a soft line break is not part of the text.
                out.extend_from_slice(b"=\r\n");
            }
        }
        Encoding::Base64 => {
            // RFC 2049 section 4: line ends become CRLF before a text is encoded.
            let mut lines = Vec::with_capacity(text.len() + text.len() / 16);
            crlf(text.as_bytes(), &mut lines);
            base64(&lines, out);
            if last && !out.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Writes content unencoded, with CRLF line ends. The content must have no lone CR.
pub(super) fn crlf(bytes: &[u8], out: &mut Vec<u8>) {
    let mut from = 0;
    for end in memchr_iter(b'\n', bytes) {
        let line = &bytes[from..end];
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(b"\r\n");
        from = end + 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

/// Writes quoted-printable (RFC 2045 section 6.7).
///
/// At the start of a line, a dot and the `From ` of mailbox files are escaped as well (RFC 2049 section 3).
fn quoted_printable(text: &str, out: &mut Vec<u8>) {
    for (number, line) in lines(text).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
        }
        let line = line.as_bytes();
        let mut start = out.len();
        let mut at = 0;
        while at < line.len() {
            let byte = line[at];
            let at_start = out.len() == start;
            let escape = match byte {
                b'=' => true,
                b'.' => at_start,
                b'F' => at_start && line[at..].starts_with(b"From "),
                b' ' | b'\t' => at + 1 == line.len(),
                byte => !byte.is_ascii_graphic(),
            };
            // One octet of the 76 is for the `=` of a soft line break.
            if out.len() - start + if escape { 3 } else { 1 } > 75 {
                out.extend_from_slice(b"=\r\n");
                start = out.len();
                continue;
            }
            if escape {
                out.push(b'=');
                out.extend([byte >> 4, byte & 15].map(|digit| hex(digit) as u8));
                at += 1;
                continue;
            }
            // Copy all octets that need no escape and fit into the line.
            let room = 75 - (out.len() - start);
            let run = line[at..].iter().take(room).take_while(|b| b.is_ascii_graphic() && **b != b'=' || **b == b' ');
            let mut end = at + run.count().max(1);
            if end == line.len() {
                // The last octet may be a space, which needs an escape there.
                end = (end - 1).max(at + 1);
            }
            out.extend_from_slice(&line[at..end]);
            at = end;
        }
    }
}

/// Writes base64 in lines of 76 octets (RFC 2045 section 6.8), without a line end after the last.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let mut line = [0; 76];
    for (number, chunk) in bytes.chunks(57).enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\r\n");
        }
        if let Ok(length) = STANDARD.encode_slice(chunk, &mut line) {
            out.extend_from_slice(&line[..length]);
        }
    }
}

/// The encoding of content that must not be encoded: 7bit or 8bit.
///
/// RFC 2045 sections 2.7 and 2.8: lines of at most 998 octets, no NUL, CR and LF only together. A lone LF is allowed, because
/// [`crlf`] converts it.
pub(super) fn unencoded(bytes: &[u8]) -> Result<Encoding, &'static str> {
    if memchr(0, bytes).is_some() {
        return Err("has a NUL");
    }
    let mut from = 0;
    for end in memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        let line = &bytes[from..end];
        let line = if end < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        if memchr(b'\r', line).is_some() {
            return Err("has a CR without LF");
        }
        if line.len() > 998 {
            return Err("has a line of more than 998 octets");
        }
        from = end + 1;
    }
    Ok(if bytes.is_ascii() { Encoding::SevenBit } else { Encoding::EightBit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &str, last: bool) -> (Encoding, String) {
        let encoding = Encoding::of_text(content, last);
        let mut out = Vec::new();
        text(content, encoding, last, &mut out);
        (encoding, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_text_is_encoded_only_if_a_server_could_change_it() {
        use Encoding::{Base64, QuotedPrintable, SevenBit};
        for (content, encoding, whole, part) in [
            ("", SevenBit, "", ""),
            ("a\n", SevenBit, "a\r\n", "a\r\n"),
            ("a\n.\n\n", SevenBit, "a\r\n.\r\n\r\n", "a\r\n.\r\n\r\n"),
            ("Grün ist schön\n", QuotedPrintable, "Gr=C3=BCn ist sch=C3=B6n\r\n", "Gr=C3=BCn ist sch=C3=B6n\r\n"),
            ("a\n-- \nb\n", QuotedPrintable, "a\r\n--=20\r\nb\r\n", "a\r\n--=20\r\nb\r\n"),
            ("From me\n", QuotedPrintable, "=46rom me\r\n", "=46rom me\r\n"),
            ("\0ab\n.\nc \n", QuotedPrintable, "=00ab\r\n=2E\r\nc=20\r\n", "=00ab\r\n=2E\r\nc=20\r\n"),
            ("é\n", Base64, "w6kNCg==\r\n", "w6kNCg=="),
        ] {
            assert_eq!(written(content, true), (encoding, whole.to_owned()), "{content:?}");
            assert_eq!(written(content, false), (encoding, part.to_owned()), "{content:?}");
        }
        assert_eq!(written("a", true), (QuotedPrintable, "a=\r\n".to_owned()));
        assert_eq!(written("a", false), (SevenBit, "a".to_owned()));
        assert_eq!(written(".", true), (QuotedPrintable, "=2E=\r\n".to_owned()));
    }

    #[test]
    fn no_line_is_too_long() {
        for content in ["=".repeat(500), "a".repeat(500), " ".repeat(500), ".".repeat(500), "From ".repeat(100)] {
            let mut out = Vec::new();
            quoted_printable(&content, &mut out);
            let out = String::from_utf8(out).unwrap();
            assert!(out.split("\r\n").all(|line| line.len() <= 76 && !line.starts_with('.')), "{out}");
            assert!(out.split("\r\n").all(|line| !line.ends_with(' ') && !line.starts_with("From ")), "{out}");
        }
    }

    #[test]
    fn content_that_is_not_lines_is_refused() {
        assert_eq!(unencoded(b"a\r\nb\nc"), Ok(Encoding::SevenBit));
        assert_eq!(unencoded("é".as_bytes()), Ok(Encoding::EightBit));
        assert_eq!(unencoded(&[b'a'; 998]), Ok(Encoding::SevenBit));
        for bad in [&b"\0"[..], b"a\rb", b"a\r", b"\r\r\n", &[b'a'; 999]] {
            assert!(unencoded(bad).is_err(), "{bad:?}");
        }
    }
}
