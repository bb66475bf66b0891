//! SendGrid. Responses follow the manual, unless a comment names another source:
//! <https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors>.

use std::time::{SystemTime, UNIX_EPOCH};

use postrider_http::{Http, HttpConfigError, HttpErrorKind, SendGrid};
use postrider_transport::{Attachment, Email, Recipient, Transport, Unsupported};
use serde_json::json;

use crate::conformance::{conformance_tests, leaky_text, message, status};
use crate::faults::{TestProvider, fault_tests};
use crate::mails::mail_tests;
use crate::support::{KEY, Row, assert_table, connect, outgoing, plain, rich, row, unsure_row};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct SendGridCase;

impl TestProvider for SendGridCase {
    type Provider = SendGrid;

    fn provider() -> SendGrid {
        SendGrid::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("14c5d75ce93.dfd.64b469")
    }
}

impl HttpApi for SendGridCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let mail = request.json();
        let mut read = message(&mail["personalizations"][0], ["to", "cc", "bcc"]);
        read.content = mail.to_string();
        vec![read]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::answer(202, &[("x-message-id", id)], "")
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let body = json!({"errors": [{"message": leaky_text(), "field": null, "help": null}]}).to_string();
        match answer {
            Answer::RateLimit(wait) => {
                let until =
                    (SystemTime::now() + wait).duration_since(UNIX_EPOCH).expect("the clock is after the epoch");
                HttpReply::answer(429, &[("x-ratelimit-reset", &until.as_secs().to_string())], body)
            }
            answer => HttpReply::json(status(answer), body),
        }
    }
}

