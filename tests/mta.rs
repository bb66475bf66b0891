//! From an outbox to Postfix: the stored mail, read by an independent parser, equals the enqueued one.
//!
//! `scripts/test` starts the server and sets the variables; `scripts/servers/README.md` says how to start it by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mail_parser::{Message, MessageParser, MimeHeaders};
use postrider::smtp::{Credentials, Smtp, Tls};
use postrider::transport::{Class, ListUnsubscribe, Outgoing};
use postrider::{
    Attachment, Delivery, DeliveryId, Email, Outbox, Outcome, RecipientState, SqliteStore, State, Transport,
};

#[cfg(feature = "dkim")]
#[path = "../transports/core/tests/verifiers/authenticator.rs"]
mod authenticator;
#[cfg(feature = "dkim")]
#[path = "../transports/core/tests/verifiers/python.rs"]
mod python;

fn var(name: &str) -> String {
    let name = format!("POSTRIDER_TEST_MTA_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// A transport with STARTTLS and a password.
fn smtp(password: &str) -> Smtp {
    Smtp::builder(var("HOST"))
        .port(var("PORT").parse().unwrap())
        .tls(Tls::Required)
        .root_certificate(std::fs::read(var("CA")).unwrap())
        .credentials(Credentials::new(var("USER"), password))
        .build()
        .unwrap()
}

async fn outbox(smtp: Smtp) -> Outbox<SqliteStore, Smtp> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    let store = SqliteStore::open(&format!("sqlite://{}/outbox.db", directory.display())).await.unwrap();
    let outbox = Outbox::new(store, smtp);
    outbox.migrate().await.unwrap();
    outbox
}

async fn delivered(outbox: &Outbox<SqliteStore, Smtp>, email: Email) -> Delivery {
    let id = outbox.enqueue(email).await.unwrap();
    outbox.relay().drain().await.unwrap();
    outbox.get(id).await.unwrap().unwrap()
}

/// Waits for the stored copies of a delivery, and returns them by recipient.
async fn stored(delivery: &Delivery, copies: usize) -> BTreeMap<String, Vec<u8>> {
    let new = PathBuf::from(var("MAILDIR")).join("new");
    for _ in 0..600 {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&new).into_iter().flatten().flatten() {
            // Postfix may move a file after the listing.
            let Ok(bytes) = std::fs::read(entry.path()) else { continue };
            let Some(message) = MessageParser::default().parse(&bytes) else { continue };
            if message.message_id().is_some_and(|id| id.starts_with(&delivery.id.to_string())) {
                found.insert(message.header_raw("X-Original-To").unwrap().trim().to_owned(), bytes);
            }
        }
        if found.len() >= copies {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server did not store {copies} copies");
}

fn lines(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn addresses(header: Option<&mail_parser::Address<'_>>) -> Vec<String> {
    header.into_iter().flat_map(|list| list.iter()).filter_map(|a| a.address().map(str::to_owned)).collect()
}

#[tokio::test]
#[ignore = "needs a mail server: run scripts/test"]
async fn a_mail_with_every_feature_arrives_unchanged_at_five_recipients() {
    let long = "long ".repeat(500);
    let text = format!("Grüße ✓ 𝄞\n.\n..\n.leading dot\n{long}\n\nlast line with spaces   \n.");
    let html = "<p>Ein Bild: <img src=\"cid:logo@example.test\"></p>\n.<br>\n".to_owned();
    let pdf: Vec<u8> = (0..=255u8).cycle().take(40_000).collect();
    let png = b"\x89PNG\r\n\x1a\n\0\0\r\n.\r\n".to_vec();
    let email = Email::builder()
        .from(("Zoë \"the Boss\" O'Hara, Ltd.", "zoe@example.test"))
        .reply_to("Answers <answers@example.test>")
        .reply_to("more@example.test")
        .to("Ada <ada@example.test>")
        .to("bob@example.test")
        .cc("cy@example.test")
        .bcc("dee@example.test")
        .bcc("eve@example.test")
        .subject("Ünïcode subject, long enough that it has to be folded over several lines of the header, at least two")
        .text(text.clone())
        .html(html.clone())
        .attach(Attachment::new("Rechnung №1 \"final\".pdf", "application/pdf", pdf.clone()).unwrap())
        .attach(Attachment::inline("logo@example.test", "logo.png", "image/png", png.clone()).unwrap())
        .header("X-Order", "4711")
        .tag("invoice")
        .metadata("customer", "42")
        .list_unsubscribe(ListUnsubscribe::one_click("https://example.test/leave?u=42").unwrap())
        .envelope_from("bounces@example.test".parse().unwrap())
        .build()
        .unwrap();
    let outbox = outbox(smtp(&var("PASSWORD"))).await;
    let delivery = delivered(&outbox, email).await;
    assert_eq!(delivery.state, State::Sent, "{:?}", delivery.attempts);
    assert!(delivery.attempts[0].provider_id.is_some(), "the receipt has no queue id");

    let copies = stored(&delivery, 5).await;
    let names: Vec<_> = copies.keys().map(|address| address.split('@').next().unwrap()).collect();
    assert_eq!(names, ["ada", "bob", "cy", "dee", "eve"]);
    for bytes in copies.values() {
        let mail: Message<'_> = MessageParser::default().parse(bytes).unwrap();
        assert_eq!(mail.header_raw("Return-Path").unwrap().trim(), "<bounces@example.test>");
        assert_eq!(mail.from().unwrap().first().unwrap().name(), Some("Zoë \"the Boss\" O'Hara, Ltd."));
        assert_eq!(addresses(mail.reply_to()), ["answers@example.test", "more@example.test"]);
        assert_eq!(addresses(mail.to()), ["ada@example.test", "bob@example.test"]);
        assert_eq!(addresses(mail.cc()), ["cy@example.test"]);
        assert!(mail.bcc().is_none(), "the mail has a Bcc field");
        assert!(mail.subject().unwrap().starts_with("Ünïcode subject") && mail.subject().unwrap().ends_with("two"));
        assert_eq!(mail.header_raw("X-Order").unwrap().trim(), "4711");
        assert_eq!(mail.header_raw("X-Tag").unwrap().trim(), "invoice");
        assert_eq!(mail.header_raw("X-Metadata-customer").unwrap().trim(), "42");
        assert_eq!(mail.header_raw("List-Unsubscribe").unwrap().trim(), "<https://example.test/leave?u=42>");
        assert_eq!(mail.header_raw("List-Unsubscribe-Post").unwrap().trim(), "List-Unsubscribe=One-Click");
        let seconds = delivery.created_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(u64::try_from(mail.date().unwrap().to_timestamp()).unwrap(), seconds);
        assert_eq!(lines(&mail.body_text(0).unwrap()), text);
        assert_eq!(lines(&mail.body_html(0).unwrap()), html);
        let attached = |name: &str| mail.attachments().find(|part| part.attachment_name() == Some(name)).unwrap();
        assert_eq!(attached("Rechnung №1 \"final\".pdf").contents(), pdf);
        let inline = mail.parts.iter().find(|part| part.content_id() == Some("logo@example.test")).unwrap();
        assert_eq!(inline.contents(), png);
    }
    // All copies are the same message.
    let parts: Vec<_> = copies.values().map(|bytes| bytes[find(bytes, b"\nX-Order").unwrap()..].to_vec()).collect();
    assert!(parts.windows(2).all(|pair| pair[0] == pair[1]));
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[tokio::test]
#[ignore = "needs a mail server: run scripts/test"]
async fn refused_and_busy_recipients_do_not_stop_the_others() {
    let email = Email::builder()
        .from("zoe@example.test")
        .to("fay@example.test")
        .to("nobody@example.test")
        .cc("busy@example.test")
        .text("Hello")
        .build()
        .unwrap();
    let outbox = outbox(smtp(&var("PASSWORD"))).await;
    let delivery = delivered(&outbox, email).await;
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Pending, 1));
    let states: Vec<_> = delivery.recipients.iter().map(|r| r.state).collect();
    assert_eq!(states, [RecipientState::Sent, RecipientState::Refused, RecipientState::Pending]);
    assert!(delivery.recipients[1].reply.as_deref().unwrap().starts_with("550 5.1.1"), "{:?}", delivery.recipients);
    assert_eq!(stored(&delivery, 1).await.into_keys().collect::<Vec<_>>(), ["fay@example.test"]);
}

/// RFC 5321 section 4.5.3.1.10. Postfix accepts 100 of 2,500 recipients in each transaction. It counts recipients far beyond the limit as
/// errors, and closes the connection after 20 errors.
#[tokio::test]
#[ignore = "needs a mail server: run scripts/test"]
async fn a_server_with_a_limit_of_100_recipients_gets_all_2_500() {
    let mut email = Email::builder().from("zoe@example.test").text("Hello");
    for number in 0..2_500 {
        email = email.bcc(format!("r{number}@example.test"));
    }
    let smtp = Smtp::builder(var("HOST")).port(var("LIMITED_PORT").parse().unwrap()).tls(Tls::None).build().unwrap();
    let mut mail = Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email.build().unwrap());
    for left in (0..25).rev().map(|hundreds| hundreds * 100) {
        let receipt = smtp.send(&mail).await.unwrap();
        assert_eq!(receipt.refused.len(), left);
        assert!(receipt.refused.iter().all(|refusal| (refusal.class, refusal.sure) == (Class::Transient, true)));
        mail = mail.with_recipients(receipt.refused.into_iter().map(|refusal| refusal.recipient).collect());
    }
}

#[tokio::test]
#[ignore = "needs a mail server: run scripts/test"]
async fn a_wrong_password_or_an_untrusted_certificate_pauses_the_transport() {
    let hello = || Email::builder().from("zoe@example.test").to("gil@example.test").text("Hello").build().unwrap();
    let untrusted = Smtp::builder(var("HOST")).port(var("PORT").parse().unwrap()).tls(Tls::Required).build().unwrap();
    for smtp in [smtp("wrong"), untrusted] {
        let outbox = outbox(smtp).await;
        let id = outbox.enqueue(hello()).await.unwrap();
        let summary = outbox.relay().drain().await.unwrap();
        assert!(summary.paused.is_some(), "{summary:?}");
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.state, delivery.attempts[0].charged), (State::Pending, false));
    }
}

