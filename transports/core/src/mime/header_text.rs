//! Header text: folding (RFC 5322) and encoded words (RFC 2047).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The maximum length of a line with an encoded word (RFC 2047 section 2). RFC 5322 section 2.1.1 recommends 78 for other lines.
pub(super) const LINE: usize = 76;

/// The maximum length of an encoded word, delimiters included (RFC 2047 section 2).
const ENCODED_WORD: usize = 75;

/// The length of `=?utf-8?b?` and `?=`.
const DELIMITERS: usize = 12;

/// Writes one header and tracks the column.
pub(super) struct Field<'a> {
    out: &'a mut String,
    column: usize,
}

impl<'a> Field<'a> {
    /// Starts a header with its name.
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

    /// Starts a new line. The fold reads as one space.
    pub(super) fn fold(&mut self) {
        self.out.push_str("\r\n ");
        self.column = 1;
    }

    /// Whether this many octets fit into the line.
    pub(super) fn fits(&self, octets: usize) -> bool {
        self.column + octets <= LINE
    }

    /// Writes a space and the text. Folds at the space if the text does not fit into the line.
    pub(super) fn word(&mut self, text: &str) {
        if self.fits(1 + text.len()) {
            self.raw(" ");
        } else {
            self.fold();
        }
        self.raw(text);
    }

    /// Writes unencoded text, folded at spaces. Of several spaces, only one becomes a fold, so that unfolding restores all of them
    /// (RFC 5322 section 2.2.3).
    pub(super) fn literal(&mut self, text: &str) {
        for (index, word) in text.split(' ').enumerate() {
            match (index, word) {
                (0, _) => self.raw(word),
                (_, "") => self.raw(" "),
                _ => self.word(word),
            }
        }
    }

    /// Writes the text as encoded words. `apart`: whether to write a space first.
    ///
    /// A parser removes white space between two encoded words (RFC 2047 section 6.2), so all white space of the text is inside them. A
    /// character is never split, and the Q encoding escapes most characters, as section 5 (3) requires in a name.
    pub(super) fn encoded(&mut self, text: &str, mut apart: bool) {
        let escaped = text.bytes().filter(|byte| !is_q_safe(*byte)).count();
        let q = text.len() + 2 * escaped <= text.len().div_ceil(3) * 4;
        let mut rest = text;
        while !rest.is_empty() {
            let room = LINE.saturating_sub(self.column + usize::from(apart)).min(ENCODED_WORD);
            let mut chunk = fitting_prefix(rest, room.saturating_sub(DELIMITERS), q);
            // Too little space is left in this line: a fold avoids a short encoded word.
            if chunk.len() < rest.len().min(12) && self.column > 1 {
                self.fold();
                chunk = fitting_prefix(rest, ENCODED_WORD - DELIMITERS, q);
            } else if apart {
                self.raw(" ");
            }
            apart = false;
            // Some mail programs show the white space between encoded words. It does less harm next to a space.
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
                    byte if is_q_safe(byte) => self.out.push(char::from(byte)),
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

/// The longest prefix of whole characters that fits into `room` octets once encoded.
fn fitting_prefix(text: &str, room: usize, q: bool) -> &str {
    let (mut end, mut used) = (0, 0);
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        used += text[at..next].bytes().map(|byte| if is_q_safe(byte) { 1 } else { 3 }).sum::<usize>();
        let size = if q { used } else { next.div_ceil(3) * 4 };
        if size > room {
            break;
        }
        end = next;
    }
    &text[..end]
}

/// Whether an octet needs no escape in the Q encoding, in any place (RFC 2047 section 5 (3)). A space becomes `_`.
fn is_q_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" !*+-/".contains(&byte)
}

pub(super) fn hex(digit: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(digit & 15)])
}

/// Whether a word is printable ASCII without spaces, and no part of it looks like an encoded word.
fn is_literal(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_graphic()) && !word.contains("=?")
}

/// Writes free text, such as a subject. Encodes the range from the first to the last word that a parser could misread.
pub(super) fn unstructured(out: &mut String, name: &str, text: &str) {
    // An empty word is a repeated space, which some mail programs drop.
    let plain = |word: &str| !word.is_empty() && word.len() < LINE && is_literal(word);
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
                // Only a repeated space: encode it with the words beside it, because an encoded word is never empty.
                start = text[..start].trim_end_matches(' ').rfind(' ').map_or(0, |space| space + 1);
                end = text[end..].find(|c| c != ' ').map_or(text.len(), |more| {
                    let from = end + more;
                    text[from..].find(' ').map_or(text.len(), |space| from + space)
                });
            }
            // RFC 2047 section 5 (1) requires a space outside the encoded words on both sides.
            let before = text[..start].strip_suffix(' ');
            field.literal(before.unwrap_or_default());
            field.encoded(&text[start..end], before.is_some());
            // Starts with a space unless it is empty.
            field.literal(&text[end..]);
        }
    }
    field.end();
}

/// Writes a custom header. ASCII is not encoded, because the value may have a syntax of its own.
pub(super) fn custom(out: &mut String, name: &str, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) && !text.contains("=?") {
        identifiers(out, name, text);
    } else {
        unstructured(out, name, text);
    }
}

/// Writes a value that must not be encoded: identifiers or URIs, separated by spaces.
pub(super) fn identifiers(out: &mut String, name: &str, text: &str) {
    let mut field = Field::new(out, name);
    field.literal(text);
    field.end();
}

/// Writes a display name (RFC 5322 section 3.2.5).
pub(super) fn phrase(field: &mut Field<'_>, name: &str) {
    let atom = |word: &str| !word.is_empty() && word.len() < LINE && is_literal(word) && word.bytes().all(is_atext);
    if name.split(' ').all(atom) {
        field.literal(name);
    } else if name.len() < LINE - 4 && name.split(' ').all(is_literal) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        field.raw("\"");
        field.raw(&quoted);
        field.raw("\"");
    } else {
        field.encoded(name, false);
    }
}

/// Whether an octet is allowed in an atom (RFC 5322 section 3.2.3).
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
    fn only_misreadable_text_is_encoded() {
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
