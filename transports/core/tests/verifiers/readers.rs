//! Mails, read back by mail-parser and by Python's `email`.

use std::cell::RefCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{HeaderForm, MessageParser, MimeHeaders, PartType};
use postrider_transport::{Email, Mailbox, Mime};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::mails::{email, outgoing};
use crate::python::Python;

/// The fields of a mail that a parser returns.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    subject: String,
    /// From, Reply-To, To, Cc: names and addresses.
    mailboxes: [Vec<(String, String)>; 4],
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<Attached>,
    /// The header X-Value.
    custom: Vec<String>,
    references: Option<String>,
    unsubscribe: Option<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attached {
    name: String,
    kind: String,
    content_id: Option<String>,
    content: Vec<u8>,
}

const FIELDS: [&str; 4] = ["From", "Reply-To", "To", "Cc"];

/// The expected fields.
fn meant(email: &Email) -> Shown {
    let list = |list: &[Mailbox]| -> Vec<_> {
        let one =
            |mailbox: &Mailbox| (mailbox.name().unwrap_or_default().to_owned(), mailbox.address().as_str().to_owned());
        list.iter().map(one).collect()
    };
    let mut attachments: Vec<_> = email
        .attachments()
        .iter()
        .map(|one| Attached {
            name: one.file_name().to_owned(),
            kind: one.content_type().split(';').next().unwrap().to_owned(),
            content_id: one.content_id().map(str::to_owned),
            content: one.content().to_vec(),
        })
        .collect();
    attachments.sort();
    let header = |name: &str| -> Vec<String> {
        email.headers().iter().filter(|one| one.name() == name).map(|one| one.value().to_owned()).collect()
    };
    let references = header("References");
    Shown {
        subject: email.subject().to_owned(),
        mailboxes: [
            list(std::slice::from_ref(email.from())),
            list(email.reply_to()),
            list(email.to()),
            list(email.cc()),
        ],
        text: email.text().map(str::to_owned),
        html: email.html().map(str::to_owned),
        attachments,
        custom: header("X-Value").iter().map(|value| custom(value)).collect(),
        references: references.into_iter().next(),
        unsubscribe: email.list_unsubscribe().map(|list| list.header_value()),
    }
}

/// A custom header keeps repeated spaces only where it is encoded.
fn custom(value: &str) -> String {
    if value.is_ascii() && !value.contains("=?") {
        return value.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    }
    value.to_owned()
}

/// Converts CRLF to `\n`.
fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn by_mail_parser(mail: &[u8]) -> Shown {
    let message = MessageParser::default().parse(mail).unwrap();
    let raw = |name: &str| message.header_raw(name).map(|raw| raw.replace("\r\n", "").trim().to_owned());
    let list = |address: Option<&mail_parser::Address<'_>>| -> Vec<_> {
        let one = |one: &mail_parser::Addr<'_>| {
            (one.name().unwrap_or_default().to_owned(), one.address().unwrap_or_default().to_owned())
        };
        address.map(|list| list.iter().map(one).collect()).unwrap_or_default()
    };
    let mut shown = Shown {
        subject: message.subject().unwrap_or_default().to_owned(),
        mailboxes: [list(message.from()), list(message.reply_to()), list(message.to()), list(message.cc())],
        references: raw("References"),
        unsubscribe: raw("List-Unsubscribe"),
        ..Shown::default()
    };
    let values = message.header_as("X-Value", HeaderForm::Text);
    shown.custom = values.iter().map(|value| custom(value.as_text().unwrap_or_default())).collect();
    for part in &message.parts {
        let kind = part.content_type().map(|kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()));
        match (&part.body, part.attachment_name()) {
            (PartType::Multipart(_), _) => {}
            (PartType::Text(text), None) => shown.text = Some(lines(text)),
            (PartType::Html(html), None) => shown.html = Some(lines(html)),
            (_, name) => shown.attachments.push(Attached {
                name: name.unwrap_or_default().to_owned(),
                kind: kind.unwrap_or_default(),
                content_id: part.content_id().map(str::to_owned),
                content: part.contents().to_vec(),
            }),
        }
    }
    shown.attachments.sort();
    shown
}

/// Up to version 3.12, Python's newer parser keeps white space between the encoded words of a name, against RFC 2047 section 6.2, and
/// reduces white space inside them to one space. A name counts as right if nothing else differs and the older parser returns it.
fn by_python(python: &mut Python, mail: &[u8], meant: &Shown) -> Shown {
    let told = python.read(mail);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &Value| -> Vec<_> {
        let one = |pair: &Value| (text(&pair[0]).unwrap_or_default(), text(&pair[1]).unwrap_or_default());
        value.as_array().unwrap().iter().map(one).collect()
    };
    assert_eq!(told["defects"], serde_json::json!([]), "{told}");
    let mut shown = Shown {
        subject: text(&told["subject"]).unwrap_or_default(),
        mailboxes: FIELDS.map(|name| list(&told["mailboxes"][name])),
        custom: told["custom"].as_array().unwrap().iter().map(|value| custom(value.as_str().unwrap())).collect(),
        references: text(&told["references"]),
        unsubscribe: text(&told["unsubscribe"]),
        ..Shown::default()
    };
    for part in told["parts"].as_array().unwrap() {
        assert_eq!(part["defects"], serde_json::json!([]), "{told}");
        let kind = text(&part["type"]).unwrap();
        match (text(&part["text"]), kind.as_str()) {
            (Some(text), "text/plain") => shown.text = Some(lines(&text)),
            (Some(text), _) => shown.html = Some(lines(&text)),
            (None, _) => shown.attachments.push(Attached {
                name: text(&part["file_name"]).unwrap_or_default(),
                kind,
                content_id: text(&part["content_id"]).map(|id| id.trim_matches(['<', '>']).to_owned()),
                content: STANDARD.decode(part["content"].as_str().unwrap()).unwrap(),
            }),
        }
    }
    shown.attachments.sort();
    for (index, field) in FIELDS.iter().enumerate() {
        for (number, (name, _)) in shown.mailboxes[index].iter_mut().enumerate() {
            let (Some((meant, _)), older) = (meant.mailboxes[index].get(number), &told["names"][field][number]) else {
                continue;
            };
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            if letters(name) == letters(meant) && older == meant {
                name.clone_from(meant);
            }
        }
    }
    shown
}

#[test]
#[ignore = "needs Python: scripts/servers/verifiers.sh"]
fn two_parsers_return_every_field() {
    let python = RefCell::new(Python::start());
    let mut runner = TestRunner::new(Config { cases: 500, failure_persistence: None, ..Config::default() });
    runner
        .run(&email(), |email| {
            let mail = Mime::new().render(&outgoing(email.clone())).unwrap();
            let told = || String::from_utf8_lossy(&mail).into_owned();
            let meant = meant(&email);
            prop_assert_eq!(&by_mail_parser(&mail), &meant, "mail-parser:\n{}", told());
            prop_assert_eq!(&by_python(&mut python.borrow_mut(), &mail, &meant), &meant, "Python:\n{}", told());
            Ok(())
        })
        .unwrap();
}
