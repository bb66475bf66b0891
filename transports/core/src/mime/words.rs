//! Text in headers: folded, and where it must be, encoded (RFC 2047).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// RFC 2047 section 2: no line with an encoded word is longer. RFC 5322 section 2.1.1 recommends 78 for the others.
pub(super) const LINE: usize = 76;

/// RFC 2047 section 2: the length of an encoded word, delimiters included.
const ENCODED_WORD: usize = 75;

/// `=?utf-8?b?` and `?=`.
const DELIMITERS: usize = 12;

/// Writes one header, and keeps count of where in the line it is.
pub(super) struct Field<'a> {
    out: &'a mut String,
    column: usize,
}

impl<'a> Field<'a> {
    /// Begins a header with its name.
    pub(super) fn new(out: &'a mut String, name: &str) -> Self {
        out.extend([name, ": "]);
        Self { out, column: name.len() + 2 }
    }

    /// Ends the header.
    pub(super) fn end(self) {
        self.out.push_str("\r\n");
    }

    /// Writes without folding.
    pub(super) fn raw(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.len();
    }

    /// Begins a line. What follows is parted from what stands before by one space.
    pub(super) fn fold(&mut self) {
        self.out.push_str("\r\n ");
        self.column = 1;
    }

    /// Whether so many octets more fit into the line.
    pub(super) fn fits(&self, octets: usize) -> bool {
        self.column + octets <= LINE
    }

    /// A space, then the text, on a line of its own where it does not fit into this one.
    pub(super) fn word(&mut self, text: &str) {
        if self.fits(1 + text.len()) {
            self.raw(" ");
        } else {
            self.fold();
        }
        self.raw(text);
    }

    /// Text as it is, folded at spaces. Only the first space of several is a place to fold: unfolding must bring back as
    /// many (RFC 5322 section 2.2.3).
    pub(super) fn literal(&mut self, text: &str) {
        for (index, word) in text.split(' ').enumerate() {
            match (index, word) {
                (0, _) => self.raw(word),
                (_, "") => self.raw(" "),
                _ => self.word(word),
            }
        }
    }

    /// The text in encoded words, as many as it takes, and with `apart` a space in front.
    ///
    /// RFC 2047 section 6.2 has a reader drop the white space between two encoded words, so that all white space of the text
    /// stands within them. Section 5 (3) keeps a character whole, and wants Q with few characters in a name.
    pub(super) fn encoded(&mut self, text: &str, mut apart: bool) {
        let escaped = text.bytes().filter(|byte| !stays(*byte)).count();
        let q = text.len() + 2 * escaped <= text.len().div_ceil(3) * 4;
        let mut rest = text;
        while !rest.is_empty() {
            let room = LINE.saturating_sub(self.column + usize::from(apart)).min(ENCODED_WORD);
            let mut chunk = fitting(rest, room.saturating_sub(DELIMITERS), q);
            // Begun this late in a line, it would be cut to bits.
            if chunk.len() < rest.len().min(12) && self.column > 1 {
                self.fold();
                chunk = fitting(rest, ENCODED_WORD - DELIMITERS, q);
            } else if apart {
                self.raw(" ");
            }
            apart = false;
            // Readers exist that show the white space between encoded words. They do less harm where there is some anyway.
            if chunk.len() < rest.len()
                && let Some(space) = chunk.rfind(' ').filter(|space| *space > chunk.len() / 2)
            {
                chunk = &chunk[..space];
            }
            self.encoded_word(chunk, q);
            rest = &rest[chunk.len()..];
            if !rest.is_empty() {
                self.fold();
            }
        }
    }

    fn encoded_word(&mut self, text: &str, q: bool) {
        let before = self.out.len();
        self.out.push_str(if q { "=?utf-8?q?" } else { "=?utf-8?b?" });
        if q {
            for byte in text.bytes() {
                match byte {
                    b' ' => self.out.push('_'),
                    byte if stays(byte) => self.out.push(char::from(byte)),
                    byte => self.out.extend(['=', hex(byte >> 4), hex(byte & 15)]),
                }
            }
        } else {
            STANDARD.encode_string(text, self.out);
        }
        self.out.push_str("?=");
        self.column += self.out.len() - before;
    }
}

/// As much of the text as fits into so many octets once encoded, in whole characters.
fn fitting(text: &str, room: usize, q: bool) -> &str {
    let (mut end, mut used) = (0, 0);
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        used += text[at..next].bytes().map(|byte| if stays(byte) { 1 } else { 3 }).sum::<usize>();
        let size = if q { used } else { next.div_ceil(3) * 4 };
        if size > room {
            break;
        }
        end = next;
    }
    &text[..end]
}

/// RFC 2047 section 5 (3): what need not be escaped in Q, wherever the word stands. The space becomes `_`.
fn stays(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" !*+-/".contains(&byte)
}

pub(super) fn hex(digit: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(digit & 15)])
}

