//! The download of an attachment: the browser never shows it, and its file name is made safe.

use axum::http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters of a parameter that need no encoding (RFC 8187 section 3.2.1, `attr-char`).
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The longest name in characters.
const MAX_LENGTH: usize = 120;

/// The headers of a download. The type is always `application/octet-stream`, so that no browser shows or runs it.
pub(super) fn headers(file_name: &str) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, disposition(file_name)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"),
        ),
    ]
}

/// `Content-Disposition` with the name in ASCII and, if that differs, in UTF-8 (RFC 6266 section 4.3).
fn disposition(file_name: &str) -> HeaderValue {
    let name = safe_name(file_name);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | '-' | '_' | '(' | ')' | '+');
    let ascii: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut value = format!("attachment; filename=\"{ascii}\"");
    if ascii != name {
        value.push_str(&format!("; filename*=UTF-8''{}", utf8_percent_encode(&name, ATTR_CHAR)));
    }
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}

/// The name without a path, and without characters that hide what it is: controls, and those that change the direction of the text.
pub(super) fn safe_name(file_name: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let last = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean = last.chars().filter(|c| !is_hidden(*c)).map(|c| if r#"<>:"|?*"#.contains(c) { '_' } else { c });
    let clean: String = clean.collect();
    // A leading dot hides a file, and Windows drops dots and spaces at the end.
    let clean = clean.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']);
    let length = clean.chars().count();
    // The end is kept, since it shows what the file is.
    let kept: String = clean.chars().skip(length.saturating_sub(MAX_LENGTH)).collect();
    if kept.is_empty() { "attachment".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe() {
        for (name, safe) in [
            ("invoice.pdf", "invoice.pdf"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\cmd.exe", "cmd.exe"),
            ("..", "attachment"),
            (".bashrc", "bashrc"),
            ("a/", "attachment"),
            ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
            ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie_ x=1.txt"),
            ("Grüße.txt", "Grüße.txt"),
            ("a\"; filename=\"b.html", "a_; filename=_b.html"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
        assert_eq!(safe_name(&format!("{}.exe", "a".repeat(500))).len(), MAX_LENGTH);
        assert!(safe_name(&format!("{}.exe", "a".repeat(500))).ends_with(".exe"));
    }

    #[test]
    fn the_header_has_the_name_in_ascii_and_in_utf_8() {
        assert_eq!(disposition("a b.pdf"), "attachment; filename=\"a b.pdf\"");
        assert_eq!(
            disposition("Grüße\"; x=1%.txt"),
            "attachment; filename=\"Gr__e__ x_1_.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe_%3B%20x%3D1%25.txt"
        );
    }
}
