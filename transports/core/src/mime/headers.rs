//! The header of a mail.

use std::fmt::{self, Write};
use std::slice;

use email_encoding::headers::quoted_string;
use email_encoding::headers::writer::EmailWriter;
use lettre::message::header::{self, Header, HeaderName, HeaderValue, Headers};

use super::MimeError;
use crate::{Email, Mailbox, Outgoing};

/// All but From and what belongs to the body, in the order in which they are written.
pub(super) fn beside_from(outgoing: &Outgoing<Email>) -> Result<Vec<HeaderValue>, MimeError> {
    let email = outgoing.message();
    let mut headers = vec![
        header::Date::new(outgoing.dated_at()).display(),
        value("Message-ID", outgoing.message_id())?,
        value("Subject", email.subject().to_owned())?,
    ];
    let sender = email.sender().map(slice::from_ref).unwrap_or_default();
    let lists = [("Sender", sender), ("Reply-To", email.reply_to()), ("To", email.to()), ("Cc", email.cc())];
    for (name, list) in lists {
        if !list.is_empty() {
            headers.push(addresses(name, list)?);
        }
    }
    if let Some(list) = email.list_unsubscribe() {
        headers.push(value("List-Unsubscribe", list.header_value())?);
        if list.is_one_click() {
            headers.push(value("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned())?);
        }
    }
    Ok(headers)
}

/// The custom headers, and tags and metadata where they are wanted, as text. They go in front of the others, since lettre keeps only
/// one header of a name.
pub(super) fn custom(email: &Email, labels: bool) -> Result<String, MimeError> {
    let mut out = String::new();
    let mut add = |name: &str, text: &str| -> Result<(), MimeError> {
        let mut one = Headers::new();
        one.insert_raw(value(name, text.to_owned())?);
        out.push_str(&one.to_string());
        Ok(())
    };
    for custom in email.headers() {
        add(custom.name(), custom.value())?;
    }
    if labels {
        for tag in email.tags() {
            add("X-Tag", tag)?;
        }
        for (key, text) in email.metadata() {
            add(&format!("X-Metadata-{key}"), text)?;
        }
    }
    Ok(out)
}

/// A list of mailboxes, one to a line: lettre folds at names only, and a long list of bare addresses would be one line.
pub(super) fn addresses(name: &'static str, list: &[Mailbox]) -> Result<HeaderValue, MimeError> {
    let encoded: Vec<String> = list.iter().map(|one| encoded(name, one)).collect::<Result<_, _>>()?;
    // Nothing here comes from outside without having gone through the encoder, save addresses, which hold no control character.
    Ok(HeaderValue::dangerous_new_pre_encoded(
        HeaderName::new_from_ascii_str(name),
        encoded.join(", "),
        encoded.join(",\r\n "),
    ))
}

/// A mailbox as lettre writes it, which would take each address apart once more.
fn encoded(header: &str, mailbox: &Mailbox) -> Result<String, MimeError> {
    let address = mailbox.address().as_str();
    let Some(name) = mailbox.name() else {
        return Ok(address.to_owned());
    };
    let mut out = String::new();
    write(name, address, EmailWriter::new(&mut out, header.len() + ": ".len(), 0, false))
        .map_err(MimeError::because)?;
    Ok(out)
}

fn write(name: &str, address: &str, mut writer: EmailWriter<'_>) -> fmt::Result {
    quoted_string::encode(name, &mut writer)?;
    writer.space();
    write!(writer, "<{address}>")
}

fn value(name: &str, text: String) -> Result<HeaderValue, MimeError> {
    let name = HeaderName::new_from_ascii(name.to_owned()).map_err(MimeError::because)?;
    Ok(HeaderValue::new(name, text))
}

#[cfg(test)]
mod tests {
    use lettre::message::Mailbox as LettreMailbox;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mailbox_is_written_as_lettre_would(
            name in prop::collection::vec(
                prop::sample::select(vec!["Ada", " ", "é", "\"", "\\", ".", ",", "<", "@", "📬", "a-long-word-among-others", "("]),
                1..16,
            ),
            local in "[a-z]{1,60}",
        ) {
            let mailbox = Mailbox::new(name.concat(), format!("{local}@example.com").parse().unwrap()).unwrap();
            let theirs = LettreMailbox::new(
                mailbox.name().map(str::to_owned),
                lettre::Address::new(&local, "example.com").unwrap(),
            );
            let mut both = [Headers::new(), Headers::new()];
            both[0].insert_raw(addresses("From", slice::from_ref(&mailbox)).unwrap());
            both[1].set(header::From::from(lettre::message::Mailboxes::from(theirs)));
            prop_assert_eq!(both[0].to_string(), both[1].to_string());
        }
    }
}
