//! MailerSend. Answers are those of its manual, unless a line says otherwise:
//! <https://developers.mailersend.com/api/v1/email.html> and <https://developers.mailersend.com/general.html>.

use postrider_http::{Http, HttpConfigError, HttpError, HttpErrorKind, MailerSend};
use postrider_transport::{
    Attachment, Class, Email, EmailBuilder, ListUnsubscribe, Recipient, Refusal, Transport, Unsupported,
};
use serde_json::json;

use crate::alike::alike_tests;
use crate::conformance::{conformance_tests, echo, message, refusal, status};
use crate::faults::{Case, fault_tests};
use crate::support::{KEY, Line, ask, assert_discreet, check_table, connect, guess, line, outgoing, plain, rich};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
struct Mailersend;

impl Case for Mailersend {
    type Provider = MailerSend;

    fn provider() -> MailerSend {
        MailerSend::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("5e42957d51f1d94a1070a733")
    }
}

impl HttpApi for Mailersend {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        vec![message(&request.json(), ["to", "cc", "bcc"])]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::answer(202, &[("content-type", "text/plain; charset=utf-8"), ("x-message-id", id)], "")
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let status = if answer == Answer::RefuseMessage { 422 } else { status(answer) };
        refusal(status, json!({ "message": echo() }).to_string(), answer, "retry-after")
    }
}

fault_tests!(Mailersend, status_says_all: true);
alike_tests!(Mailersend);
conformance_tests!(Mailersend);

