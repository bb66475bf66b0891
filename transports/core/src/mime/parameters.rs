//! Header parameters (RFC 2045 section 5.1, RFC 2231).

use super::header_text::{Field, hex};
use crate::email::media_type::{MediaType, is_token};

/// Writes the header `Content-Type`.
pub(super) fn content_type(media_type: &MediaType<'_>, out: &mut String) {
    let mut field = Field::new(out, "Content-Type");
    field.raw(media_type.essence);
    for (name, value) in &media_type.parameters {
        if is_token(value) {
            field.raw(";");
            field.word(&format!("{name}={value}"));
        } else {
            parameter(&mut field, name, value);
        }
    }
    field.end();
}

/// Writes `; name="value"`.
///
/// A long value, or one that a quoted string cannot hold or some mail programs misread, gets the form of RFC 2231: percent-encoded UTF-8
/// in one or more sections.
pub(super) fn parameter(field: &mut Field<'_>, name: &str, value: &str) {
    field.raw(";");
    let plain = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic() && b != b'"' && b != b'\\')
        && value.split(' ').all(|word| !word.is_empty() && !word.contains("=?"));
    // RFC 2046 section 5.1.1 allows 70 characters for a boundary.
    if plain && value.len() <= 70 {
        return field.word(&format!("{name}=\"{value}\""));
    }
    let mut pieces = vec![String::from("utf-8''")];
    for character in value.chars() {
        let mut octets = [0; 4];
        let mut encoded = String::new();
        for octet in character.encode_utf8(&mut octets).bytes() {
            // RFC 2231 section 7, attribute-char; RFC 2045's token without `*`, `'` and `%`.
            if octet.is_ascii_alphanumeric() || b"!#$&+-.^_`{|}~".contains(&octet) {
                encoded.push(char::from(octet));
            } else {
                encoded.extend(['%', hex(octet >> 4), hex(octet)]);
            }
        }
        match pieces.last_mut() {
            Some(last) if last.len() + encoded.len() <= 54 => last.push_str(&encoded),
            _ => pieces.push(encoded),
        }
    }
    match &pieces[..] {
        [whole] => field.word(&format!("{name}*={whole}")),
        _ => {
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 {
                    field.raw(";");
                }
                field.word(&format!("{name}*{number}*={piece}"));
            }
        }
    }
}
