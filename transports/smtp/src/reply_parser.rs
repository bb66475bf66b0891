//! Splits what a server sends into replies.

use std::mem;

use memchr::memchr;

use crate::reply::Reply;

/// Octets of a line. RFC 5321 section 4.5.3.1.5 allows 512, which servers with long explanations exceed.
const MAX_LINE: usize = 4 * 1024;
/// Octets of a reply. A reply without an end must not fill the memory.
const MAX_REPLY: usize = 64 * 1024;

/// Octets of the read buffer, enough for the replies to most envelopes.
const CAPACITY: usize = 1024;

/// The octets that were read and are not part of a returned reply. It scans each octet once, however they are split into reads.
#[derive(Debug)]
pub(crate) struct ReplyParser {
    bytes: Vec<u8>,
    /// Where the incomplete line begins in `bytes`.
    line: usize,
    /// How far the incomplete line was searched for its end.
    scanned: usize,
    /// The complete lines of an incomplete reply.
    lines: Vec<String>,
    /// The code of the incomplete reply. `None` before its first line.
    code: Option<u16>,
    /// The octets of `lines`.
    size: usize,
}

impl ReplyParser {
    pub(crate) fn new() -> Self {
        let bytes = Vec::with_capacity(CAPACITY);
        Self { bytes, line: 0, scanned: 0, lines: Vec::new(), code: None, size: 0 }
    }

    /// Returns the buffer to append input to. Octets of returned replies are removed first.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.line > 0 {
            self.bytes.drain(..self.line);
            self.scanned -= mem::take(&mut self.line);
        }
        &mut self.bytes
    }

    /// Whether there is no input, not even a part of a line.
    pub(crate) fn is_empty(&self) -> bool {
        self.line == self.bytes.len() && self.lines.is_empty()
    }

    /// Returns the next complete reply, or `None` if more input is needed.
    ///
    /// # Errors
    /// What the input is instead of a reply, as a noun. The connection can then not be used again.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Reply>, &'static str> {
        while let Some(length) = memchr(b'\n', &self.bytes[self.scanned..]) {
            let end = self.scanned + length;
            let line = &self.bytes[self.line..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_LINE {
                return Err("a line without end");
            }
            let Line { code, last, text } = parse_line(line)?;
            if self.code.is_some_and(|first| first != code) {
                return Err("lines with different codes");
            }
            // A reply in another encoding than UTF-8 is still a reply.
            self.lines.push(String::from_utf8_lossy(text).into_owned());
            self.size += end + 1 - self.line;
            (self.line, self.scanned) = (end + 1, end + 1);
            if last {
                (self.code, self.size) = (None, 0);
                return Ok(Some(Reply::new(code, mem::take(&mut self.lines))));
            }
            self.code = Some(code);
            if self.size > MAX_REPLY {
                return Err("a reply without end");
            }
        }
        self.scanned = self.bytes.len();
        if self.bytes.len() - self.line > MAX_LINE { Err("a line without end") } else { Ok(None) }
    }
}

/// A line of a reply (RFC 5321 section 4.2.1).
struct Line<'a> {
    code: u16,
    /// Whether it is the last line of its reply.
    last: bool,
    /// May be missing together with its space.
    text: &'a [u8],
}

fn parse_line(line: &[u8]) -> Result<Line<'_>, &'static str> {
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return Err("a line without a code");
    };
    let code = [a, b, c].into_iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        [] => Ok(Line { code, last: true, text: rest }),
        [b' ', text @ ..] => Ok(Line { code, last: true, text }),
        [b'-', text @ ..] => Ok(Line { code, last: false, text }),
        _ => Err("a line without a code"),
    }
}

/// Reads one reply from text. Its lines are separated by `\n`.
#[cfg(test)]
pub(crate) fn reply(text: &str) -> Reply {
    let mut parser = ReplyParser::new();
    parser.buffer().extend_from_slice(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes());
    parser.next_reply().unwrap().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(input: &[u8]) -> ReplyParser {
        let mut parser = ReplyParser::new();
        parser.buffer().extend_from_slice(input);
        parser
    }

    #[test]
    fn complete_replies_are_returned_and_the_rest_stays() {
        let mut parser = parser(b"250-one\r\n250 two\r\n354 go\r\n2");
        let first = parser.next_reply().unwrap().unwrap();
        assert_eq!((first.code(), first.verbatim().as_str()), (250, "250-one\n250 two"));
        assert_eq!(parser.next_reply().unwrap().unwrap().code(), 354);
        assert_eq!(parser.next_reply(), Ok(None));
        assert!(!parser.is_empty());
        parser.buffer().extend_from_slice(b"20-a\r\n220 b\r\n");
        assert_eq!(parser.next_reply().unwrap().unwrap().verbatim(), "220-a\n220 b");
        assert!(parser.is_empty());
    }

    #[test]
    fn a_partial_reply_is_input() {
        let mut parser = parser(b"250-one\r\n");
        assert_eq!(parser.next_reply(), Ok(None));
        assert!(!parser.is_empty(), "the parser lost a line of an incomplete reply");
        parser.buffer().extend_from_slice(b"250 two\r\n");
        assert_eq!(parser.next_reply().unwrap().unwrap().verbatim(), "250-one\n250 two");
    }

    #[test]
    fn replies_do_not_depend_on_how_input_is_split() {
        let text = b"250-one\r\n250-\r\n250 three\r\n550 5.1.1 no\r\n";
        for size in 1..text.len() {
            let mut parser = ReplyParser::new();
            let mut replies = Vec::new();
            for piece in text.chunks(size) {
                parser.buffer().extend_from_slice(piece);
                while let Some(reply) = parser.next_reply().unwrap() {
                    replies.push(reply.verbatim());
                }
            }
            assert_eq!(replies, ["250-one\n250-\n250 three", "550 5.1.1 no"], "in reads of {size} octets");
        }
    }

    /// The cost of a reply in reads of one octet is linear in its length. The test counts octets and measures no time.
    #[test]
    fn each_octet_is_scanned_once() {
        let text = "250-x\r\n".repeat(9_000);
        let mut parser = ReplyParser::new();
        let mut scanned = 0;
        for byte in text.bytes() {
            parser.buffer().push(byte);
            scanned += parser.bytes.len() - parser.scanned;
            assert_eq!(parser.next_reply(), Ok(None));
            assert_eq!(parser.scanned, parser.bytes.len());
        }
        assert_eq!(scanned, text.len());
        parser.buffer().extend_from_slice(b"250 end\r\n");
        assert_eq!(parser.next_reply().unwrap().unwrap().lines().count(), 9_001);
    }

    #[test]
    fn unusual_replies_are_read() {
        assert_eq!(parser(b"250\r\n").next_reply().unwrap().unwrap().verbatim(), "250");
        assert_eq!(parser(b"550 bo\xeete pleine\n").next_reply().unwrap().unwrap().code(), 550);
    }

    #[test]
    fn other_input_is_an_error() {
        for bad in ["hello\r\n", "25\r\n", "250x\r\n", "250-a\r\n251 b\r\n", "199 a\r\n", "600 a\r\n", "\r\n"] {
            assert!(parser(bad.as_bytes()).next_reply().is_err(), "accepted {bad:?}");
        }
        assert!(parser(&vec![b'2'; MAX_LINE + 1]).next_reply().is_err());
        assert!(parser(&b"250-a\r\n".repeat(MAX_REPLY / 6)).next_reply().is_err());
        let long = format!("250 {}\r\n", "x".repeat(MAX_LINE));
        assert!(parser(long.as_bytes()).next_reply().is_err());
    }
}
