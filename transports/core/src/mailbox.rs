//! Mailboxes: addresses with names.

use std::fmt;
use std::str::FromStr;

use crate::{Address, AddressError};

/// An address with the name that a mail program shows for it (RFC 5322 section 3.4).
///
/// ```
/// use postrider_transport::Mailbox;
///
/// let ada: Mailbox = "Ada Lovelace <ada@example.com>".parse()?;
/// assert_eq!(ada.name(), Some("Ada Lovelace"));
/// assert_eq!(ada.address().domain(), "example.com");
/// # Ok::<(), postrider_transport::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    name: Option<String>,
    address: Address,
}

impl Mailbox {
    /// A mailbox shown under a name. An empty name is none.
    ///
    /// # Errors
    /// When the name holds a control character, a line break among them.
    pub fn new(name: impl Into<String>, address: Address) -> Result<Self, AddressError> {
        let name = name.into();
        let name = name.trim();
        if name.chars().any(char::is_control) {
            return Err(AddressError::new("has a name with a control character"));
        }
        Ok(Self { name: (!name.is_empty()).then(|| name.to_owned()), address })
    }

    /// The name, where there is one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl From<Address> for Mailbox {
    fn from(address: Address) -> Self {
        Self { name: None, address }
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    /// Reads one mailbox as people write it (RFC 5322 section 3.4): `ada@example.com`, `<ada@example.com>`, `Ada <ada@example.com>`,
    /// `"Lovelace, Ada" <ada@example.com>`.
    ///
    /// A name is text. Without quotes it may hold what RFC 5322 would have quoted, save `,` `;` `<` `>` `@`; parentheses and
    /// encoded words (RFC 2047) in it are taken to the letter.
    ///
    /// # Errors
    /// When it is no mailbox, or more than one: a list or a group.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let Some(start) = outside_quotes(text, &['<']) else {
            return match text.parse::<Address>() {
                Ok(address) => Ok(address.into()),
                Err(_) if outside_quotes(text, &[',', ';']).is_some() => Err(several()),
                Err(_) if text.ends_with('>') => Err(AddressError::new("has a > without a <")),
                Err(_) if text.ends_with(')') => Err(AddressError::new("has a comment behind it")),
                Err(error) => Err(error),
            };
        };
        let (name, rest) = (&text[..start], &text[start + 1..]);
        let end = outside_quotes(rest, &['>']).ok_or(AddressError::new("has a < without a >"))?;
        match rest[end + 1..].trim_start().chars().next() {
            None => Mailbox::new(display_name(name.trim())?, rest[..end].trim().parse()?),
            Some(',' | ';' | '<') => Err(several()),
            Some(_) => Err(AddressError::new("has something behind the >")),
        }
    }
}

/// Where the first of these characters is that stands in no quoted string.
fn outside_quotes(text: &str, wanted: &[char]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().find_map(|(at, character)| {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted && wanted.contains(&character) => return Some(at),
            _ => {}
        }
        None
    })
}

/// A name with its quotes and backslashes taken away (RFC 5322 section 3.2.4). Quotes need not be around the whole.
fn display_name(text: &str) -> Result<String, AddressError> {
    // Without quotes these never belong to a name (RFC 5322 section 3.2.3): it is a list, or the end of a group.
    if outside_quotes(text, &[',', ';', '>', '@']).is_some() {
        return Err(AddressError::new("is more than one mailbox, or its name needs quotes"));
    }
    let mut name = String::with_capacity(text.len());
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => name.extend(characters.next()),
            other => name.push(other),
        }
    }
    Ok(name)
}

fn several() -> AddressError {
    AddressError::new("is more than one mailbox: give each by itself")
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// What a builder takes for a mailbox: a text such as `"Ada <ada@example.com>"`, an [`Address`], a [`Mailbox`], or a pair
/// of name and address.
pub trait IntoMailbox {
    /// Validates.
    ///
    /// # Errors
    /// When the text is no address.
    fn into_mailbox(self) -> Result<Mailbox, AddressError>;
}

impl IntoMailbox for Mailbox {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        Ok(self)
    }
}

