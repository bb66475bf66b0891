//! Brevo. Responses follow the manual, <https://developers.brevo.com/docs/how-it-works>. The response to a repeated idempotency key is
//! recorded in <https://github.com/getbrevo/brevo-node/issues/94>.

use postrider_http::{Brevo, Http, HttpConfigError, HttpErrorKind};
use postrider_transport::{Attachment, EmailBuilder, ListUnsubscribe, Recipient, Transport, Unsupported};
use serde_json::json;

use crate::conformance::{conformance_tests, leaky_text, message, refusal, status};
use crate::faults::{TestProvider, fault_tests};
use crate::mails::mail_tests;
use crate::support::{KEY, Row, assert_table_for, connect, outgoing, plain, row, unsure_row};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct BrevoCase;

impl TestProvider for BrevoCase {
    type Provider = Brevo;

    fn provider() -> Brevo {
        Brevo::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("<201906041124.44340027797@smtp-relay.mailin.fr>")
    }

    /// Brevo requires an HTML body.
    fn mail() -> EmailBuilder {
        plain().html("<p>body-of-the-mail</p>")
    }
}

impl HttpApi for BrevoCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        vec![message(&request.json(), ["to", "cc", "bcc"])]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(201, json!({ "messageId": id }))
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let code = match answer {
            Answer::RefuseMessage => "invalid_parameter",
            Answer::RefuseCredentials => "unauthorized",
            Answer::RateLimit(_) => "too_many_requests",
            _ => "internal_error",
        };
        let body = json!({"code": code, "message": leaky_text()}).to_string();
        refusal(status(answer), body, answer, "x-sib-ratelimit-reset")
    }
}

fault_tests!(BrevoCase, status_is_enough: false);
mail_tests!(BrevoCase);
conformance_tests!(BrevoCase);

/// A mail with all parts that the API supports.
fn full_email() -> EmailBuilder {
    BrevoCase::mail()
        .to("Bob <bob@example.org>")
        .cc("Carol <carol@example.org>")
        .bcc("dave@example.org")
        .reply_to("Help <help@example.com>")
        .attach(Attachment::new("Terms.TXT", "text/plain", *b"terms").expect("an attachment"))
        .header("X-Order", "42")
        .tag("welcome")
        .metadata("order", "42")
}

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([BrevoCase::accepted()]).await;
    let receipt = connect(BrevoCase::provider(), &peer).send(&outgoing(full_email())).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("<201906041124.44340027797@smtp-relay.mailin.fr>"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v3/smtp/email"));
    assert_eq!(seen.header("api-key"), Some(KEY));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let expected = json!({
        "sender": {"email": "shop@example.com", "name": "Shop"},
        "to": [{"email": "ada@example.org"}, {"email": "bob@example.org", "name": "Bob"}],
        "cc": [{"email": "carol@example.org", "name": "Carol"}],
        "bcc": [{"email": "dave@example.org"}],
        "replyTo": {"email": "help@example.com", "name": "Help"},
        "subject": "Hello",
        "htmlContent": "<p>body-of-the-mail</p>",
        "textContent": "body-of-the-mail",
        "attachment": [{"name": "Terms.TXT", "content": "dGVybXM="}],
        "headers": {
            "X-Order": "42",
            "X-Mailin-custom": "{\"order\":\"42\"}",
            // `uuid.uuid5(uuid.UUID("0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00"), "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00-1")` in Python
            "idempotencyKey": UUID5
        },
        "tags": ["welcome"]
    });
    assert_eq!(seen.json(), expected);
}

const UUID5: &str = "a1635a8b-40d8-513f-a2ad-d12f1028b0ac";

#[tokio::test]
async fn an_attempt_for_some_recipients_has_its_own_idempotency_key() {
    let peer = HttpPeer::start([BrevoCase::accepted()]).await;
    let transport = connect(BrevoCase::provider(), &peer);
    let left = vec![Recipient::new("carol@example.org")];
    transport.send(&outgoing(full_email()).with_recipients(left)).await.expect("it is accepted");
    transport.send(&outgoing(full_email()).with_attempt(7, 2)).await.expect("it is accepted");
    transport.send(&outgoing(full_email()).with_attempt(3, 1)).await.expect("it is accepted");
    let seen: Vec<_> = peer.seen().iter().map(|seen| seen.json()).collect();
    assert_eq!(seen[0]["to"], json!([{"email": "carol@example.org", "name": "Carol"}]));
    assert_eq!((seen[0].get("cc"), seen[0].get("bcc")), (None, None));
    let keys: Vec<_> = seen.iter().map(|seen| seen["headers"]["idempotencyKey"].as_str().expect("a key")).collect();
    assert!(keys[0] != keys[1] && keys[0] != UUID5 && keys[1] != UUID5, "{keys:?}");
    assert_eq!(keys[2], UUID5);
}

#[tokio::test]
async fn a_retry_of_a_processed_mail_is_accepted() {
    let processed =
        r#"{"code":"duplicate_parameter","message":"Email for the idempotency key has already been processed"}"#;
    let peer = HttpPeer::start([HttpReply::Close, HttpReply::json(400, processed)]).await;
    let transport = connect(BrevoCase::provider(), &peer);
    let lost = transport.send(&outgoing(full_email())).await.expect_err("the response is lost");
    assert!(lost.in_doubt());
    let receipt =
        transport.send(&outgoing(full_email()).with_attempt(2, 1)).await.expect("the mail was accepted earlier");
    assert_eq!((receipt.provider_id, receipt.reply.as_deref()), (None, Some(processed)));
    let seen = peer.seen();
    assert_eq!(seen[0].body, seen[1].body);
}

