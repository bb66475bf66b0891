//! The tables of docs/transports.md, compared with the transports: their checks, requests and batches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use postrider::http::{
    Brevo, Http, HttpConfigError, MailerSend, Mailgun, Mailjet, Mailtrap, Postmark, Provider, Resend, SendGrid,
    SparkPost,
};
use postrider::ses::Ses;
use postrider::smtp::Smtp;
use postrider::transport::{EmailBuilder, ListUnsubscribe, Outgoing};
use postrider::{Attachment, DeliveryId, Email, Transport};

const PAGE: &str = include_str!("../docs/transports.md");

/// Whether the transport accepts a plain mail with one more feature.
fn takes(transport: &impl Transport<Message = Email>, more: impl FnOnce(EmailBuilder) -> EmailBuilder) -> bool {
    transport.check(&more(plain()).build().expect("a mail")).is_ok()
}

fn plain() -> EmailBuilder {
    Email::builder()
        .from("Shop <shop@example.com>")
        .to("ada@example.org")
        .subject("Hello")
        .text("Hello!")
        .html("<p>Hello!</p>")
}

fn mark(yes: bool) -> String {
    if yes { "✓" } else { "–" }.to_owned()
}

/// Properties that only the next hop's replies show. The suite of each transport's crate tests them.
struct Known {
    /// Whether the next hop recognizes a retry by a key.
    key: bool,
    /// Whether the mail arrives with the Message-ID that all attempts share.
    message_id: bool,
    /// Whether a reply can refuse some recipients and accept others.
    each: bool,
}

fn row(transport: &impl Transport<Message = Email>, known: &Known) -> String {
    const MANY: usize = 50;
    assert!(takes(transport, |mail| mail), "{} refuses a simple mail", transport.name());
    let logo = Attachment::inline("logo", "logo.png", "image/png", *b"\x89PNG").expect("an image");
    let file = Attachment::new("terms.txt", "text/plain", *b"terms").expect("an attachment");
    assert!(takes(transport, |mail| mail.attach(file)), "{} refuses attachments", transport.name());
    let tagged = |count| takes(transport, |mail| (0..count).fold(mail, |mail, tag| mail.tag(format!("t{tag}"))));
    let tags = (1..=MANY).take_while(|count| tagged(*count)).count();
    let one_click = ListUnsubscribe::one_click("https://example.com/u/1").expect("a link");
    let cells = [
        format!("`{}`", transport.name()),
        if transport.max_batch() > 1 { transport.max_batch().to_string() } else { mark(false) },
        mark(known.key),
        mark(known.message_id),
        mark(known.each),
        mark(takes(transport, |mail| mail.reply_to("a@example.com").reply_to("b@example.com"))),
        mark(takes(transport, |mail| mail.attach(logo))),
        match [
            takes(transport, |mail| mail.header("X-Order", "42")),
            takes(transport, |mail| mail.header("Order", "42")),
        ] {
            [true, false] => "`X-…`".to_owned(),
            [_, all] => mark(all),
        },
        if tags == MANY || tags == 0 { mark(tags > 0) } else { tags.to_string() },
        mark(takes(transport, |mail| mail.metadata("order", "42"))),
        mark(takes(transport, |mail| mail.list_unsubscribe(one_click))),
        mark(takes(transport, |mail| mail.envelope_from("bounces@example.com".parse().expect("an address")))),
    ];
    format!("| {} |", cells.join(" | "))
}

/// An API that records its requests, and replies with an empty object.
fn api() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(reader.read_until(b'\n', &mut request).unwrap(), 0, "the request breaks off");
            }
            let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            request.extend(body);
            sender.send(request).unwrap();
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        }
    });
    (address, requests)
}