#[tokio::test]
#[ignore = "needs a mail server: run scripts/test"]
async fn sixty_mails_over_implicit_tls_share_three_connections() {
    let escape = |text: &str| {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect::<String>()
    };
    let (user, password) = (escape(&var("USER")), escape(&var("PASSWORD")));
    let url = format!("smtps://{user}:{password}@{}:{}?ca={}&pool=3", var("HOST"), var("TLS_PORT"), var("CA"));
    let outbox = outbox(Smtp::from_url(&url).unwrap()).await;
    let mails = (0..60).map(|n| {
        Email::builder()
            .from("zoe@example.test")
            .to("hal@example.test")
            .subject(format!("{n}"))
            .text(".\n")
            .build()
            .unwrap()
    });
    let ids = outbox.enqueue_all(mails).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 60);
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.attempts.len(), delivery.attempts[0].outcome), (1, Outcome::Sent));
        assert_eq!(stored(&delivery, 1).await.len(), 1);
    }
}

/// Verifies the stored mail, with the fields that Postfix added.
#[cfg(feature = "dkim")]
#[tokio::test]
#[ignore = "needs a mail server, and Python with dkimpy: run scripts/test"]
async fn a_dkim_signature_verifies_in_the_mailbox() {
    use postrider::Dkim;

    let rsa = include_str!("../transports/core/tests/keys/rsa-pkcs1.pem");
    let ed25519 = include_str!("../transports/core/tests/keys/ed25519.pem");
    let (dns, mut python) = (authenticator::Dns::example(), python::Python::start());
    for (selector, key) in [("rsa", rsa), ("ed25519", ed25519)] {
        for text in ["", "Hi!", ".\n..\n\n\n", "Grüße  \n.\nFrom me\n"] {
            let smtp = Smtp::builder(var("HOST"))
                .port(var("PORT").parse().unwrap())
                .tls(Tls::None)
                .dkim(Dkim::new("example.com", selector, key).unwrap())
                .build()
                .unwrap();
            let mail = Email::builder().from("zoe@example.test").subject("A subject of many words ".repeat(12));
            let mail = mail.to("Ivy <ivy@example.test>").text(text).build().unwrap();
            let delivery = delivered(&outbox(smtp).await, mail).await;
            let copy = stored(&delivery, 1).await.remove("ivy@example.test").unwrap();
            // Postfix stores the mail with LF.
            let copy = String::from_utf8(copy).unwrap().replace('\n', "\r\n");
            assert_eq!(dns.verify(copy.as_bytes()).await, ["pass"], "mail-auth:\n{copy}");
            assert_eq!(python.verify(copy.as_bytes(), &dns.0), ["pass"], "dkimpy:\n{copy}");
        }
    }
}