#[tokio::test]
async fn sandbox_is_a_field_of_the_request() {
    let peer = HttpPeer::start([BrevoCase::accepted()]).await;
    connect(BrevoCase::provider().sandbox(), &peer).send(&outgoing(full_email())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].json()["headers"]["X-Sib-Sandbox"], json!("drop"));
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, Quota, RateLimit, Sender, ServerError, Unavailable};
    let said = |code: &str, message: &str| format!(r#"{{"code":"{code}","message":"{message}"}}"#);
    let table = vec![
        row(400, &said("invalid_parameter", "email is not valid in to: ada@example.org"), Message),
        row(400, &said("missing_parameter", "Either of htmlContent or textContent is required"), Message),
        row(400, &said("duplicate_parameter", "cc has one address twice"), Message),
        row(
            400,
            &said(
                "invalid_parameter",
                "Sending has been rejected because the sender you used a@sender.example is not valid. Validate your sender or authenticate your domain",
            ),
            Sender,
        ),
        row(400, &said("not_enough_credits", "no credits left"), Quota),
        row(401, &said("unauthorized", "Key not found"), Account),
        row(402, &said("not_enough_credits", "Not enough credit, plan upgrade needed"), Quota),
        row(403, &said("permission_denied", "Your SMTP account is not yet activated"), Account),
        row(404, &said("document_not_found", "no such path"), Account),
        row(405, &said("method_not_allowed", "no such method"), Account),
        row(406, &said("not_acceptable", "content type"), Account),
        row(400, &said("invalid_parameter", "email is not valid in to: sender@example.org"), Message),
        unsure_row(400, &said("nobody_knows", "no, ada@example.org"), Message),
        unsure_row(422, r#"{"message":"no code"}"#, Message),
        row(413, &said("invalid_parameter", "too large"), Message),
        row(422, &said("unprocessable_entity", "cannot be processed"), Message),
        row(429, &said("too_many_requests", "slow down"), RateLimit),
        Row {
            reply: HttpReply::answer(429, &[("x-sib-ratelimit-reset", "12")], said("too_many_requests", "slow down")),
            kind: RateLimit,
            retry_after: Some(12),
            sure: true,
        },
        Row {
            reply: HttpReply::answer(429, &[("x-sib-ratelimit-reset", "0")], said("too_many_requests", "slow down")),
            kind: RateLimit,
            retry_after: None,
            sure: true,
        },
        Row {
            reply: HttpReply::answer(500, &[("x-sib-ratelimit-reset", "1")], said("internal_error", "it failed")),
            kind: ServerError,
            retry_after: None,
            sure: true,
        },
        Row {
            reply: HttpReply::answer(400, &[("x-sib-ratelimit-reset", "12")], said("invalid_parameter", "bad")),
            kind: Message,
            retry_after: None,
            sure: true,
        },
        row(500, &said("internal_error", "it failed"), ServerError),
        row(503, &said("unavailable", "down"), Unavailable),
    ];
    assert_table_for(BrevoCase::mail, BrevoCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([BrevoCase::accepted()]).await;
    let transport = connect(BrevoCase::provider(), &peer);
    let file = |name: &str| Attachment::new(name, "text/plain", *b"x").expect("an attachment");
    let crowd = (0..99).fold(BrevoCase::mail(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    let mail = BrevoCase::mail;
    for email in [
        plain(),
        mail().subject(""),
        mail().sender("b@example.com"),
        mail().null_envelope_from(),
        mail().reply_to("a@example.com").reply_to("b@example.com"),
        mail().reply_to(("Müller, Anna", "a@example.com")),
        mail().list_unsubscribe(ListUnsubscribe::uri("https://example.com/u").expect("a link")),
        mail().to(("n".repeat(71), "n@example.org")),
        mail().to("пошта@example.org"),
        mail().attach(Attachment::inline("logo", "logo.png", "image/png", *b"x").expect("an image")),
        mail().attach(file("run.exe")),
        mail().attach(file("txt")),
        mail().attach(file("é.txt")),
        mail().header("In-Reply-To", "<x@example.com>"),
        mail().header("X-Sib-Sandbox", "drop"),
        mail().header("X-Mailin-custom", "x"),
        mail().header("X-A", "é"),
        mail().header("X-A", "1").header("x-a", "2"),
        mail().metadata("name", "é"),
        mail().subject("Hello {{ contact.NAME }}"),
        mail().html("<p>{% if x %}</p>"),
        mail().text("{{ x }}"),
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
    let peer = HttpPeer::start([BrevoCase::accepted()]).await;
    let url = format!("brevo://{KEY}@{}?sandbox=true", peer.host());
    Http::<Brevo>::from_url(&url).expect("a URL").send(&outgoing(full_email())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("api-key"), Some(KEY));
    assert_eq!(peer.seen()[0].json()["headers"]["X-Sib-Sandbox"], json!("drop"));

    let shown = format!("{:?}", Http::<Brevo>::from_url("brevo://K@default").expect("a URL"));
    assert!(shown.contains("https://api.brevo.com/"), "{shown}");
    let error = |url| Http::<Brevo>::from_url(url).err();
    assert_eq!(
        error("brevo://K@default?region=eu"),
        Some(HttpConfigError::UnknownSetting { known: vec!["sandbox".to_owned()] })
    );
    assert_eq!(
        error("brevo://K@default?sandbox=1"),
        Some(HttpConfigError::Value { setting: "sandbox", expected: "false or true".to_owned() })
    );
    assert_eq!(error("brevo://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
