//! Mail addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use email_address::{EmailAddress, Options};
use serde::{Deserialize, Serialize};

/// A valid mail address: `local-part@domain` (RFC 5321 section 4.1.2).
///
/// The domain is in ASCII: parsing converts an internationalised domain to punycode (RFC 5891). A local part outside ASCII is kept
/// (RFC 6531), and needs a transport that supports it.
///
/// `Debug` masks the local part, and there is no `Display`, so that no address gets into a log by accident. Only
/// [`as_str`](Self::as_str) shows the whole address.
///
/// ```
/// use postrider_transport::Address;
///
/// let address: Address = "ada@bücher.example".parse()?;
/// assert_eq!(address.as_str(), "ada@xn--bcher-kva.example");
/// assert!("ada@example.com\r\nBcc: eve@example.com".parse::<Address>().is_err());
/// # Ok::<(), postrider_transport::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    whole: String,
    at: usize,
}

impl Address {
    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// The part before the `@`, with its quotes if it has any.
    pub fn local_part(&self) -> &str {
        &self.whole[..self.at]
    }

    /// The part after the `@`, in ASCII.
    pub fn domain(&self) -> &str {
        &self.whole[self.at + 1..]
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(at) = parse_common(text) {
            return Ok(Self { whole: text.to_owned(), at });
        }
        Self::parse_any(text)
    }
}

impl Address {
    /// Checks whether a text parses.
    pub(crate) fn check(text: &str) -> Result<(), AddressError> {
        if parse_common(text).is_none() {
            Self::parse_any(text)?;
        }
        Ok(())
    }

    /// Parses any valid form.
    fn parse_any(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::new("has no @"))?;
        if text.chars().any(char::is_control) {
            return Err(AddressError::new("has a control character"));
        }
        let domain = match domain.strip_prefix('[') {
            Some(literal) => address_literal(literal)?,
            None => {
                idna::domain_to_ascii(domain).map_err(|_| AddressError::new("has a domain that is not a host name"))?
            }
        };
        let whole = format!("{local}@{domain}");
        // RFC 5321 section 4.5.3.1.3 limits a path to 256 octets, two of which are its brackets.
        if whole.len() > 254 {
            return Err(AddressError::new("is longer than 254 octets"));
        }
        let options = Options::default().without_display_text().with_no_minimum_sub_domains();
        EmailAddress::parse_with_options(&whole, options).map_err(|error| AddressError::new(reason(&error)))?;
        Ok(Self { at: local.len(), whole })
    }
}

/// Returns the index of the `@` if the address has the common form: lower-case letters and digits, with single `-`, `_`, `+` and `.`
/// between them.
///
/// No rule refuses or changes such an address. Nearly all addresses have this form, and the full rules take many times as long.
fn parse_common(text: &str) -> Option<usize> {
    let at = text.find('@')?;
    let (local, domain) = (&text.as_bytes()[..at], &text.as_bytes()[at + 1..]);
    let is_plain = |part: &[u8], marks: &[u8]| {
        let mut after_mark = true;
        let words = part.iter().all(|b| {
            let mark = marks.contains(b);
            let fits = if mark { !after_mark } else { b.is_ascii_lowercase() || b.is_ascii_digit() };
            after_mark = mark;
            fits
        });
        words && !after_mark
    };
    // At this length no label is too long. `xn--` is excluded: it has two marks in a row.
    let fits = local.len() <= 64 && domain.len() <= 63 && is_plain(local, b".-_+") && is_plain(domain, b".-");
    fits.then_some(at)
}

/// Normalises an address literal: `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3). `rest` follows the first bracket.
fn address_literal(rest: &str) -> Result<String, AddressError> {
    let malformed = || AddressError::new("has a malformed address literal");
    let inner = rest.strip_suffix(']').ok_or_else(malformed)?;
    match inner.strip_prefix("IPv6:") {
        Some(v6) => v6.parse::<Ipv6Addr>().map(|v6| format!("[IPv6:{v6}]")).map_err(|_| malformed()),
        None => inner.parse::<Ipv4Addr>().map(|v4| format!("[{v4}]")).map_err(|_| malformed()),
    }
}

fn reason(error: &email_address::Error) -> &'static str {
    use email_address::Error as E;
    match error {
        E::LocalPartEmpty => "has nothing before the @",
        E::LocalPartTooLong => "has more than 64 octets before the @",
        E::DomainEmpty => "has nothing after the @",
        E::DomainTooLong | E::SubDomainTooLong => "has a domain that is too long",
        E::SubDomainEmpty | E::DomainInvalidSeparator => "has a domain with an empty label",
        E::UnbalancedQuotes => "has unbalanced quotes",
        E::InvalidIPAddress | E::UnsupportedDomainLiteral => "has a malformed address literal",
        _ => "has a character that is not allowed there",
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.whole
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::mask_addresses(&self.whole))
    }
}

/// A text is not a mail address.
///
/// The error does not repeat the text, which may be a real address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError {
    what: &'static str,
}

impl AddressError {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address {}", self.what)
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_addresses_are_refused() {
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@@example.com",
            "ada@exa mple.com",
            "ada@example..com",
            "ada lovelace@example.com",
            "ada@example.com\r\nRCPT TO:<eve@example.com>",
            "ada@example.com\n",
            "\"a\r\nb\"@example.com",
            "ada\0@example.com",
            "ada@example.com>",
            "<ada@example.com>",
            "ada,bob@example.com",
            "ada@example.com,bob@example.com",
            "a(comment)@example.com",
            "ada@[300.1.1.1]",
            "ada@[127.0.0.1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "accepted {bad:?}");
        }
        assert!(format!("{}@example.com", "a".repeat(65)).parse::<Address>().is_err());
        assert!(format!("a@{}.com", "b".repeat(64)).parse::<Address>().is_err());
    }

    #[test]
    fn valid_addresses_are_accepted() {
        for good in [
            "a@b",
            "ada+tag@example.com",
            "\"a b\"@example.com",
            "o'hara@example.com",
            "ada@[127.0.0.1]",
            "пошта@example.com",
        ] {
            assert!(good.parse::<Address>().is_ok(), "refused {good:?}");
        }
    }

    proptest! {
        #[test]
        fn both_parsers_agree_on_the_common_form(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["@", ".", "-", "_", "+", "a", "7", "xn", "ex", "com", "A", "é", "\"", "long-and-longer"]),
                0..14,
            ),
            local in "[a-z0-9.+_-]{0,70}",
            domain in "[a-z0-9.-]{0,70}",
        ) {
            for text in [pieces.concat(), format!("{local}@{domain}")] {
                if let Some(at) = parse_common(&text) {
                    let address = Address::parse_any(&text);
                    prop_assert_eq!(address, Ok(Address { whole: text.clone(), at }), "{}", text);
                }
            }
        }
    }

    #[test]
    fn the_common_form_covers_ordinary_addresses() {
        for usual in ["ada@example.com", "ada.lovelace+tag@mail-1.example.co.uk", "a@b", "order_7@shop.example"] {
            assert_eq!(parse_common(usual), usual.find('@'), "{usual}");
        }
        for other in
            ["Ada@example.com", "ada@xn--bcher-kva.example", "ada@Example.com", "a..b@example.com", "a@b.", "@b", "a@"]
        {
            assert_eq!(parse_common(other), None, "{other}");
        }
    }
}