impl IntoMailbox for Address {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        Ok(self.into())
    }
}

impl IntoMailbox for &str {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        self.parse()
    }
}

impl IntoMailbox for String {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        self.parse()
    }
}

impl IntoMailbox for &String {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        self.parse()
    }
}

impl<N: Into<String>, A: AsRef<str>> IntoMailbox for (N, A) {
    fn into_mailbox(self) -> Result<Mailbox, AddressError> {
        Mailbox::new(self.0, self.1.as_ref().parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_local_part() {
        let mailbox: Mailbox = "Ada Lovelace <ada@example.com>".parse().unwrap();
        let shown = format!("{mailbox:?} {:?}", mailbox.address());
        assert!(!shown.contains("ada@") && !shown.contains("Lovelace"), "{shown}");
    }

    #[test]
    fn reads_the_forms_people_write() {
        for (text, name, address) in [
            ("ada@example.com", None, "ada@example.com"),
            (" <ada@example.com> ", None, "ada@example.com"),
            ("Ada Lovelace < ada@example.com >", Some("Ada Lovelace"), "ada@example.com"),
            (r#""Lovelace, \"Ada\"" <ada@example.com>"#, Some(r#"Lovelace, "Ada""#), "ada@example.com"),
            (r#""Ada" Lovelace <ada@example.com>"#, Some("Ada Lovelace"), "ada@example.com"),
            (r#""a <b@c.example>, \\" <ada@example.com>"#, Some(r"a <b@c.example>, \"), "ada@example.com"),
            ("Ada (Lovelace) <ada@example.com>", Some("Ada (Lovelace)"), "ada@example.com"),
            ("Dr. Ada: x <ada@example.com>", Some("Dr. Ada: x"), "ada@example.com"),
            ("=?utf-8?q?Ada?= <ada@example.com>", Some("=?utf-8?q?Ada?="), "ada@example.com"),
            (r#""a, b"@example.com"#, None, r#""a, b"@example.com"#),
            (r#"Ada <"a, b"@example.com>"#, Some("Ada"), r#""a, b"@example.com"#),
            (r#""" <ada@example.com>"#, None, "ada@example.com"),
        ] {
            let mailbox: Mailbox = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((mailbox.name(), mailbox.address().as_str()), (name, address), "{text}");
        }
    }

    #[test]
    fn what_is_more_than_one_or_not_whole_is_told() {
        for (text, why) in [
            (r#""L, Ada" <ada@example.com>, "B" <bob@example.com>"#, "more than one"),
            (r#""L, Ada" <ada@example.com>; "B" <bob@example.com>"#, "more than one"),
            (r#""L" <ada@example.com> "B" <bob@example.com>"#, "behind the >"),
            ("<ada@example.com>, <bob@example.com>", "more than one"),
            ("<ada@example.com><bob@example.com>", "more than one"),
            ("Ada <ada@example.com>,", "more than one"),
            ("Ada <a@b.example>, Bob <b@c.example>", "more than one"),
            ("a@b.example, Bob <b@c.example>", "more than one"),
            ("Lovelace, Ada <a@b.example>", "needs quotes"),
            ("ada@example.com, bob@example.com", "more than one"),
            ("ada@example.com;bob@example.com", "more than one"),
            ("ada@example.com bob@example.com", "not allowed"),
            ("Friends: ada@example.com, bob@example.com;", "more than one"),
            ("Friends: Ada <ada@example.com>;", "more than one"),
            ("undisclosed-recipients:;", "more than one"),
            ("ada@example.com (Ada)", "comment"),
            ("Ada <ada@example.com> (Ada)", "behind the >"),
            ("Ada <ada@example.com> x", "behind the >"),
            ("Ada <ada@example.com", "without a >"),
            ("Ada ada@example.com>", "without a <"),
            (r#""Ada <ada@example.com>"#, "without a <"),
            ("Ada <>", "no @"),
            ("", "no @"),
            ("Ada\r\nBcc: x <ada@example.com>", "control"),
        ] {
            let error = text.parse::<Mailbox>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(!error.contains("ada") && !error.contains("example"), "{error}");
        }
    }
}