/// All that the API has a word for.
fn expressible() -> EmailBuilder {
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
async fn the_whole_mail_is_in_the_request() {
    let peer = HttpPeer::start([Mailersend::accepted()]).await;
    let mail = outgoing(expressible().tag("second"));
    let receipt = connect(Mailersend::provider(), &peer).send(&mail).await.expect("it is accepted");
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
async fn only_the_recipients_of_the_attempt_are_named() {
    let peer = HttpPeer::start([Mailersend::accepted()]).await;
    let mail = outgoing(expressible()).with_recipients(vec![Recipient::new("carol@example.org")]);
    connect(Mailersend::provider(), &peer).send(&mail).await.expect("it is accepted");
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
async fn who_is_suppressed_is_refused_and_the_others_are_accepted() {
    // An address in another case is the same; one that was not asked for is nobody's.
    let body = warning("SOME_SUPPRESSED", &["Bob@Example.org", "stranger@example.net"]);
    let reply = HttpReply::answer(202, &[("content-type", "application/json"), ("x-message-id", "5e42")], &body);
    let receipt = ask(Mailersend::provider(), expressible(), reply).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("5e42"));
    assert_eq!(receipt.refused, [Refusal::new("bob@example.org", Class::Permanent, "suppressed: hard_bounced")]);
    assert_eq!(receipt.reply.as_deref(), Some(body.as_str()));
}

#[tokio::test]
async fn nobody_got_it_when_all_are_suppressed() {
    for headers in [vec![], vec![("x-message-id", "5e42")]] {
        let reply = HttpReply::answer(202, &headers, warning("ALL_SUPPRESSED", &["ada@example.org"]));
        let failure = ask(Mailersend::provider(), plain(), reply).await.expect_err("nobody got it");
        let error = failure.downcast_ref::<HttpError>().expect("it is an HttpError");
        assert_eq!((error.kind(), error.code()), (HttpErrorKind::Recipient, Some("ALL_SUPPRESSED")));
        assert_eq!(failure.refused(), [Refusal::new("ada@example.org", Class::Permanent, "suppressed: hard_bounced")]);
        assert_discreet(&failure);
    }
}

#[tokio::test]
async fn a_warning_that_cannot_be_read_is_on_record() {
    let body = warning("SOME_SUPPRESSED", &["ada@example.org"]);
    for said in [&body[..body.len() / 2], "<html>"] {
        let reply = HttpReply::answer(202, &[("x-message-id", "5e42")], said);
        let receipt = ask(Mailersend::provider(), plain(), reply).await.expect("it is accepted");
        assert_eq!((receipt.provider_id.as_deref(), receipt.refused.len()), (Some("5e42"), 0));
        let reply = receipt.reply.expect("a note");
        assert!(reply.contains("who is suppressed is not known"), "{reply}");
    }
    let reply = HttpReply::answer(202, &[("x-message-id", "5e42")], "");
    let receipt = ask(Mailersend::provider(), plain(), reply).await.expect("it is accepted");
    assert_eq!(receipt.reply, None, "there is nothing to warn of");
}

#[tokio::test]
async fn a_success_without_an_id_is_in_doubt_where_it_is_not_its_own() {
    for body in ["", "{}", r#"{"warnings":null}"#, r#"{"warnings":[]}"#, &warning("SOME_SUPPRESSED", &[])] {
        let receipt = ask(Mailersend::provider(), plain(), HttpReply::json(202, body)).await.expect("it is accepted");
        assert_eq!((receipt.provider_id, receipt.refused.len()), (None, 0), "{body}");
    }
    for body in ["<html>Welcome to the lounge</html>", "[]", "\"accepted\""] {
        let failure = ask(Mailersend::provider(), plain(), HttpReply::json(202, body)).await.expect_err("not its own");
        assert!(failure.in_doubt(), "{body}: {failure}");
    }
}

#[tokio::test]
async fn answers() {
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
        guess(400, &said("There was an error when processing your request."), Message),
        line(401, &said("Unauthenticated."), Account),
        line(403, &said("Your account is suspended, you can't do any more requests. #MS40304"), Account),
        line(404, &said("Not Found"), Account),
        line(405, &said("Method Not Allowed"), Account),
        line(408, &said("Request Timeout"), Unavailable),
        line(421, "maintenance", Unavailable),
        line(422, &invalid("from.email", "The domain must be verified in your account. #MS42207"), Sender),
        line(422, &invalid("headers", "This feature requires a Hobby plan or higher. #MS42216"), Account),
        line(422, &invalid("to", "You have reached the trial domain unique recipients limit. #MS42225"), Account),
        line(422, &said("Your account reached its email quota limit. #MS42204"), Quota),
        line(
            422,
            &said("Mail #1 of #2: your account reached its email quota limit. #MS42204 (and 1 more error)"),
            Quota,
        ),
        line(422, &said("Your trial domain reached its email quota limit. #MS42222"), Quota),
        line(422, &invalid("from", "Your trial domain reached its email quota limit. #MS42222"), Quota),
        line(422, &invalid("to.0.email", "The to.0.email must be a valid email address. #MS42208"), Recipient),
        line(422, &invalid("from.email", "The from.email must be a valid email address. #MS42208"), Sender),
        line(422, &invalid("cc", "The cc recipient limit is exceeded. #MS42205"), Message),
        line(422, &invalid("attachments.0", "This file type is not supported. #MS42210"), Message),
        guess(422, &said("The given data was invalid: ada@example.org"), Message),
        guess(422, &said("Nobody knows. #MS42299"), Message),
        guess(422, &invalid("subject", "no such rule, ada@example.org"), Message),
        line(422, &both.to_string(), Sender),
        Line { reply: limited(&[], daily), kind: Quota, retry_after: Some(3600), sure: true },
        Line {
            reply: limited(&[("x-apiquota-remaining", "0")], "no"),
            kind: Quota,
            retry_after: Some(3600),
            sure: true,
        },
        Line {
            reply: HttpReply::answer(500, &[("x-apiquota-remaining", "0")], said("Server Error")),
            kind: ServerError,
            retry_after: None,
            sure: true,
        },
        Line { reply: limited(&[("retry-after", "17")], rate), kind: RateLimit, retry_after: Some(17), sure: true },
        line(500, &said("Server Error"), ServerError),
        line(503, &said("Service Unavailable"), Unavailable),
    ];
    check_table(Mailersend::provider, table).await;
}

#[tokio::test]
async fn what_it_cannot_express_is_refused_at_once_and_sends_nothing() {
    let peer = HttpPeer::start([Mailersend::accepted()]).await;
    let transport = connect(Mailersend::provider(), &peer);
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
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("it is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("it is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn reads_its_url() {
    let peer = HttpPeer::start([Mailersend::accepted()]).await;
    let transport = Http::<MailerSend>::from_url(&format!("mailersend://{KEY}@{}", peer.host())).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));

    let own = Http::<MailerSend>::from_url("mailersend://K@default").expect("a URL");
    assert!(format!("{own:?}").contains("https://api.mailersend.com/"), "{own:?}");
    let error = |url| Http::<MailerSend>::from_url(url).err();
    assert_eq!(error("mailersend://K@default?region=eu"), Some(HttpConfigError::UnknownSetting { known: Vec::new() }));
    assert_eq!(error("mailersend://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
