//! What is long in a stored mail, which is the bodies and what is attached.
//!
//! It stands behind the JSON object, each text after a line feed and as it is, and in its place within the object stands how many
//! octets of UTF-8 it has. To escape a long text, and to take the escapes out again, would cost several times what all else does that
//! is written and read of a mail. A string in that place is read as well.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::CodecError;

pub(super) struct LongText<'a> {
    /// Empty until it is read, where it stands behind the object.
    text: Cow<'a, str>,
    /// How many octets of it stand behind the object; nothing where it stands within.
    behind: Option<usize>,
}

impl<'a> LongText<'a> {
    /// A text that is to stand behind the object. One with a NUL, for which PostgreSQL has no place, stays within, which spells it out.
    pub(super) fn new(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let behind = memchr(0, text.as_bytes()).is_none().then_some(text.len());
        Self { text, behind }
    }

    pub(super) fn into_text(self) -> Cow<'a, str> {
        self.text
    }
}

/// Puts behind the object what is to stand there.
pub(super) fn write<'t, 'a: 't>(texts: impl Iterator<Item = &'t mut LongText<'a>>, body: &mut String) {
    let behind: Vec<&str> = texts.filter(|long| long.behind.is_some()).map(|long| &*long.text).collect();
    body.reserve(behind.iter().map(|text| text.len() + 1).sum());
    for text in behind {
        body.push('\n');
        body.push_str(text);
    }
}

/// Takes the texts out of what stands behind the object. Nothing may be left over, since a wrong length moves words from one text into
/// the next. Where no text stands there, blanks may, as after any JSON (RFC 8259 section 2).
pub(super) fn read<'t, 'a: 't>(
    texts: impl Iterator<Item = &'t mut LongText<'a>>,
    behind: &'a str,
) -> Result<(), CodecError> {
    let (mut rest, mut any) = (behind, false);
    for long in texts {
        let Some(octets) = long.behind else { continue };
        let found = rest.strip_prefix('\n').and_then(|text| text.split_at_checked(octets));
        let (text, more) = found.ok_or_else(|| CodecError::new("the stored mail is damaged: a text is cut off"))?;
        long.text = Cow::Borrowed(text);
        (rest, any) = (more, true);
    }
    if !any {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(CodecError::new("the stored mail is damaged: there is more than it speaks of"))
}

impl Serialize for LongText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.behind {
            Some(octets) => octets.serialize(serializer),
            None => self.text.serialize(serializer),
        }
    }
}

/// By hand, because serde's own way to tell the two apart takes a copy of everything first.
impl<'de: 'a, 'a> Deserialize<'de> for LongText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = LongText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a length")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(LongText { text: Cow::Borrowed(text), behind: None })
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LongText { text: Cow::Owned(text.to_owned()), behind: None })
            }

            fn visit_u64<E>(self, octets: u64) -> Result<Self::Value, E> {
                // No text is as long as what does not fit.
                Ok(LongText { text: Cow::Borrowed(""), behind: Some(usize::try_from(octets).unwrap_or(usize::MAX)) })
            }
        }

        deserializer.deserialize_any(Either)
    }
}
