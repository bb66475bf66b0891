//! The checks by name, compared with those of the transports: the same mails are refused, for the same reasons, when they are enqueued.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use postrider::http::{
    Brevo, Http, MailerSend, Mailgun, Mailjet, Mailtrap, Postmark, Provider, Resend, SendGrid, SparkPost,
};
use postrider::ses::Ses;
use postrider::smtp::Smtp;
use postrider::transport::{EmailBuilder, Failover, ListUnsubscribe};
use postrider::{
    Attachment, BoxTransport, CheckAsError, DevMailbox, DevMailboxError, Email, EnqueueError, EnqueueOnly, Failure,
    MemoryStore, Outbox, Transport,
};

fn plain() -> EmailBuilder {
    let mail = Email::builder().from("Shop <shop@example.com>").to("ada@example.org").subject("Hello");
    mail.text("Hello!").html("<p>Hello!</p>").size_limit(usize::MAX)
}

fn attach(mail: EmailBuilder, media_type: &str, content: impl Into<Vec<u8>>) -> EmailBuilder {
    mail.attach(Attachment::new("a.bin", media_type, content.into()).expect("an attachment"))
}

type Part = (&'static str, fn(EmailBuilder) -> EmailBuilder);

/// Parts of a mail that some transports do not support.
const PARTS: &[Part] = &[
    ("51 recipients", |mail| (1..=50).fold(mail, |mail, n| mail.bcc(format!("r{n}@example.org")))),
    ("two Reply-Tos", |mail| mail.reply_to("a@example.com").reply_to("b@example.com")),
    ("an inline image", |mail| mail.attach(Attachment::inline("a", "a.png", "image/png", *b"\x89PNG").unwrap())),
    ("a header", |mail| mail.header("Order", "42")),
    ("a header twice", |mail| mail.header("Precedence", "bulk").header("Precedence", "list")),
    ("long headers", |mail| mail.header("X-Long", "x ".repeat(5_000)).header("X-Other", "y ".repeat(5_000))),
    ("two tags", |mail| mail.tag("a").tag("b")),
    ("eleven tags", |mail| (1..=11).fold(mail, |mail, n| mail.tag(format!("t{n}")))),
    ("a tag with a space", |mail| mail.tag("spring sale")),
    ("metadata", |mail| mail.metadata("order", "42")),
    ("metadata of eleven keys", |mail| (1..=11).fold(mail, |mail, n| mail.metadata(format!("k{n}"), "v"))),
    ("metadata with the key tag", |mail| mail.tag("a").metadata("tag", "b")),
    ("a link to unsubscribe", |mail| {
        mail.list_unsubscribe(ListUnsubscribe::one_click("https://example.com/u/1").unwrap())
    }),
    ("a bounce address", |mail| mail.envelope_from("bounces@example.com".parse().unwrap())),
    ("no bounce address", |mail| mail.null_envelope_from()),
    ("a long subject", |mail| mail.subject("x ".repeat(1_500))),
    ("an address outside ASCII", |mail| mail.cc("пошта@example.org")),
    ("an empty text", |mail| mail.text("")),
    ("a message with a long line", |mail| attach(mail, "message/rfc822", "x".repeat(1_000))),
    ("a message with a NUL", |mail| attach(mail, "message/rfc822", "Subject: a\r\n\r\n\0")),
];

/// A mail with one part of the list.
fn with(part: &str) -> Email {
    let (_, add) = PARTS.iter().find(|(name, _)| *name == part).expect("a part of the list");
    add(plain()).build().unwrap()
}

/// Mails with one part, with two parts, and large ones.
fn mails() -> Vec<(String, Email)> {
    let mut mails = vec![("plain".to_owned(), plain().build().unwrap())];
    for (index, (first, add_first)) in PARTS.iter().enumerate() {
        mails.push(((*first).to_owned(), add_first(plain()).build().unwrap()));
        for (second, add_second) in &PARTS[index + 1..] {
            // Some pairs of parts are not a valid mail.
            if let Ok(mail) = add_second(add_first(plain())).build() {
                mails.push((format!("{first} and {second}"), mail));
            }
        }
    }
    for octets in [8 << 20, 16 << 20, 31 << 20] {
        let large = attach(plain(), "application/octet-stream", vec![0xff; octets]).build().unwrap();
        mails.push((format!("an attachment of {octets} octets"), large));
    }
    mails
}

fn provider<P: Provider>(url: &str) -> BoxTransport<Email> {
    BoxTransport::new(Http::<P>::from_url(url).expect("the URL is valid"))
}

/// Every transport, as production would make it.
async fn transports() -> Vec<BoxTransport<Email>> {
    vec![
        BoxTransport::new(Smtp::from_url("smtps://ada:secret@mail.example.com").unwrap()),
        BoxTransport::new(Ses::from_url("ses://KEY:SECRET@default?region=eu-west-1").await.unwrap()),
        provider::<Brevo>("brevo://KEY@default"),
        provider::<MailerSend>("mailersend://KEY@default"),
        provider::<Mailgun>("mailgun://KEY@default?domain=mg.example.com"),
        provider::<Mailjet>("mailjet://KEY:SECRET@default"),
        provider::<Mailtrap>("mailtrap://KEY@default"),
        provider::<Postmark>("postmark://TOKEN@default"),
        provider::<Resend>("resend://KEY@default"),
        provider::<SendGrid>("sendgrid://KEY@default"),
        provider::<SparkPost>("sparkpost://KEY@default"),
    ]
}

/// All that a failure answers.
fn answers(checked: Result<(), &Failure>) -> Option<String> {
    checked.err().map(|failure| {
        let kind = (failure.class(), failure.scope(), failure.in_doubt(), failure.is_sure(), failure.is_unsupported());
        format!("{failure}: {kind:?}")
    })
}

#[tokio::test]
async fn a_check_by_name_refuses_what_the_transport_refuses_and_nothing_else() {
    let mails = mails();
    let transports = transports().await;
    let names: Vec<_> = transports.iter().map(Transport::name).collect();
    let mut available: Vec<_> = CheckAsError::available().collect();
    available.sort_unstable_by_key(|name| names.iter().position(|known| known == name));
    assert_eq!(available, names, "a transport is missing in this test");
    for transport in transports {
        let name = transport.name();
        let store = MemoryStore::new();
        let outbox = Outbox::new(store.clone(), EnqueueOnly::new().check_as(name).unwrap());
        let mailbox = Outbox::new(store.clone(), DevMailbox::new().check_as(name).unwrap());
        let (mut refused, mut taken) = (0, 0);
        for (what, mail) in &mails {
            let expected = answers(transport.check(mail).as_ref().copied());
            for enqueued in [outbox.enqueue(mail.clone()).await, mailbox.enqueue(mail.clone()).await] {
                match enqueued {
                    Ok(_) => assert_eq!(expected, None, "{name} takes {what}"),
                    Err(EnqueueError::Unsupported(failure)) => {
                        assert_eq!(answers(Err(&failure)), expected, "{name} refuses {what}");
                    }
                    Err(other) => panic!("{name}, {what}: {other}"),
                }
            }
            if expected.is_some() { refused += 1 } else { taken += 1 }
        }
        assert!(refused > 0 && taken > 0, "{name} refuses {refused} mails and takes {taken}");
        assert_eq!(store_len(&outbox).await, 2 * taken, "{name}: a refused mail is in the outbox");
    }
}

async fn store_len(outbox: &Outbox<MemoryStore>) -> u64 {
    outbox.stats().await.unwrap().pending
}

/// Several checks must all pass. A failover of two mailboxes takes what one of them takes, as production's failover does.
#[tokio::test]
async fn checks_combine_as_transports_do() {
    let inline = || with("an inline image");
    let many = || with("51 recipients");
    let both = EnqueueOnly::new().check_as("brevo").unwrap().check_as("ses").unwrap();
    let both = Outbox::new(MemoryStore::new(), both);
    for mail in [inline(), many()] {
        assert!(matches!(both.enqueue(mail).await, Err(EnqueueError::Unsupported(_))));
    }
    let mailbox = |name| DevMailbox::new().check_as(name).unwrap();
    let either = Outbox::new(MemoryStore::new(), Failover::new(mailbox("brevo")).or(mailbox("ses")));
    let ids = [either.enqueue(inline()).await.unwrap(), either.enqueue(many()).await.unwrap()];
    either.relay().drain().await.unwrap();
    for (id, by) in ids.into_iter().zip(["failover/mailbox#2", "failover/mailbox"]) {
        let delivery = either.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.attempts.last().unwrap().transport.as_deref(), Some(by), "{delivery:?}");
        assert_eq!(delivery.state, postrider::State::Sent);
    }
    // A transport can be passed instead of its name.
    let smtp = Smtp::from_url("smtp://localhost").unwrap();
    let outbox = Outbox::new(MemoryStore::new(), EnqueueOnly::new().check_with(smtp.clone()));
    let unwritable = || with("a message with a NUL");
    assert!(matches!(outbox.enqueue(unwritable()).await, Err(EnqueueError::Unsupported(_))));
    outbox.enqueue(plain().build().unwrap()).await.unwrap();
    assert!(DevMailbox::new().check_with(smtp).check(&unwritable()).is_err());
}

#[test]
fn an_unknown_name_gets_an_error_that_lists_the_names_and_repeats_nothing() {
    for name in ["", "SES", "sse", " ses", "ses://KEY:h0rse@default", "mailbox", "h0rse"] {
        let errors = [
            EnqueueOnly::new().check_as(name).unwrap_err(),
            DevMailbox::new().check_as(name).unwrap_err(),
            match DevMailbox::from_url(&format!("mailbox:?check_as={name}")).unwrap_err() {
                DevMailboxError::CheckAs(error) => error,
                other => panic!("{name}: {other}"),
            },
        ];
        for error in errors {
            assert_eq!(error, CheckAsError::Unknown, "{name}");
            let text = format!("{error} {error:?}");
            assert!(text.contains("ses, smtp") && text.contains("postmark") && !text.contains("h0rse"), "{text}");
        }
    }
}
