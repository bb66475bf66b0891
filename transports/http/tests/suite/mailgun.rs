//! Mailgun. Responses follow the manual
//! (<https://documentation.mailgun.com/docs/mailgun/quickstart-guide/responses>), with texts that users report:
//! <https://github.com/mailgun/mailgun-java/issues/50>, <https://github.com/mailgun/mailgun-js-boland/issues/199>,
//! <https://github.com/mailgun/wordpress-plugin/issues/68>.

use mail_parser::{MessageParser, MimeHeaders};
use postrider_http::{Http, HttpConfigError, HttpErrorKind, Mailgun};
use postrider_transport::{Attachment, Email, Recipient, Transport, Unsupported};
use serde_json::json;

use crate::conformance::{conformance_tests, leaky_text, status};
use crate::faults::{TestProvider, fault_tests};
use crate::mails::mail_tests;
use crate::support::{KEY, Row, assert_table, connect, outgoing, plain, rich, row, unsure_row};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct MailgunCase;

impl TestProvider for MailgunCase {
    type Provider = Mailgun;

    const TAKES_MIME: bool = true;

    fn provider() -> Mailgun {
        Mailgun::new(KEY, "mg.example.com").expect("a key and a domain")
    }

    fn accepted() -> HttpReply {
        Self.accept("<20111114174239.25659.5817@mg.example.com>")
    }
}

impl HttpApi for MailgunCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let (to, rest): (Vec<_>, Vec<_>) = request.form().into_iter().partition(|(name, ..)| name == "to");
        let text = |(_, _, value): &(String, Option<String>, Vec<u8>)| String::from_utf8_lossy(value).into_owned();
        vec![Accepted::new(to.iter().map(text).collect(), None, rest.iter().map(text).collect::<String>())]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(200, json!({"id": id, "message": "Queued. Thank you."}))
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let said = match answer {
            Answer::RateLimit(wait) => format!("{}, try again after {} seconds", leaky_text(), wait.as_secs()),
            _ => leaky_text(),
        };
        HttpReply::json(status(answer), json!({ "message": said }))
    }
}

