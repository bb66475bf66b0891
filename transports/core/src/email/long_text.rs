//! What is long in a stored mail, which is the bodies and what is attached.
//!
//! It stands behind the JSON object, each text on a line of its own and as it is, and in its place within the object stands how many
//! octets of UTF-8 it has. To escape a long text, and to take the escapes out again, would cost several times what all else does that
//! is written and read of a mail. A string in that place is read as well.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::CodecError;

/// A string, or the number of octets of what stands behind the object.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum LongText<'a> {
    Here(Cow<'a, str>),
    Behind(usize),
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
                Ok(LongText::Here(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(LongText::Here(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E: Error>(self, octets: u64) -> Result<Self::Value, E> {
                let octets = usize::try_from(octets);
                octets.map(LongText::Behind).map_err(|_| E::invalid_value(Unexpected::Other("a length"), &self))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// The long texts behind the object, in the order in which they stand there.
#[derive(Default)]
pub(super) struct Behind<'a> {
    texts: Vec<Cow<'a, str>>,
}

impl<'a> Behind<'a> {
    /// Leaves a text for later. One with a NUL, for which databases have no place, stays within the object, which spells it out.
    pub(super) fn put(&mut self, text: impl Into<Cow<'a, str>>) -> LongText<'a> {
        let text = text.into();
        if memchr(0, text.as_bytes()).is_some() {
            return LongText::Here(text);
        }
        let octets = text.len();
        self.texts.push(text);
        LongText::Behind(octets)
    }

    pub(super) fn append_to(&self, body: &mut String) {
        body.reserve(self.texts.iter().map(|text| text.len() + 1).sum());
        for text in &self.texts {
            body.push('\n');
            body.push_str(text);
        }
    }
}

/// What is left of what stands behind the object.
pub(super) struct Rest<'a>(pub(super) &'a str);

impl<'a> Rest<'a> {
    pub(super) fn take(&mut self, text: LongText<'a>) -> Result<Cow<'a, str>, CodecError> {
        let octets = match text {
            LongText::Here(text) => return Ok(text),
            LongText::Behind(octets) => octets,
        };
        let found = self.0.strip_prefix('\n').and_then(|line| line.split_at_checked(octets));
        let (text, rest) = found.ok_or_else(|| CodecError::new("the stored mail is damaged: a text is cut off"))?;
        self.0 = rest;
        Ok(Cow::Borrowed(text))
    }

    /// What follows is blank, as it may be after any JSON.
    pub(super) fn end(self) -> Result<(), CodecError> {
        if self.0.trim_ascii().is_empty() {
            return Ok(());
        }
        Err(CodecError::new("the stored mail is damaged: there is more than it speaks of"))
    }
}
