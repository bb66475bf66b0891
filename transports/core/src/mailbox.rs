//! Mail addresses with display names.

use std::fmt;
use std::str::FromStr;

use crate::{Address, AddressError};

/// A mail address with an optional display name (RFC 5322 section 3.4).
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
    /// Creates a mailbox with a display name. An empty name counts as none.
    ///
    /// # Errors
    /// If the name has a control character, such as a line break.
    pub fn new(name: impl Into<String>, address: Address) -> Result<Self, AddressError> {
        let name = name.into();
        let name = name.trim();
        if name.chars().any(char::is_control) {
            return Err(AddressError::new("has a name with a control character"));
        }
        Ok(Self { name: (!name.is_empty()).then(|| name.to_owned()), address })
    }

    /// The display name. `None` if there is none.
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

    /// Parses one mailbox (RFC 5322 section 3.4): `ada@example.com`, `<ada@example.com>`, `Ada <ada@example.com>` or
    /// `"Lovelace, Ada" <ada@example.com>`.
    ///
    /// A name without quotes may have any character except `,` `;` `<` `>` and `@`. Parentheses and encoded words (RFC 2047) are not
    /// interpreted.
    ///
    /// # Errors
    /// If the text is not a mailbox, or has more than one: a list or a group.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let Some(start) = outside_quotes(text, &['<']) else {
            return match text.parse::<Address>() {
                Ok(address) => Ok(address.into()),
                Err(_) if outside_quotes(text, &[',', ';']).is_some() => Err(more_than_one()),
                Err(_) if text.ends_with('>') => Err(AddressError::new("has a > without a <")),
                Err(_) if text.ends_with(')') => Err(AddressError::new("has a comment after it")),
                Err(error) => Err(error),
            };
        };
        let (name, rest) = (&text[..start], &text[start + 1..]);
        let end = outside_quotes(rest, &['>']).ok_or(AddressError::new("has a < without a >"))?;
        match rest[end + 1..].trim_start().chars().next() {
            None => Mailbox::new(display_name(name.trim())?, rest[..end].trim().parse()?),
            Some(',' | ';' | '<') => Err(more_than_one()),
            Some(_) => Err(AddressError::new("has text after the >")),
        }
    }
}

/// The index of the first of these characters outside quoted strings.
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

/// Removes quotes and backslashes from a display name (RFC 5322 section 3.2.4). A part of the name may be quoted.
fn display_name(text: &str) -> Result<String, AddressError> {
    // Not allowed outside quotes (RFC 5322 section 3.2.3): the text is a list, or the end of a group.
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

fn more_than_one() -> AddressError {
    AddressError::new("is more than one mailbox: pass them one by one")
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A value that converts to a [`Mailbox`]: a text such as `"Ada <ada@example.com>"`, an [`Address`], a [`Mailbox`], or a pair of name
/// and address.
pub trait IntoMailbox {
    /// Converts and validates.
    ///
    /// # Errors
    /// If the text is not a mailbox.
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
    fn debug_masks_name_and_local_part() {
        let mailbox: Mailbox = "Ada Lovelace <ada@example.com>".parse().unwrap();
        let shown = format!("{mailbox:?} {:?}", mailbox.address());
        assert!(!shown.contains("ada@") && !shown.contains("Lovelace"), "{shown}");
    }

    #[test]
    fn common_forms_are_parsed() {
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
    fn lists_and_incomplete_mailboxes_are_refused() {
        for (text, why) in [
            (r#""L, Ada" <ada@example.com>, "B" <bob@example.com>"#, "more than one"),
            (r#""L, Ada" <ada@example.com>; "B" <bob@example.com>"#, "more than one"),
            (r#""L" <ada@example.com> "B" <bob@example.com>"#, "after the >"),
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
            ("Ada <ada@example.com> (Ada)", "after the >"),
            ("Ada <ada@example.com> x", "after the >"),
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
