//! Random mails with every field.

use std::time::{Duration, UNIX_EPOCH};

use postrider_transport::{Attachment, DeliveryId, Email, ListUnsubscribe, Mailbox, Outgoing};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn outgoing(email: Email) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), UNIX_EPOCH + Duration::from_secs(1_700_000_000), email)
}

/// Pieces of text that writers and parsers have got wrong.
const PIECES: [&str; 61] = [
    "a",
    "Hello",
    "word ",
    "two words",
    " ",
    "  ",
    "\u{a0}",
    "\u{3000}",
    ".",
    "..",
    "...",
    ",",
    ";",
    ":",
    "!",
    "?",
    "=",
    "==",
    "=?",
    "?=",
    "=?utf-8?q?x?=",
    "=?utf-8?b?eA==?=",
    "=?utf-8?q?a_b?= =?utf-8?q?c?=",
    "=?x?=",
    "=20",
    "_",
    "__",
    "\"",
    "\"quoted\"",
    "\\",
    "\\\"",
    "'",
    "(",
    ")",
    "(comment)",
    "<",
    ">",
    "<b@example.com>",
    "@",
    "[",
    "]",
    "{",
    "|",
    "%",
    "%20",
    "''",
    "é",
    "ü",
    "ß",
    "e\u{301}",
    "你好",
    "日本語のとても長い文字列が続きます",
    "한국어",
    "Привет",
    "שלום",
    "مرحبا",
    "\u{202e}abc\u{202c}",
    "📬",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "\u{feff}",
];

/// One line without control characters.
pub(crate) fn line() -> impl Strategy<Value = String> {
    let long = "[a-z]{60,180}".prop_map(|word| format!("{word} "));
    let wide = "[а-я]{40,90}".prop_map(|word| format!("{word} "));
    let piece = prop_oneof![20 => select(&PIECES[..]).prop_map(str::to_owned), 1 => long, 1 => wide, 2 => "\\PC{1,6}"];
    vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn body() -> impl Strategy<Value = String> {
    let breaks = [
        "\n",
        "\n",
        "\n\n",
        "\r\n",
        " \n",
        "\t\n",
        "\n.\n",
        "\n..\n",
        "\nFrom me\n",
        "\n>From\n",
        "\n--\n",
        "\n-- \n",
        "\n\t",
    ];
    let controls = ["\0", "\u{1}", "\u{8}", "\u{b}", "\u{c}", "\u{1a}", "\u{1b}", "\u{7f}", "\u{85}", "\u{2028}", "\r"];
    let piece = prop_oneof![
        8 => line(),
        8 => select(breaks.to_vec()).prop_map(str::to_owned),
        1 => select(controls.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{70,1100}",
    ];
    vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

pub(crate) fn address() -> impl Strategy<Value = String> {
    let local = select(&["ada", "o'hara+tag", "\"a b\"", "\"a, b\"", "x_y-z", "пошта", "a.b.c"][..]);
    let domain = select(&["example.com", "bücher.example", "mail-1.example.co.uk", "[127.0.0.1]"][..]);
    (local, domain).prop_map(|(local, domain)| format!("{local}@{domain}"))
}

fn mailbox() -> impl Strategy<Value = Mailbox> {
    (line(), address()).prop_map(|(name, address)| Mailbox::new(name, address.parse().unwrap()).unwrap())
}

fn attachment() -> impl Strategy<Value = Attachment> {
    // For text types, mail-parser returns characters and not octets.
    let texts =
        ["text/csv; charset=utf-8", "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"];
    let files = ["application/octet-stream", "image/png", "application/pdf; x=\"a b\""];
    let part = prop_oneof![
        (select(texts.to_vec()), body().prop_map(String::into_bytes)),
        (select(files.to_vec()), vec(any::<u8>(), 0..300)),
    ];
    (line(), part, prop::option::of("[a-z0-9.@+-]{1,90}")).prop_map(|(name, (kind, content), id)| {
        let name = if name.is_empty() { "a".to_owned() } else { name };
        match id {
            Some(id) => Attachment::inline(id, name, kind, content).unwrap(),
            None => Attachment::new(name, kind, content).unwrap(),
        }
    })
}

/// Mails with at least one body.
pub(crate) fn email() -> impl Strategy<Value = Email> {
    let tabs = line().prop_map(|subject| subject.replacen("word ", "tab\t", 1));
    let to = (mailbox(), vec(mailbox(), 0..4), vec(mailbox(), 0..3), vec(mailbox(), 0..3));
    let bodies = prop_oneof![
        body().prop_map(|text| (Some(text), None)),
        body().prop_map(|html| (None, Some(html))),
        (body(), body()).prop_map(|(text, html)| (Some(text), Some(html))),
    ];
    let links = prop::option::of(vec("https://example[.]com/[a-z=?&%+-]{1,200}", 1..4));
    (mailbox(), to, tabs, bodies, vec(attachment(), 0..3), vec(line(), 0..3), 0usize..30, links).prop_map(
        |(from, (first, to, cc, reply_to), subject, (text, html), attachments, values, references, links)| {
            let mut mail = Email::builder().from(from).to(first).subject(subject);
            mail = to.into_iter().fold(mail, |mail, one| mail.to(one));
            mail = cc.into_iter().fold(mail, |mail, one| mail.cc(one));
            mail = reply_to.into_iter().fold(mail, |mail, one| mail.reply_to(one));
            mail = text.into_iter().fold(mail, |mail, text| mail.text(text));
            mail = html.into_iter().fold(mail, |mail, html| mail.html(html));
            mail = attachments.into_iter().fold(mail, |mail, one| mail.attach(one));
            mail = values.into_iter().fold(mail, |mail, value| mail.header("X-Value", value));
            if references > 0 {
                let ids = (0..references).map(|n| format!("<{n}.{}@example.com>", "x".repeat(n * 4)));
                mail = mail.header("References", ids.collect::<Vec<_>>().join(" "));
            }
            if let Some(links) = links {
                let mut links = links.into_iter();
                let first = ListUnsubscribe::one_click(links.next().unwrap()).unwrap();
                mail = mail.list_unsubscribe(links.fold(first, |list, link| list.or(link).unwrap()));
            }
            mail.build().unwrap()
        },
    )
}