fault_tests!(SendGridCase, status_is_enough: true);
mail_tests!(SendGridCase);
conformance_tests!(SendGridCase);

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let mail = outgoing(rich().reply_to("more@example.com"));
    let receipt = connect(SendGridCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("14c5d75ce93.dfd.64b469"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v3/mail/send"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let expected = json!({
        "personalizations": [{
            "to": [{"email": "ada@example.org"}, {"email": "bob@example.org", "name": "Bob"}],
            "cc": [{"email": "carol@example.org", "name": "Carol"}],
            "bcc": [{"email": "dave@example.org"}],
            "custom_args": {"order": "42"}
        }],
        "from": {"email": "shop@example.com", "name": "Shop"},
        "reply_to_list": [{"email": "help@example.com", "name": "Help"}, {"email": "more@example.com"}],
        "subject": "Hello",
        "content": [
            {"type": "text/plain", "value": "body-of-the-mail"},
            {"type": "text/html", "value": "<p>body-of-the-mail <img src=\"cid:logo\"></p>"}
        ],
        "attachments": [
            {"content": "dGVybXM=", "filename": "terms.txt", "type": "text/plain", "disposition": "attachment"},
            {"content": "iVBORw==", "filename": "logo.png", "type": "image/png", "disposition": "inline", "content_id": "logo"}
        ],
        "headers": {
            "X-Order": "42",
            "List-Unsubscribe": "<https://example.com/u/1>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "Message-ID": mail.message_id()
        },
        "categories": ["welcome"]
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_redundant_charset_is_omitted() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    for kind in
        ["text/plain", "text/plain; charset=utf-8", "text/plain;charset=\"US-ASCII\"", "text/plain ; Charset=UTF-8"]
    {
        let file = Attachment::new("a.txt", kind, *b"terms").expect("an attachment");
        connect(SendGridCase::provider(), &peer).send(&outgoing(plain().attach(file))).await.expect("it is accepted");
        let seen = peer.seen().pop().expect("a request").json();
        assert_eq!(seen["attachments"][0]["type"], "text/plain", "{kind}");
    }
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let mail = outgoing(rich()).with_recipients(vec![Recipient::new("carol@example.org")]);
    connect(SendGridCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    assert_eq!(seen["personalizations"][0]["to"], json!([{"email": "carol@example.org", "name": "Carol"}]));
    assert_eq!((seen["personalizations"][0].get("cc"), seen["personalizations"][0].get("bcc")), (None, None));
}

/// Otherwise SendGrid accepts the mail and drops it: <https://github.com/sendgrid/sendgrid-csharp/issues/268>.
#[tokio::test]
async fn a_recipient_name_with_a_comma_or_semicolon_is_quoted() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let mail = Email::builder()
        .from(("L, Ada", "shop@example.com"))
        .to(("Lovelace, Ada", "ada@example.org"))
        .to(("Ada Lovelace", "ada2@example.org"))
        .cc(("B; Bob", "bob@example.org"))
        .bcc((r#"The "one", only"#, "one@example.org"))
        .reply_to(("L, Ada", "help@example.com"))
        .subject("Hello")
        .text("Hi");
    connect(SendGridCase::provider(), &peer).send(&outgoing(mail)).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    let to = &seen["personalizations"][0];
    assert_eq!(to["to"][0]["name"], r#""Lovelace, Ada""#);
    assert_eq!(to["to"][1]["name"], "Ada Lovelace");
    assert_eq!(to["cc"][0]["name"], r#""B; Bob""#);
    assert_eq!(to["bcc"][0]["name"], r#""The \"one\", only""#);
    // In other fields the quotes would be visible.
    assert_eq!((&seen["from"]["name"], &seen["reply_to_list"][0]["name"]), (&json!("L, Ada"), &json!("L, Ada")));
}

#[tokio::test]
async fn a_repeated_tag_is_one_category() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let tags = (0..22).fold(plain(), |email, number| email.tag((9 - number % 10).to_string()));
    connect(SendGridCase::provider(), &peer).send(&outgoing(tags)).await.expect("it is accepted");
    let expected = json!(["9", "8", "7", "6", "5", "4", "3", "2", "1", "0"]);
    assert_eq!(peer.seen()[0].json()["categories"], expected);
}

#[tokio::test]
async fn a_sandbox_response_has_status_200() {
    let peer = HttpPeer::start([HttpReply::json(200, "{}")]).await;
    let transport = connect(SendGridCase::provider().sandbox(), &peer);
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    let live =
        connect(SendGridCase::provider(), &peer).send(&outgoing(plain())).await.expect_err("the response is unknown");
    assert!(live.in_doubt(), "{live}");
    assert_eq!(peer.seen()[0].json()["mail_settings"], json!({"sandbox_mode": {"enable": true}}));
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, Quota, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let errors = |text: &str| format!(r#"{{"errors":[{{"message":"{text}","field":null,"help":null}}]}}"#);
    let about = |field: &str, text: &str| format!(r#"{{"errors":[{{"message":"{text}","field":"{field}"}}]}}"#);
    let limited = [("date", "Tue, 24 Nov 2026 10:00:00 GMT"), ("x-ratelimit-reset", "1795514430")];
    let table = vec![
        unsure_row(400, &errors("nobody knows ada@example.org"), Message),
        unsure_row(418, &errors("nobody knows ada@example.org"), Message),
        row(
            400,
            &about("personalizations.0.to.0.email", "Does not contain a valid address. ada@example.org"),
            Recipient,
        ),
        row(400, &about("personalizations.0.cc", "Each email address should be unique"), Message),
        row(400, &about("from.email", "The from email does not contain a valid address."), Sender),
        row(400, &about("content.0.value", "The content value must be a string"), Message),
        // The types of the specification.
        unsure_row(400, r#"{"errors":[{"message":"invalid request","field":"null","help":{}}],"id":"1"}"#, Message),
        unsure_row(400, r#"{"errors":[{}]}"#, Message),
        row(413, &errors("payload too large"), Message),
        row(401, &errors("The provided authorization grant is invalid, expired, or revoked"), Account),
        row(401, &errors("Maximum credits exceeded"), Quota),
        row(403, &errors("The from address does not match a verified Sender Identity."), Sender),
        row(403, &errors("access forbidden"), Account),
        row(404, &errors("not found"), Account),
        row(405, &errors("method not allowed"), Account),
        row(500, &errors("error"), ServerError),
        row(503, &errors("error"), Unavailable),
        row(429, &errors("too many requests"), RateLimit),
        // Any response may have the header. A past time is ignored.
        Row {
            reply: HttpReply::answer(500, &limited, errors("error")),
            kind: ServerError,
            retry_after: None,
            sure: true,
        },
        Row {
            reply: HttpReply::answer(429, &[("date", limited[0].1), ("x-ratelimit-reset", "1795514400")], errors("no")),
            kind: RateLimit,
            retry_after: None,
            sure: true,
        },
        Row {
            reply: HttpReply::answer(429, &limited, errors("too many requests")),
            kind: RateLimit,
            retry_after: Some(30),
            sure: true,
        },
    ];
    assert_table(SendGridCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let transport = connect(SendGridCase::provider(), &peer);
    let tags = (0..11).fold(plain(), |email, number| email.tag(number.to_string()));
    let file = |name: &str, kind: &str| Attachment::new(name, kind, *b"x").expect("an attachment");
    let crowd = (0..1000).fold(plain(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    for email in [
        Email::builder().from("a@example.com").bcc("b@example.com").subject("x").text("x"),
        plain().subject(""),
        plain().text(""),
        plain().attach(Attachment::new("a.txt", "text/plain", *b"").expect("an attachment")),
        // https://github.com/sendgrid/sendgrid-go/issues/450
        plain().attach(file("a.ics", "text/calendar; method=REQUEST")),
        plain().attach(file("a.ics", "text/calendar; charset=utf-8; method=REQUEST")),
        plain().attach(file("a.txt", "text/plain; charset=iso-2022-jp")),
        // SendGrid would change the charset: https://github.com/anymail/django-anymail/issues/150
        plain().attach(Attachment::new("a.txt", "text/plain; charset=utf-8", "é".as_bytes()).expect("an attachment")),
        plain().attach(file("Terms, new.txt", "text/plain")),
        plain().attach(file("Terms; new.txt", "text/plain")),
        plain().attach(Attachment::inline("a,b", "a.png", "image/png", *b"x").expect("an attachment")),
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().header("X-A", "1").header("x-a", "2"),
        plain().header("X-SG-EID", "1"),
        plain().cc("ADA@example.org"),
        plain().cc("Zoë <zoe@example.org>").bcc("Zoe@example.org"),
        plain().to("zoë@example.org"),
        plain().reply_to("zoë@example.org"),
        plain()
            .metadata("long", "x".repeat(899) + " " + &"y".repeat(899))
            .metadata("longer", vec!["z"; 5000].join(" ")),
        tags,
        crowd,
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([SendGridCase::accepted()]).await;
    let transport =
        Http::<SendGrid>::from_url(&format!("sendgrid://{KEY}@{}?sandbox=true", peer.host())).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));

    let eu = Http::<SendGrid>::from_url("sendgrid://K@default?region=eu").expect("a URL");
    assert!(format!("{eu:?}").contains("https://api.eu.sendgrid.com/"), "{eu:?}");
    let error = |url| Http::<SendGrid>::from_url(url).err();
    assert_eq!(
        error("sendgrid://K@default?region=mars"),
        Some(HttpConfigError::Value { setting: "region", expected: "global or eu".to_owned() })
    );
    assert_eq!(error("sendgrid://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