/// Whether all of it is printable ASCII without spaces, and no reader takes a part of it for an encoded word.
fn means_itself(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_graphic()) && !word.contains("=?")
}

/// Free text, such as a subject, that is to be read back as it is. From the first word to the last that could be read otherwise, it is
/// encoded.
pub(super) fn unstructured(out: &mut String, name: &str, text: &str) {
    // An empty word is a space too many, which not every reader keeps.
    let plain = |word: &str| !word.is_empty() && word.len() < LINE && means_itself(word);
    let mut field = Field::new(out, name);
    let (mut start, mut end, mut at) = (None, 0, 0);
    for word in text.split(' ') {
        if !plain(word) {
            start = start.or(Some(at));
            end = at + word.len();
        }
        at += word.len() + 1;
    }
    match start.filter(|_| !text.is_empty()) {
        None => field.literal(text),
        Some(mut start) => {
            if start == end {
                // Only a space too many: it is encoded with a word beside it, since an encoded word is never empty.
                start = text[..start].trim_end_matches(' ').rfind(' ').map_or(0, |space| space + 1);
                end = text[end..].find(|c| c != ' ').map_or(text.len(), |more| {
                    let from = end + more;
                    text[from..].find(' ').map_or(text.len(), |space| from + space)
                });
            }
            // The spaces beside the encoded words stay outside of them: RFC 2047 section 5 (1) wants them there.
            let before = text[..start].strip_suffix(' ');
            field.literal(before.unwrap_or_default());
            field.encoded(&text[start..end], before.is_some());
            // Begins with a space, if there is any.
            field.literal(&text[end..]);
        }
    }
    field.end();
}

/// The value of a header that is not ours. It may have a syntax of its own, so that ASCII is left as it is.
pub(super) fn custom(out: &mut String, name: &str, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) && !text.contains("=?") {
        identifiers(out, name, text);
    } else {
        unstructured(out, name, text);
    }
}

/// A value that must not be encoded: identifiers and URIs, parted by spaces.
pub(super) fn identifiers(out: &mut String, name: &str, text: &str) {
    let mut field = Field::new(out, name);
    field.literal(text);
    field.end();
}

/// A display name (RFC 5322 section 3.2.5).
pub(super) fn phrase(field: &mut Field<'_>, name: &str) {
    let atom = |word: &str| !word.is_empty() && word.len() < LINE && means_itself(word) && word.bytes().all(is_atext);
    if name.split(' ').all(atom) {
        field.literal(name);
    } else if name.len() < LINE - 4 && name.split(' ').all(means_itself) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        field.raw("\"");
        field.raw(&quoted);
        field.raw("\"");
    } else {
        field.encoded(name, false);
    }
}

/// RFC 5322 section 3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> String {
        let mut out = String::new();
        unstructured(&mut out, "Subject", text);
        out
    }

    #[test]
    fn only_what_could_be_misread_is_encoded() {
        for (text, header) in [
            ("", "Subject: \r\n"),
            ("Hello there", "Subject: Hello there\r\n"),
            ("Grüße aus der Stadt", "Subject: =?utf-8?b?R3LDvMOfZQ==?= aus der Stadt\r\n"),
            ("a é b ü c", "Subject: a =?utf-8?b?w6kgYiDDvA==?= c\r\n"),
            ("a  b", "Subject: =?utf-8?q?a__b?=\r\n"),
            ("x a  b y", "Subject: x =?utf-8?q?a__b?= y\r\n"),
            (" a", "Subject: =?utf-8?q?_a?=\r\n"),
            ("a ", "Subject: =?utf-8?q?a_?=\r\n"),
            ("  ", "Subject: =?utf-8?q?__?=\r\n"),
            ("Die Größe passt", "Subject: Die =?utf-8?b?R3LDtsOfZQ==?= passt\r\n"),
            ("viel Größe der Stadt ü", "Subject: viel =?utf-8?b?R3LDtsOfZSBkZXIgU3RhZHQgw7w=?=\r\n"),
            ("é a", "Subject: =?utf-8?b?w6k=?= a\r\n"),
            (" ", "Subject: =?utf-8?q?_?=\r\n"),
            ("Zoë und andere", "Subject: =?utf-8?q?Zo=C3=AB?= und andere\r\n"),
            ("a\tb", "Subject: =?utf-8?b?YQli?=\r\n"),
            ("=?utf-8?q?x?=", "Subject: =?utf-8?b?PT91dGYtOD9xP3g/PQ==?=\r\n"),
        ] {
            assert_eq!(subject(text), header, "{text:?}");
        }
    }

    #[test]
    fn no_line_and_no_encoded_word_is_too_long() {
        for text in ["é".repeat(500), "📬 ".repeat(200), "word ".repeat(200), "x".repeat(800), "你好".repeat(300)]
        {
            let header = subject(&text);
            for line in header.split("\r\n") {
                assert!(line.len() <= LINE, "{line}");
                assert!(line.split(' ').all(|word| word.len() <= ENCODED_WORD), "{line}");
            }
        }
    }
}
