//! Validated mail addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use email_address::{EmailAddress, Options};
use serde::{Deserialize, Serialize};

use crate::Recipient;

/// An address that SMTP can carry: `local-part@domain` (RFC 5321 section 4.1.2).
///
/// The domain is always ASCII: an internationalised one is turned into its punycode form (RFC 5891) when
/// the address is parsed. A local part outside ASCII is kept (RFC 6531) and needs a transport that can carry it.
///
/// `Debug` hides the local part, and there is no `Display`: [`as_str`](Self::as_str) is the one way to read the whole
/// address, so that none reaches a log by accident.
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

    /// What stands before the `@`, quotes included where it has them.
    pub fn local_part(&self) -> &str {
        &self.whole[..self.at]
    }

    /// What stands after the `@`, in ASCII.
    pub fn domain(&self) -> &str {
        &self.whole[self.at + 1..]
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(at) = plain(text) {
            return Ok(Self { whole: text.to_owned(), at });
        }
        Self::checked(text)
    }
}

impl Address {
    /// Whether a text can be parsed.
    pub(crate) fn check(text: &str) -> Result<(), AddressError> {
        if plain(text).is_none() {
            Self::checked(text)?;
        }
        Ok(())
    }

    /// By all the rules.
    fn checked(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::new("has no @"))?;
        if text.chars().any(char::is_control) {
            return Err(AddressError::new("has a control character"));
        }
        let domain = match domain.strip_prefix('[') {
            Some(literal) => address_literal(literal)?,
            None => {
                idna::domain_to_ascii(domain).map_err(|_| AddressError::new("has a domain that is no host name"))?
            }
        };
        let whole = format!("{local}@{domain}");
        // The path of RFC 5321 section 4.5.3.1.3 is 256 octets, its two brackets included.
        if whole.len() > 254 {
            return Err(AddressError::new("is longer than 254 octets"));
        }
        let options = Options::default().without_display_text().with_no_minimum_sub_domains();
        EmailAddress::parse_with_options(&whole, options).map_err(|error| AddressError::new(reason(&error)))?;
        Ok(Self { at: local.len(), whole })
    }
}

/// Where the `@` is in an address of the usual form, which no rule changes or refuses: small letters, digits and single `-`, `_`,
/// `+`, `.` between them. Nearly all are, and the whole of the rules takes many times as long.
fn plain(text: &str) -> Option<usize> {
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
    // No label of such a domain is too long, and `xn--` has two marks in a row.
    let fits = local.len() <= 64 && domain.len() <= 63 && is_plain(local, b".-_+") && is_plain(domain, b".-");
    fits.then_some(at)
}

/// The rest of `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3), as the whole.
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

impl From<&Address> for Recipient {
    fn from(address: &Address) -> Recipient {
        Recipient::new(address.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::mask_addresses(&self.whole))
    }
}

/// Why a text is no address. The text itself is not repeated: it may be somebody's address.
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
    fn refuses_what_could_inject_or_cannot_be_sent() {
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
    fn accepts_what_rfc_5321_allows() {
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
        fn the_usual_form_is_taken_as_all_the_rules_would(
            pieces in prop::collection::vec(
                prop::sample::select(vec!["@", ".", "-", "_", "+", "a", "7", "xn", "ex", "com", "A", "é", "\"", "long-and-longer"]),
                0..14,
            ),
            local in "[a-z0-9.+_-]{0,70}",
            domain in "[a-z0-9.-]{0,70}",
        ) {
            for text in [pieces.concat(), format!("{local}@{domain}")] {
                if let Some(at) = plain(&text) {
                    let address = Address::checked(&text);
                    prop_assert_eq!(address, Ok(Address { whole: text.clone(), at }), "{}", text);
                }
            }
        }
    }

    #[test]
    fn the_usual_form_is_what_most_addresses_have() {
        for usual in ["ada@example.com", "ada.lovelace+tag@mail-1.example.co.uk", "a@b", "order_7@shop.example"] {
            assert_eq!(plain(usual), usual.find('@'), "{usual}");
        }
        for other in
            ["Ada@example.com", "ada@xn--bcher-kva.example", "ada@Example.com", "a..b@example.com", "a@b.", "@b", "a@"]
        {
            assert_eq!(plain(other), None, "{other}");
        }
    }
}