/// The row of a provider. `url` has the provider's own host; `each` is [`Known::each`].
async fn provider<P: Provider>(url: &str, each: bool) -> String {
    let own = Http::<P>::from_url(url).expect("the URL in the table is valid");
    let (address, requests) = api();
    let near = url.replace("@default", &format!("@{address}"));
    let transport = Http::<P>::from_url(&near).expect("the URL is valid with another host");
    let outgoing = Outgoing::new(DeliveryId::new(), SystemTime::now(), plain().build().expect("a mail"));
    let mut sent = Vec::new();
    for outgoing in [outgoing.clone(), outgoing.clone(), outgoing.clone().with_attempt(2, 2)] {
        // The result does not matter here.
        let _ = transport.send(&outgoing).await;
        sent.push(requests.recv_timeout(Duration::from_secs(60)).expect("the transport sends a request"));
    }
    assert_eq!(sent[0], sent[1], "{}: two requests for one delivery differ", P::NAME);
    // A resend is a new mail. Only a key makes its request differ.
    let key = sent[0] != sent[2];
    let id = outgoing.message_id().into_bytes();
    let message_id = sent[0].windows(id.len()).any(|part| part == id);
    row(&own, &Known { key, message_id, each })
}

/// The rows of the table that begins with `header`.
fn table(header: &str) -> Vec<&'static str> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    rows.take_while(|line| line.starts_with('|')).collect()
}

/// The third cell of the row that begins with the feature's name.
fn url(feature: &str) -> &'static str {
    let rows = table("| Feature | Carries mail by | URL |");
    let row = rows.iter().find(|row| row.starts_with(&format!("| `{feature}` |"))).expect("the page has a row for it");
    row.split(" | ").nth(2).unwrap().trim_matches('`')
}

/// Invariant 7.
#[tokio::test]
async fn the_table_of_features_matches_the_transports() {
    let smtp = Smtp::from_url("smtp://localhost").expect("a URL");
    let ses = Ses::from_url("ses://KEY:SECRET@default?region=eu-west-1").await.expect("a URL");
    let rows = [
        row(&smtp, &Known { key: false, message_id: true, each: true }),
        // SES replaces the Message-ID.
        row(&ses, &Known { key: false, message_id: false, each: false }),
        provider::<Brevo>(url("brevo"), false).await,
        provider::<MailerSend>(url("mailersend"), true).await,
        provider::<Mailgun>(url("mailgun"), false).await,
        provider::<Mailjet>(url("mailjet"), false).await,
        provider::<Mailtrap>(url("mailtrap"), false).await,
        provider::<Postmark>(url("postmark"), true).await,
        provider::<Resend>(url("resend"), false).await,
        provider::<SendGrid>(url("sendgrid"), false).await,
        provider::<SparkPost>(url("sparkpost"), true).await,
    ];
    let shown = table("| Feature | Batch |");
    assert_eq!(shown, rows, "the table in docs/transports.md should be:\n{}\n", rows.join("\n"));
}

#[tokio::test]
async fn the_table_of_urls_and_variables_matches_the_transports() {
    Smtp::from_url(url("smtp")).expect("the URL in the table is valid");
    Ses::from_url(url("ses")).await.expect("the URL in the table is valid");
    let rows = table("| Feature | Carries mail by | URL |");
    let reads = |feature: &str, error: Option<HttpConfigError>| {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{feature}` |"))).expect("a row");
        match error {
            Some(HttpConfigError::Env { name }) => {
                assert!(row.contains(&format!("`{name}`")), "{feature} reads {name}")
            }
            // The environment of this test has set it.
            other => assert_eq!(other, None, "{feature}"),
        }
    };
    reads("brevo", Brevo::from_env().err());
    reads("mailersend", MailerSend::from_env().err());
    reads("mailgun", Mailgun::from_env().err());
    reads("mailjet", Mailjet::from_env().err());
    reads("mailtrap", Mailtrap::from_env().err());
    reads("postmark", Postmark::from_env().err());
    reads("resend", Resend::from_env().err());
    reads("sendgrid", SendGrid::from_env().err());
    reads("sparkpost", SparkPost::from_env().err());
    assert_eq!(rows.len(), 11);
}
