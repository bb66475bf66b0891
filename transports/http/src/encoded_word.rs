//! Header values in ASCII with encoded words (RFC 2047), for APIs that do not encode headers themselves.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_transport::Mailbox;

/// Maximum number of octets in one encoded word.
///
/// A word has at most 75 characters (RFC 2047 section 2): 12 for its delimiters and 60 of base64, which encode 45 octets.
const MAX_WORD_OCTETS: usize = 45;

/// Encodes a text, unless it is plain.
pub(crate) fn encode_text(value: &str) -> Cow<'_, str> {
    if is_plain(value) { Cow::Borrowed(value) } else { Cow::Owned(encode_words(value)) }
}

/// Returns whether a text needs no encoding: it is ASCII and contains nothing that looks like an encoded word.
pub(crate) fn is_plain(value: &str) -> bool {
    value.is_ascii() && !value.contains("=?")
}

/// Formats a mailbox for a header (RFC 5322 section 3.4), with the name quoted or in encoded words (RFC 2047 section 5).
pub(crate) fn encode_mailbox(mailbox: &Mailbox) -> String {
    let address = mailbox.address().as_str();
    match mailbox.name() {
        None => address.to_owned(),
        Some(name) if is_plain(name) => format!("{} <{address}>", quote(name)),
        Some(name) => format!("{} <{address}>", encode_words(name)),
    }
}

/// Formats a quoted string (RFC 5322 section 3.2.4).
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Encodes a text as encoded words. Readers ignore the spaces between them (RFC 2047 section 6.2).
fn encode_words(text: &str) -> String {
    let mut words = Vec::with_capacity(text.len() / MAX_WORD_OCTETS + 1);
    let mut rest = text;
    while !rest.is_empty() {
        // A word must not split a character (RFC 2047 section 5).
        let (word, after) = rest.split_at(rest.floor_char_boundary(MAX_WORD_OCTETS));
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

    /// Decodes a header with mail-parser.
    fn decode(name: &str, value: &str) -> HeaderValue<'static> {
        let message = format!("{name}: {value}\r\n\r\n");
        let message = MessageParser::default().parse(message.as_bytes()).expect("a message");
        message.header(name).expect("the header").clone().into_owned()
    }

    #[test]
    fn encoded_text_decodes_to_the_original() {
        let long = "é".repeat(200) + " und so weiter, " + &"📬 ".repeat(100) + "end";
        for text in ["42", "Zoë", "  spaces  é  ", "=?utf-8?q?not_encoded?=", "a =?x", "é\tè", &long] {
            let value = super::encode_text(text);
            assert!(value.is_ascii() && value.split(' ').all(|word| word.len() <= 75 || word == text), "{value}");
            assert_eq!(decode("Subject", &value).as_text(), Some(text), "{value}");
        }
        assert_eq!(super::encode_text("42"), "42", "plain text is not encoded");
    }

    #[test]
    fn encoded_mailboxes_decode_to_the_originals() -> Result<(), AddressError> {
        let names = ["", "Ada Lovelace", "Lovelace, Ada", r#"The "\" of <x>"#, "Zoë; Li, \"Z\"", "=?utf-8?q?x?="];
        let mailboxes: Vec<_> =
            names.iter().map(|name| Mailbox::new(*name, "a@x.example".parse()?)).collect::<Result<_, _>>()?;
        let value = mailboxes.iter().map(encode_mailbox).collect::<Vec<_>>().join(", ");
        let HeaderValue::Address(Address::List(list)) = decode("Reply-To", &value) else { panic!("a list") };
        let shown: Vec<_> = list.iter().map(|one| (one.name().unwrap_or_default(), one.address())).collect();
        assert_eq!(shown, names.map(|name| (name, Some("a@x.example"))), "{value}");
        Ok(())
    }
}
