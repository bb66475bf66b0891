//! MailerSend. Responses follow the manual, unless a comment names another source:
//! <https://developers.mailersend.com/api/v1/email.html> and <https://developers.mailersend.com/general.html>.

use postrider_http::{Http, HttpConfigError, HttpError, HttpErrorKind, MailerSend};
use postrider_transport::{
    Attachment, Class, Email, EmailBuilder, ListUnsubscribe, Recipient, Refusal, Transport, Unsupported,
};
use serde_json::json;

use crate::conformance::{conformance_tests, leaky_text, message, refusal, status};
use crate::faults::{TestProvider, fault_tests};
use crate::mails::mail_tests;
use crate::support::{
    KEY, Row, assert_redacted, assert_table, connect, outgoing, plain, rich, row, send_one, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
struct MailerSendCase;

impl TestProvider for MailerSendCase {
    type Provider = MailerSend;

    fn provider() -> MailerSend {
        MailerSend::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("5e42957d51f1d94a1070a733")
    }
}

impl HttpApi for MailerSendCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        vec![message(&request.json(), ["to", "cc", "bcc"])]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::answer(202, &[("content-type", "text/plain; charset=utf-8"), ("x-message-id", id)], "")
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let status = if answer == Answer::RefuseMessage { 422 } else { status(answer) };
        refusal(status, json!({ "message": leaky_text() }).to_string(), answer, "retry-after")
    }
}

fault_tests!(MailerSendCase, status_is_enough: true);
mail_tests!(MailerSendCase);
conformance_tests!(MailerSendCase);

/// A mail with all parts that the API supports.
fn full_email() -> EmailBuilder {
    plain()
        .to("Bob <bob@example.org>")
        .cc("Carol <carol@example.org>")
        .bcc("dave@example.org")
        .reply_to("Help <help@example.com>")
        .html("<p>body-of-the-mail <img src=\"cid:logo\"></p>")
        .attach(Attachment::new("terms.txt", "text/plain", *b"terms").expect("an attachment"))
        .attach(Attachment::inline("logo", "logo.png", "image/png", *b"\x89PNG").expect("an image"))
        .header("X-Order", "42")
        .tag("welcome")
        .list_unsubscribe(ListUnsubscribe::one_click("https://example.com/u/1").expect("a link"))
}

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([MailerSendCase::accepted()]).await;
    let mail = outgoing(full_email().tag("second"));
    let receipt = connect(MailerSendCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("5e42957d51f1d94a1070a733"));
    assert_eq!(receipt.refused, []);
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/email"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let expected = json!({
        "from": {"email": "shop@example.com", "name": "Shop"},
        "to": [{"email": "ada@example.org"}, {"email": "bob@example.org", "name": "Bob"}],
        "cc": [{"email": "carol@example.org", "name": "Carol"}],
        "bcc": [{"email": "dave@example.org"}],
        "reply_to": {"email": "help@example.com", "name": "Help"},
        "subject": "Hello",
        "text": "body-of-the-mail",
        "html": "<p>body-of-the-mail <img src=\"cid:logo\"></p>",
        "attachments": [
            {"content": "dGVybXM=", "filename": "terms.txt", "disposition": "attachment"},
            {"content": "iVBORw==", "filename": "logo.png", "disposition": "inline", "id": "logo"}
        ],
        "tags": ["welcome", "second"],
        "headers": [{"name": "X-Order", "value": "42"}],
        "list_unsubscribe": "<https://example.com/u/1>"
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([MailerSendCase::accepted()]).await;
    let mail = outgoing(full_email()).with_recipients(vec![Recipient::new("carol@example.org")]);
    connect(MailerSendCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    assert_eq!(seen["to"], json!([{"email": "carol@example.org", "name": "Carol"}]));
    assert_eq!((seen.get("cc"), seen.get("bcc")), (None, None));
}

fn warning(kind: &str, addresses: &[&str]) -> String {
    let recipients: Vec<_> =
        addresses.iter().map(|email| json!({"email": email, "name": null, "reasons": ["hard_bounced"]})).collect();
    json!({
        "message": "There are some warnings for your request.",
        "warnings": [{"type": kind, "warning": "suppressed", "recipients": recipients}]
    })
    .to_string()
}

