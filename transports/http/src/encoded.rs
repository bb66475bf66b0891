//! Text in a header, in ASCII (RFC 2047), for APIs that write a header as they are given it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::Mailbox;

/// An encoded word has at most 75 characters (RFC 2047 section 2), of which 12 stand around the base64: 60 of it are 45 octets.
const OCTETS: usize = 45;

/// The value of a header that holds text. As it is where it is ASCII and reads as what it is; else all of it in encoded words.
pub(crate) fn text(value: &str) -> Cow<'_, str> {
    if is_plain(value) { Cow::Borrowed(value) } else { Cow::Owned(words(value)) }
}

/// Whether a reader shows just these characters.
pub(crate) fn is_plain(value: &str) -> bool {
    value.is_ascii() && !value.contains("=?")
}

/// A mailbox in a header that lists mailboxes (RFC 5322 section 3.4), its name in quotes or in encoded words (RFC 2047 section 5).
pub(crate) fn mailbox(mailbox: &Mailbox) -> String {
    let address = mailbox.address().as_str();
    match mailbox.name() {
        None => address.to_owned(),
        Some(name) if is_plain(name) => format!("{} <{address}>", quoted(name)),
        Some(name) => format!("{} <{address}>", words(name)),
    }
}

/// A quoted string (RFC 5322 section 3.2.4).
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// As many encoded words as it takes. The spaces between them are not shown (RFC 2047 section 6.2).
fn words(text: &str) -> String {
    let mut words = Vec::with_capacity(text.len() / OCTETS + 1);
    let mut rest = text;
    while !rest.is_empty() {
        // Each word holds whole characters (RFC 2047 section 5).
        let (word, after) = rest.split_at(rest.floor_char_boundary(OCTETS));
        words.push(format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use mail_parser::{Address, HeaderValue, MessageParser};
    use postrider_transport::AddressError;

    use super::*;

    /// As another's parser reads it.
    fn read(name: &str, value: &str) -> HeaderValue<'static> {
        let message = format!("{name}: {value}\r\n\r\n");
        let message = MessageParser::default().parse(message.as_bytes()).expect("a message");
        message.header(name).expect("the header").clone().into_owned()
    }

    #[test]
    fn a_reader_shows_the_text_that_was_given() {
        let long = "é".repeat(200) + " und so weiter, " + &"📬 ".repeat(100) + "end";
        for text in ["42", "Zoë", "  spaces  é  ", "=?utf-8?q?not_encoded?=", "a =?x", "é\tè", &long] {
            let value = super::text(text);
            assert!(value.is_ascii() && value.split(' ').all(|word| word.len() <= 75 || word == text), "{value}");
            assert_eq!(read("Subject", &value).as_text(), Some(text), "{value}");
        }
        assert_eq!(super::text("42"), "42", "what needs no encoding has none");
    }

    #[test]
    fn a_list_of_mailboxes_is_read_as_it_was_meant() -> Result<(), AddressError> {
        let names = ["", "Ada Lovelace", "Lovelace, Ada", r#"The "\" of <x>"#, "Zoë; Li, \"Z\"", "=?utf-8?q?x?="];
        let mailboxes: Vec<_> =
            names.iter().map(|name| Mailbox::new(*name, "a@x.example".parse()?)).collect::<Result<_, _>>()?;
        let value = mailboxes.iter().map(mailbox).collect::<Vec<_>>().join(", ");
        let HeaderValue::Address(Address::List(list)) = read("Reply-To", &value) else { panic!("a list") };
        let shown: Vec<_> = list.iter().map(|one| (one.name().unwrap_or_default(), one.address())).collect();
        assert_eq!(shown, names.map(|name| (name, Some("a@x.example"))), "{value}");
        Ok(())
    }
}
