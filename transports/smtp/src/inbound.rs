//! What has come from the server, taken apart into replies.

use std::mem;

use memchr::memchr;

use crate::reply::Reply;

/// RFC 5321 section 4.5.3.1.5 allows 512 octets to a line; servers that explain themselves at length exceed it.
const MAX_LINE: usize = 4 * 1024;
/// No honest reply comes near this; a server that never ends its reply must not fill the memory.
const MAX_REPLY: usize = 64 * 1024;

/// Octets read at once: the answers to an envelope.
const CAPACITY: usize = 1024;

/// The octets that were read and not yet taken as a reply. Each octet is looked at once, however small the pieces are in which
/// they come.
#[derive(Debug)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// How far was looked for its end.
    scanned: usize,
    /// The complete lines of a reply that goes on, and its code.
    partial: Vec<String>,
    code: Option<u16>,
    /// The octets of these lines.
    size: usize,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        let bytes = Vec::with_capacity(CAPACITY);
        Self { bytes, line: 0, scanned: 0, partial: Vec::new(), code: None, size: 0 }
    }

    /// Where to read into. What was taken is forgotten first.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.line > 0 {
            self.bytes.drain(..self.line);
            self.scanned -= mem::take(&mut self.line);
        }
        &mut self.bytes
    }

    /// Whether nothing is left, not even part of a line.
    pub(crate) fn is_empty(&self) -> bool {
        self.line == self.bytes.len() && self.partial.is_empty()
    }

    /// The next whole reply, where there is one.
    ///
    /// # Errors
    /// What makes it no reply, as a noun. The connection is then of no more use.
    pub(crate) fn reply(&mut self) -> Result<Option<Reply>, &'static str> {
        while let Some(length) = memchr(b'\n', &self.bytes[self.scanned..]) {
            let end = self.scanned + length;
            let line = &self.bytes[self.line..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > MAX_LINE {
                return Err("a line without end");
            }
            let (code, more, text) = split(line)?;
            if self.code.is_some_and(|first| first != code) {
                return Err("lines with different codes");
            }
            // Not every server has heard of UTF-8; a reply is no less a refusal for being written in another encoding.
            self.partial.push(String::from_utf8_lossy(text).into_owned());
            self.size += end + 1 - self.line;
            (self.line, self.scanned) = (end + 1, end + 1);
            if !more {
                (self.code, self.size) = (None, 0);
                return Ok(Some(Reply::new(code, mem::take(&mut self.partial))));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(text: &[u8]) -> Inbound {
        let mut inbound = Inbound::new();
        inbound.buffer().extend_from_slice(text);
        inbound
    }

    #[test]
    fn takes_whole_replies_and_leaves_the_rest() {
        let mut inbound = inbound(b"250-one\r\n250 two\r\n354 go\r\n2");
        let first = inbound.reply().unwrap().unwrap();
        assert_eq!((first.code(), first.verbatim().as_str()), (250, "250-one\n250 two"));
        assert_eq!(inbound.reply().unwrap().unwrap().code(), 354);
        assert_eq!(inbound.reply(), Ok(None));
        assert!(!inbound.is_empty());
        inbound.buffer().extend_from_slice(b"20-a\r\n220 b\r\n");
        assert_eq!(inbound.reply().unwrap().unwrap().verbatim(), "220-a\n220 b");
        assert!(inbound.is_empty());
    }

    #[test]
    fn half_a_reply_is_something_left() {
        let mut inbound = inbound(b"250-one\r\n");
        assert_eq!(inbound.reply(), Ok(None));
        assert!(!inbound.is_empty(), "a complete line of an incomplete reply was forgotten");
        inbound.buffer().extend_from_slice(b"250 two\r\n");
        assert_eq!(inbound.reply().unwrap().unwrap().verbatim(), "250-one\n250 two");
    }

    #[test]
    fn the_pieces_in_which_it_comes_do_not_matter() {
        let text = b"250-one\r\n250-\r\n250 three\r\n550 5.1.1 no\r\n";
        for size in 1..text.len() {
            let mut inbound = Inbound::new();
            let mut replies = Vec::new();
            for piece in text.chunks(size) {
                inbound.buffer().extend_from_slice(piece);
                while let Some(reply) = inbound.reply().unwrap() {
                    replies.push(reply.verbatim());
                }
            }
            assert_eq!(replies, ["250-one\n250-\n250 three", "550 5.1.1 no"], "in pieces of {size}");
        }
    }

    /// The cost of a reply that comes octet by octet grows with its length, not with the square of it. Counted, not timed: what
    /// was looked at is never looked at again.
    #[test]
    fn each_octet_is_looked_at_once() {
        let text = "250-x\r\n".repeat(9_000);
        let mut inbound = Inbound::new();
        let mut looked_at = 0;
        for byte in text.bytes() {
            inbound.buffer().push(byte);
            looked_at += inbound.bytes.len() - inbound.scanned;
            assert_eq!(inbound.reply(), Ok(None));
            assert_eq!(inbound.scanned, inbound.bytes.len());
        }
        assert_eq!(looked_at, text.len());
        inbound.buffer().extend_from_slice(b"250 end\r\n");
        assert_eq!(inbound.reply().unwrap().unwrap().lines().count(), 9_001);
    }

    #[test]
    fn reads_what_is_unusual_but_clear() {
        assert_eq!(inbound(b"250\r\n").reply().unwrap().unwrap().verbatim(), "250");
        assert_eq!(inbound(b"550 bo\xeete pleine\n").reply().unwrap().unwrap().code(), 550);
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bad in ["hello\r\n", "25\r\n", "250x\r\n", "250-a\r\n251 b\r\n", "199 a\r\n", "600 a\r\n", "\r\n"] {
            assert!(inbound(bad.as_bytes()).reply().is_err(), "took {bad:?}");
        }
        assert!(inbound(&vec![b'2'; MAX_LINE + 1]).reply().is_err());
        assert!(inbound(&b"250-a\r\n".repeat(MAX_REPLY / 6)).reply().is_err());
        let long = format!("250 {}\r\n", "x".repeat(MAX_LINE));
        assert!(inbound(long.as_bytes()).reply().is_err());
    }
}