#[tokio::test]
async fn suppressed_recipients_are_refused_and_the_others_accepted() {
    // Addresses are compared without case. An address outside the attempt is ignored.
    let body = warning("SOME_SUPPRESSED", &["Bob@Example.org", "stranger@example.net"]);
    let reply = HttpReply::answer(202, &[("content-type", "application/json"), ("x-message-id", "5e42")], &body);
    let receipt = send_one(MailerSendCase::provider(), full_email(), reply).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("5e42"));
    assert_eq!(receipt.refused, [Refusal::new("bob@example.org", Class::Permanent, "suppressed: hard_bounced")]);
    assert_eq!(receipt.reply.as_deref(), Some(body.as_str()));
}

#[tokio::test]
async fn a_mail_with_only_suppressed_recipients_is_refused() {
    for headers in [vec![], vec![("x-message-id", "5e42")]] {
        let reply = HttpReply::answer(202, &headers, warning("ALL_SUPPRESSED", &["ada@example.org"]));
        let failure = send_one(MailerSendCase::provider(), plain(), reply).await.expect_err("no recipient is accepted");
        let error = failure.downcast_ref::<HttpError>().expect("it is an HttpError");
        assert_eq!((error.kind(), error.code()), (HttpErrorKind::Recipient, Some("ALL_SUPPRESSED")));
        assert_eq!(failure.refused(), [Refusal::new("ada@example.org", Class::Permanent, "suppressed: hard_bounced")]);
        assert_redacted(&failure);
    }
}

#[tokio::test]
async fn an_unreadable_warning_is_recorded() {
    let body = warning("SOME_SUPPRESSED", &["ada@example.org"]);
    for said in [&body[..body.len() / 2], "<html>"] {
        let reply = HttpReply::answer(202, &[("x-message-id", "5e42")], said);
        let receipt = send_one(MailerSendCase::provider(), plain(), reply).await.expect("it is accepted");
        assert_eq!((receipt.provider_id.as_deref(), receipt.refused.len()), (Some("5e42"), 0));
        let reply = receipt.reply.expect("a note");
        assert!(reply.contains("suppressed recipients are unknown"), "{reply}");
    }
    let reply = HttpReply::answer(202, &[("x-message-id", "5e42")], "");
    let receipt = send_one(MailerSendCase::provider(), plain(), reply).await.expect("it is accepted");
    assert_eq!(receipt.reply, None, "the response has no warnings");
}

