//! The long texts of a stored mail: bodies and attachments.
//!
//! They follow the JSON object, each after a line feed and unescaped. The object has the length of each text in octets of UTF-8 instead
//! of the text. Escaping long texts as JSON strings would take several times as long as the rest of encoding and decoding. A string in
//! place of the length is read as well.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::CodecError;

pub(super) struct LongText<'a> {
    /// The text. Empty until [`read`] if it follows the object.
    text: Cow<'a, str>,
    /// The length in octets of the text after the object. `None` if the text is a string in the object.
    trailing: Option<usize>,
}

impl<'a> LongText<'a> {
    /// A text to write after the object. A text with NUL becomes a string in the object, which escapes it for PostgreSQL.
    pub(super) fn new(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let trailing = memchr(0, text.as_bytes()).is_none().then_some(text.len());
        Self { text, trailing }
    }

    pub(super) fn into_text(self) -> Cow<'a, str> {
        self.text
    }
}

/// Appends the trailing texts to the body.
pub(super) fn write<'t, 'a: 't>(texts: impl Iterator<Item = &'t mut LongText<'a>>, body: &mut String) {
    let trailing: Vec<&str> = texts.filter(|long| long.trailing.is_some()).map(|long| &*long.text).collect();
    body.reserve(trailing.iter().map(|text| text.len() + 1).sum());
    for text in trailing {
        body.push('\n');
        body.push_str(text);
    }
}

/// Reads the trailing texts.
///
/// Text that is left over is an error, because a wrong length moves text from one field to the next. Without trailing texts, white space
/// may follow the object (RFC 8259 section 2).
pub(super) fn read<'t, 'a: 't>(
    texts: impl Iterator<Item = &'t mut LongText<'a>>,
    trailing: &'a str,
) -> Result<(), CodecError> {
    let (mut rest, mut any) = (trailing, false);
    for long in texts {
        let Some(octets) = long.trailing else { continue };
        let found = rest.strip_prefix('\n').and_then(|text| text.split_at_checked(octets));
        let (text, more) = found.ok_or_else(|| CodecError::new("the stored mail is malformed: a text is truncated"))?;
        long.text = Cow::Borrowed(text);
        (rest, any) = (more, true);
    }
    if !any {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(CodecError::new("the stored mail is malformed: text is left over at its end"))
}

impl Serialize for LongText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.trailing {
            Some(octets) => octets.serialize(serializer),
            None => self.text.serialize(serializer),
        }
    }
}

/// Written by hand, because serde's untagged enums copy the input first.
impl<'de: 'a, 'a> Deserialize<'de> for LongText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LongTextVisitor;

        impl<'de> Visitor<'de> for LongTextVisitor {
            type Value = LongText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a length")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(LongText { text: Cow::Borrowed(text), trailing: None })
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LongText { text: Cow::Owned(text.to_owned()), trailing: None })
            }

            fn visit_u64<E>(self, octets: u64) -> Result<Self::Value, E> {
                // A length that does not fit is longer than any text, so `read` refuses it.
                Ok(LongText { text: Cow::Borrowed(""), trailing: Some(usize::try_from(octets).unwrap_or(usize::MAX)) })
            }
        }

        deserializer.deserialize_any(LongTextVisitor)
    }
}