fault_tests!(MailgunCase, status_is_enough: false);
mail_tests!(MailgunCase);
conformance_tests!(MailgunCase);

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([MailgunCase::accepted()]).await;
    let mail = outgoing(rich().reply_to("more@example.com").sender("office@example.com").header("X-Order", "43"));
    let transport = connect(MailgunCase::provider().test_mode(), &peer);
    let receipt = transport.send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("<20111114174239.25659.5817@mg.example.com>"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v3/mg.example.com/messages.mime"));
    // `printf 'api:KEY-that-nobody-may-see' | base64`
    assert_eq!(seen.header("authorization"), Some("Basic YXBpOktFWS10aGF0LW5vYm9keS1tYXktc2Vl"));
    let mut parts = seen.form();
    let (name, file_name, message) = parts.pop().expect("the message is last");
    assert_eq!((name.as_str(), file_name.as_deref()), ("message", Some("message.mime")));
    let fields: Vec<_> = parts.into_iter().map(|(name, _, value)| (name, String::from_utf8(value).unwrap())).collect();
    let expected = [
        ("to", "ada@example.org"),
        ("to", "bob@example.org"),
        ("to", "carol@example.org"),
        ("to", "dave@example.org"),
        ("o:tag", "welcome"),
        ("v:order", "42"),
        ("o:testmode", "yes"),
    ];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    let text = String::from_utf8(message.clone()).expect("the message is text");
    assert!(!text.contains("dave@"), "a bcc recipient is visible");
    assert!(!text.contains("X-Tag") && !text.contains("X-Metadata"), "tags and metadata have separate fields");
    let parsed = MessageParser::default().parse(&message).expect("a message");
    assert_eq!(format!("<{}>", parsed.message_id().unwrap()), mail.message_id());
    assert_eq!(parsed.to().unwrap().iter().count(), 2);
    assert_eq!(parsed.cc().unwrap().iter().count(), 1);
    assert_eq!(parsed.reply_to().unwrap().iter().count(), 2);
    assert_eq!(parsed.sender().unwrap().first().unwrap().address(), Some("office@example.com"));
    assert_eq!(parsed.header_values("X-Order").count(), 2);
    assert_eq!(parsed.header_raw("List-Unsubscribe").unwrap().trim(), "<https://example.com/u/1>");
    assert_eq!(parsed.subject(), Some("Hello"));
    assert_eq!(parsed.body_text(0).unwrap().trim(), "body-of-the-mail");
    assert!(parsed.body_html(0).unwrap().contains("cid:logo"));
    let logo = parsed.parts.iter().find(|part| part.content_id() == Some("logo")).expect("the inline part");
    assert_eq!(logo.contents(), b"\x89PNG");
    let terms = parsed.attachments().find(|part| part.attachment_name() == Some("terms.txt")).expect("the file");
    assert_eq!(terms.contents(), b"terms");
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([MailgunCase::accepted()]).await;
    let transport = connect(MailgunCase::provider(), &peer);
    let left = vec![Recipient::new("carol@example.org"), Recipient::new("dave@example.org")];
    transport.send(&outgoing(rich()).with_recipients(left)).await.expect("it is accepted");
    let parts = peer.seen()[0].form();
    let to: Vec<_> = parts.iter().filter(|(name, ..)| name == "to").map(|(.., value)| value.as_slice()).collect();
    assert_eq!(to, [b"carol@example.org".as_slice(), b"dave@example.org"]);
    let nobody =
        transport.send(&outgoing(rich()).with_recipients(Vec::new())).await.expect_err("the attempt has no recipients");
    assert!(nobody.downcast_ref::<Unsupported>().is_some(), "{nobody}");
    assert_eq!(peer.seen().len(), 1);
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, Quota, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let said = |text: &str| format!(r#"{{"message":"{text}"}}"#);
    let until = said(
        "Domain mg.example.com is not allowed to send: recipient limit exceeded, try again after Mon, 25 Aug 2025 07:00:31 UTC",
    );
    let date = [("date", "Mon, 25 Aug 2025 07:00:01 GMT")];
    let table = vec![
        row(400, &said("'to' parameter is not a valid address. please check documentation"), Recipient),
        row(400, &said("'from' parameter is not a valid address. please check documentation"), Sender),
        unsure_row(400, &said("message: malformed header of ada@example.org"), Message),
        row(400, &said("subject parameter is missing"), Message),
        row(
            403,
            &said("Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are for test purposes only."),
            Sender,
        ),
        row(400, &said("Domain mg.example.com is not allowed to send: Please activate your Mailgun account."), Account),
        row(
            400,
            &said(
                "Free accounts are for test purposes only. Please upgrade or add the address to authorized recipients.",
            ),
            Account,
        ),
        Row {
            reply: HttpReply::answer(401, &[("content-type", "text/plain")], "Forbidden"),
            kind: Account,
            retry_after: None,
            sure: true,
        },
        row(401, &said("Invalid private key"), Account),
        row(402, &said("Payment required"), Account),
        row(403, &said("Domain mg.example.com is not allowed to send: account disabled"), Account),
        row(404, &said("Domain not found: mg.example.com"), Sender),
        row(404, &said("not found"), Account),
        unsure_row(409, &said("no, ada@example.org"), Message),
        row(413, &said("Message is too large"), Message),
        Row { reply: HttpReply::answer(420, &date, &until), kind: Quota, retry_after: Some(30), sure: true },
        Row { reply: HttpReply::answer(403, &date, &until), kind: Quota, retry_after: Some(30), sure: true },
        row(420, &said("recipient limit exceeded"), Quota),
        Row {
            reply: HttpReply::json(429, said("Too many requests. Try again after 120 seconds.")),
            kind: RateLimit,
            retry_after: Some(120),
            sure: true,
        },
        Row {
            reply: HttpReply::answer(429, &[("retry-after", "9")], said("Too many requests")),
            kind: RateLimit,
            retry_after: Some(9),
            sure: true,
        },
        row(429, &said("try again after 0 seconds"), RateLimit),
        row(429, &said("try again after a while"), RateLimit),
        row(429, &said("try again after \u{e9}"), RateLimit),
        row(500, &said("Internal Server Error"), ServerError),
        row(503, &said("Service unavailable"), Unavailable),
    ];
    assert_table(MailgunCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([MailgunCase::accepted()]).await;
    let transport = connect(MailgunCase::provider(), &peer);
    let crowd = (0..1000).fold(plain(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    let large = Attachment::new("x.bin", "application/x", vec![0; 25 * 1024 * 1024]).expect("an attachment");
    for email in [
        plain().null_envelope_from(),
        plain().to("пошта@example.org"),
        plain().reply_to("пошта@example.org"),
        plain().sender("пошта@example.org"),
        plain().attach(Attachment::new("x", "message/rfc822", *b"a: \0").expect("an attachment")),
        plain().attach(Attachment::new("x", "message/rfc822", "a: é".as_bytes()).expect("an attachment")),
        plain().envelope_from("b@example.com".parse().expect("an address")),
        plain().header("X-Mailgun-Drop-Message", "yes"),
        plain().tag("1").tag("2").tag("3").tag("4"),
        plain().metadata("long", vec!["z"; 9000].join(" ")),
        crowd,
        plain().attach(large).size_limit(usize::MAX),
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
    let hidden = Email::builder().from("a@example.com").bcc("b@example.com").bcc("c@example.com").text("x");
    transport.send(&outgoing(hidden)).await.expect("a mail with only bcc recipients is accepted");
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([MailgunCase::accepted()]).await;
    let url = format!("mailgun://{KEY}@{}?domain=mg.example.com&testmode=true", peer.host());
    let transport = Http::<Mailgun>::from_url(&url).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].path, "/v3/mg.example.com/messages.mime");
    assert!(peer.seen()[0].form().iter().any(|(name, ..)| name == "o:testmode"));

    let shown = |url| format!("{:?}", Http::<Mailgun>::from_url(url).expect("a URL"));
    assert!(shown("mailgun://K@default?domain=a.b&region=eu").contains("https://api.eu.mailgun.net/"));
    assert!(shown("mailgun://K@default?domain=a.b").contains("https://api.mailgun.net/"));
    let error = |url| Http::<Mailgun>::from_url(url).err();
    assert_eq!(error("mailgun://K@default"), Some(HttpConfigError::Missing { what: "the setting domain" }));
    for url in ["mailgun://K@default?domain=a/b", "mailgun://K@default?domain=", "mailgun://K@default?domain=a..b"] {
        assert_eq!(
            error(url),
            Some(HttpConfigError::Value { setting: "domain", expected: "a domain name".to_owned() }),
            "{url}"
        );
    }
    let region = Some(HttpConfigError::Value { setting: "region", expected: "us or eu".to_owned() });
    assert_eq!(error("mailgun://K@default?domain=a.b&region=mars"), region);
    assert_eq!(error("mailgun://default?domain=a.b"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
