//! The relaxed canonicalization (RFC 6376 section 3.4).

use memchr::memchr_iter;
use ring::digest::{Context, Digest, SHA256};

/// Splits a header into fields: each name with its whole field, without the CRLF at the end.
pub(super) fn fields(header: &str) -> Vec<(&str, &str)> {
    let mut fields = Vec::new();
    let mut start = 0;
    for end in memchr_iter(b'\n', header.as_bytes()) {
        if !matches!(header.as_bytes().get(end + 1), Some(b' ' | b'\t')) {
            let field = header[start..end].trim_end_matches('\r');
            if let Some((name, _)) = field.split_once(':') {
                fields.push((name, field));
            }
            start = end + 1;
        }
    }
    fields
}

/// Canonicalizes a field, without the CRLF at the end. Section 3.4.2: the name in lower case, the value unfolded, white space in the
/// value as one space, and none around it.
pub(super) fn field(field: &str, out: &mut String) {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    out.extend(name.trim_end().chars().map(|c| c.to_ascii_lowercase()));
    out.push(':');
    let words = value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        out.extend([if index > 0 { " " } else { "" }, word]);
    }
}

/// Hashes the canonical form of a body with CRLF line ends.
///
/// Section 3.4.4: white space at line ends and empty lines at the end of the body are removed. Other white space becomes one space. The
/// canonical form of an empty body has no octets.
pub(super) fn body_hash(body: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA256);
    let mut reduced = Vec::new();
    let (mut from, mut empty) = (0, 0);
    for end in memchr_iter(b'\n', body).chain([body.len()]) {
        let line = body[from..end].trim_ascii_end();
        from = end + 1;
        if line.is_empty() {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            hash.update(b"\r\n");
        }
        if line.contains(&b'\t') || line.windows(2).any(|pair| pair == b"  ") {
            reduce_white_space(line, &mut reduced);
            hash.update(&reduced);
        } else {
            hash.update(line);
        }
        hash.update(b"\r\n");
    }
    hash.finish()
}

fn reduce_white_space(line: &[u8], out: &mut Vec<u8>) {
    out.clear();
    for byte in line {
        match byte {
            b' ' | b'\t' if out.last() == Some(&b' ') => {}
            b' ' | b'\t' => out.push(b' '),
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of section 3.4.5.
    #[test]
    fn the_header_of_the_rfc_is_canonicalized() {
        let header = "A: X\r\nB : Y\t\r\n\tZ  \r\n";
        let mut out = String::new();
        for (_, whole) in fields(header) {
            field(whole, &mut out);
            out.push_str("\r\n");
        }
        assert_eq!(out, "a:X\r\nb:Y Z\r\n");
    }

    /// The example of section 3.4.5, and empty bodies by section 3.4.4.
    #[test]
    fn the_body_of_the_rfc_is_canonicalized() {
        let hash = |bytes: &[u8]| ring::digest::digest(&SHA256, bytes).as_ref().to_vec();
        for (body, canonical) in [
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C\r\nD E\r\n"[..]),
            (b"", b""),
            (b"\r\n\r\n", b""),
            (b" \t\r\n", b""),
            (b"a", b"a\r\n"),
            (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
            (b"\t a\r\n", b" a\r\n"),
        ] {
            assert_eq!(body_hash(body).as_ref(), hash(canonical), "{body:?}");
        }
    }
}