#[tokio::test]
async fn a_success_without_id_is_in_doubt_unless_the_body_is_valid() {
    for body in ["", "{}", r#"{"warnings":null}"#, r#"{"warnings":[]}"#, &warning("SOME_SUPPRESSED", &[])] {
        let receipt =
            send_one(MailerSendCase::provider(), plain(), HttpReply::json(202, body)).await.expect("it is accepted");
        assert_eq!((receipt.provider_id, receipt.refused.len()), (None, 0), "{body}");
    }
    for body in ["<html>Welcome to the lounge</html>", "[]", "\"accepted\""] {
        let failure = send_one(MailerSendCase::provider(), plain(), HttpReply::json(202, body))
            .await
            .expect_err("the body is not the provider's");
        assert!(failure.in_doubt(), "{body}: {failure}");
    }
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, Quota, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let said = |text: &str| json!({ "message": text }).to_string();
    let invalid = |field: &str, text: &str| {
        json!({"message": "The given data was invalid.", "errors": {field: [text]}}).to_string()
    };
    let both = json!({"message": "The given data was invalid.", "errors": {
        "subject": ["The subject field is required. #MS42209"],
        "from.email": ["The from.email domain must be verified in your account to send emails. #MS42207"]
    }});
    let date = ("date", "Tue, 24 Nov 2026 23:00:00 GMT");
    let daily = "Your account reached its API daily quota limit. Upgrade to increase it. #MS42901";
    let rate = "Your account reached its rate limit of 120 requests/min. Please wait before trying again. #MS42903";
    let limited =
        |headers: &[(&str, &str)], text: &str| HttpReply::answer(429, &[headers, &[date][..]].concat(), said(text));
    let table = vec![
        unsure_row(400, &said("There was an error when processing your request."), Message),
        row(401, &said("Unauthenticated."), Account),
        row(403, &said("Your account is suspended, you can't do any more requests. #MS40304"), Account),
        row(404, &said("Not Found"), Account),
        row(405, &said("Method Not Allowed"), Account),
        row(408, &said("Request Timeout"), Unavailable),
        row(421, "maintenance", Unavailable),
        row(422, &invalid("from.email", "The domain must be verified in your account. #MS42207"), Sender),
        row(422, &invalid("headers", "This feature requires a Hobby plan or higher. #MS42216"), Account),
        row(422, &invalid("to", "You have reached the trial domain unique recipients limit. #MS42225"), Account),
        row(422, &said("Your account reached its email quota limit. #MS42204"), Quota),
        row(
            422,
            &said("Mail #1 of #2: your account reached its email quota limit. #MS42204 (and 1 more error)"),
            Quota,
        ),
        row(422, &said("Your trial domain reached its email quota limit. #MS42222"), Quota),
        row(422, &invalid("from", "Your trial domain reached its email quota limit. #MS42222"), Quota),
        row(422, &invalid("to.0.email", "The to.0.email must be a valid email address. #MS42208"), Recipient),
        row(422, &invalid("from.email", "The from.email must be a valid email address. #MS42208"), Sender),
        row(422, &invalid("cc", "The cc recipient limit is exceeded. #MS42205"), Message),
        row(422, &invalid("attachments.0", "This file type is not supported. #MS42210"), Message),
        unsure_row(422, &said("The given data was invalid: ada@example.org"), Message),
        unsure_row(422, &said("Nobody knows. #MS42299"), Message),
        unsure_row(422, &invalid("subject", "no such rule, ada@example.org"), Message),
        row(422, &both.to_string(), Sender),
        Row { reply: limited(&[], daily), kind: Quota, retry_after: Some(3600), sure: true },
        Row {
            reply: limited(&[("x-apiquota-remaining", "0")], "no"),
            kind: Quota,
            retry_after: Some(3600),
            sure: true,
        },
        Row {
            reply: HttpReply::answer(500, &[("x-apiquota-remaining", "0")], said("Server Error")),
            kind: ServerError,
            retry_after: None,
            sure: true,
        },
        Row { reply: limited(&[("retry-after", "17")], rate), kind: RateLimit, retry_after: Some(17), sure: true },
        row(500, &said("Server Error"), ServerError),
        row(503, &said("Service Unavailable"), Unavailable),
    ];
    assert_table(MailerSendCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([MailerSendCase::accepted()]).await;
    let transport = connect(MailerSendCase::provider(), &peer);
    let tags = (0..6).fold(plain(), |email, number| email.tag(number.to_string()));
    let address = |number: u32| format!("n{number}@example.org");
    let list = |list: ListUnsubscribe| plain().list_unsubscribe(list);
    let one_click = || ListUnsubscribe::one_click("https://example.com/u").expect("a link");
    for email in [
        rich(),
        Email::builder().from("a@example.com").bcc("b@example.com").subject("x").text("x"),
        Email::builder().from("a@example.com").to("b@example.com").text("no subject"),
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().cc("zoë@example.org"),
        plain().reply_to("zoë@example.org"),
        plain().reply_to("b@example.com").reply_to("c@example.com"),
        plain().to("\"Lovelace, Ada\" <ada@example.org>"),
        plain().subject("é".repeat(999).replace("éééééééééé", "ééééééééé ")),
        plain().text("x".repeat(2 * 1024 * 1024 + 1)),
        plain().html("<p>Hello {{name}}</p>"),
        plain().header("X_Order", "42"),
        plain().attach(Attachment::new("README", "text/plain", *b"x").expect("an attachment")),
        list(ListUnsubscribe::uri("mailto:leave@example.com").expect("a link")),
        list(one_click().or("mailto:leave@example.com").expect("a link")),
        tags,
        (0..50).fold(plain(), |email, number| email.to(address(number).as_str())),
        (0..11).fold(plain(), |email, number| email.cc(address(number).as_str())),
        (0..11).fold(plain(), |email, number| email.bcc(address(number).as_str())),
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
    let peer = HttpPeer::start([MailerSendCase::accepted()]).await;
    let transport = Http::<MailerSend>::from_url(&format!("mailersend://{KEY}@{}", peer.host())).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));

    let own = Http::<MailerSend>::from_url("mailersend://K@default").expect("a URL");
    assert!(format!("{own:?}").contains("https://api.mailersend.com/"), "{own:?}");
    let error = |url| Http::<MailerSend>::from_url(url).err();
    assert_eq!(error("mailersend://K@default?region=eu"), Some(HttpConfigError::UnknownSetting { known: Vec::new() }));
    assert_eq!(error("mailersend://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
