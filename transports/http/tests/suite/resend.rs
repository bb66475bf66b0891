//! Resend. Errors follow <https://resend.com/docs/api-reference/errors>, responses to batches
//! <https://resend.com/docs/api-reference/emails/send-batch-emails>, unless a comment names another source.

use postrider_http::{Http, HttpConfigError, HttpErrorKind, Resend};
use postrider_transport::{Attachment, Email, Outgoing, Recipient, Transport, Unsupported};
use serde_json::{Value, json};

use crate::conformance::{conformance_tests, leaky_text, message, refusal};
use crate::faults::{TestProvider, fault_tests, kind};
use crate::mails::mail_tests;
use crate::support::{
    KEY, Row, assert_redacted, assert_table, connect, new_delivery, outgoing, plain, rich, row, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct ResendCase;

impl TestProvider for ResendCase {
    type Provider = Resend;

    fn provider() -> Resend {
        Resend::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("49a3999c-0ce1-4ea6-ab68-afcd6dc2e794")
    }
}

impl HttpApi for ResendCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let sent = request.json();
        let alone = std::slice::from_ref(&sent);
        let mails = sent.as_array().map_or(alone, Vec::as_slice);
        mails.iter().map(|mail| message(mail, ["to", "cc", "bcc"])).collect()
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(200, json!({ "id": id }))
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let (status, name) = match answer {
            Answer::RefuseMessage => (422, "validation_error"),
            Answer::RefuseCredentials => (403, "invalid_api_key"),
            Answer::RateLimit(_) => (429, "rate_limit_exceeded"),
            Answer::Unavailable => (503, "service_unavailable"),
            _ => (500, "internal_server_error"),
        };
        let body = json!({"statusCode": status, "name": name, "message": leaky_text()}).to_string();
        refusal(status, body, answer, "retry-after")
    }

    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        let data: Vec<_> = outcomes.iter().flatten().map(|id| json!({ "id": id })).collect();
        let faulty = outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        let errors: Vec<_> = faulty.map(|(place, _)| json!({"index": place, "message": leaky_text()})).collect();
        HttpReply::json(200, json!({"data": data, "errors": errors}))
    }
}

fault_tests!(ResendCase, status_is_enough: false);
mail_tests!(ResendCase);
conformance_tests!(ResendCase);

fn error(status: u16, name: &str) -> String {
    json!({"statusCode": status, "name": name, "message": "no, ada@example.org"}).to_string()
}

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let mail = outgoing(rich().reply_to("\"More, or less\" <more@example.com>"));
    let receipt = connect(ResendCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("49a3999c-0ce1-4ea6-ab68-afcd6dc2e794"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/emails"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some(mail.idempotency_key().as_str()));
    let expected = json!({
        "from": "Shop <shop@example.com>",
        "to": ["ada@example.org", "Bob <bob@example.org>"],
        "cc": ["Carol <carol@example.org>"],
        "bcc": ["dave@example.org"],
        "reply_to": ["Help <help@example.com>", "\"More, or less\" <more@example.com>"],
        "subject": "Hello",
        "text": "body-of-the-mail",
        "html": "<p>body-of-the-mail <img src=\"cid:logo\"></p>",
        "headers": {
            "X-Order": "42",
            "List-Unsubscribe": "<https://example.com/u/1>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"
        },
        "attachments": [
            {"filename": "terms.txt", "content": "dGVybXM=", "content_type": "text/plain"},
            {"filename": "logo.png", "content": "iVBORw==", "content_type": "image/png", "content_id": "logo"}
        ],
        "tags": [{"name": "welcome", "value": "true"}, {"name": "order", "value": "42"}]
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn an_attempt_for_some_recipients_has_its_own_idempotency_key() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let transport = connect(ResendCase::provider(), &peer);
    let some = outgoing(rich()).with_recipients(vec![Recipient::new("carol@example.org")]);
    transport.send(&some).await.expect("it is accepted");
    transport.send(&outgoing(rich())).await.expect("it is accepted");
    transport.send(&outgoing(rich()).with_attempt(3, 2)).await.expect("it is accepted");
    let seen = peer.seen();
    assert_eq!(seen[0].json()["to"], json!(["Carol <carol@example.org>"]));
    assert_eq!((seen[0].json().get("cc"), seen[0].json().get("bcc")), (None, None));
    let keys: std::collections::HashSet<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 3, "a retry for some recipients and a resend have other keys");
}

/// Without a text, Resend would generate one: <https://resend.com/docs/api-reference/emails/send-email>.
#[tokio::test]
async fn a_missing_text_is_sent_as_empty() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let email = Email::builder().from("a@example.com").to("b@example.com").html("<p>x</p>");
    connect(ResendCase::provider(), &peer).send(&outgoing(email)).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].json()["text"], "");
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Sender, ServerError, Unavailable};
    let said = |status: u16, text: &str| {
        json!({"statusCode": status, "name": "validation_error", "message": text}).to_string()
    };
    let mut table = vec![
        unsure_row(400, r#"{"error":"in another form"}"#, Account),
        row(200, &error(422, "validation_error"), NoResponse),
        row(403, &said(403, "The example.com domain is not verified. Please, add and verify your domain"), Sender),
        row(403, &said(403, "You can only send testing emails to your own email address (ada@example.org)."), Sender),
        unsure_row(403, &said(403, "nobody knows domain@domain.example"), Message),
        row(400, &said(400, "API key is invalid"), Account),
        row(401, &said(401, "API key is invalid"), Account),
        unsure_row(422, &error(422, "nobody_knows"), Message),
        unsure_row(422, &error(422, "invalid_access"), Message),
        unsure_row(403, &error(403, "nobody_knows"), Message),
        row(401, &error(401, "nobody_knows"), Account),
    ];
    for (status, name, kind) in [
        (400, "validation_error", Message),
        (422, "validation_error", Message),
        (422, "invalid_attachment", Message),
        (422, "invalid_from_address", Sender),
        (422, "invalid_parameter", Message),
        (422, "missing_required_field", Message),
        (451, "security_error", Message),
        (409, "invalid_idempotent_request", NoResponse),
        (409, "concurrent_idempotent_requests", NoResponse),
        (400, "invalid_idempotency_key", Message),
        (401, "missing_api_key", Account),
        (401, "restricted_api_key", Account),
        (403, "invalid_api_key", Account),
        // From Resend's own client: <https://github.com/resend/resend-node/blob/canary/src/interfaces.ts>.
        (403, "suspended_api_key", Account),
        (403, "invalid_permission", Account),
        (404, "not_found", Account),
        (405, "method_not_allowed", Account),
        (429, "daily_quota_exceeded", Quota),
        (429, "monthly_quota_exceeded", Quota),
        (429, "rate_limit_exceeded", RateLimit),
        (500, "application_error", ServerError),
        (500, "internal_server_error", ServerError),
        (503, "service_unavailable", Unavailable),
    ] {
        table.push(row(status, &error(status, name), kind));
    }
    let slow = HttpReply::answer(429, &[("retry-after", "2")], error(429, "rate_limit_exceeded"));
    table.push(Row { reply: slow, kind: RateLimit, retry_after: Some(2), sure: true });
    assert_table(ResendCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let transport = connect(ResendCase::provider(), &peer);
    let crowd = |number| (1..number).fold(plain(), |email, number| email.to(format!("n{number}@example.org").as_str()));
    let huge = Attachment::new("a.txt", "text/plain", vec![b'x'; 32 * 1024 * 1024]).expect("an attachment");
    for email in [
        Email::builder().from("a@example.com").bcc("b@example.com").text("x"),
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().header("X-A", "1").header("x-a", "2"),
        plain().tag("two words"),
        plain().tag("same").metadata("same", "1"),
        plain().metadata("a", "é"),
        plain().metadata("a", ""),
        plain().metadata("a", "x".repeat(257)),
        plain().attach(huge).size_limit(usize::MAX),
        crowd(51),
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
    for email in [crowd(50), plain().metadata("a", "x".repeat(256)).tag("b").tag("c")] {
        transport.check(&email.build().expect("a mail")).expect("the mail is within the limits");
    }
}

fn batch(number: usize) -> Vec<Outgoing<Email>> {
    (0..number).map(|number| new_delivery(plain().subject(format!("number {number}")))).collect()
}

/// The response to a batch in which the messages at these indexes are refused. The others have their index as id.
fn batch_response(number: usize, faulty: &[usize]) -> HttpReply {
    let data: Vec<_> =
        (0..number).filter(|place| !faulty.contains(place)).map(|place| json!({"id": place.to_string()})).collect();
    let errors: Vec<_> =
        faulty.iter().map(|place| json!({"index": place, "message": "The `to` field is missing."})).collect();
    // Only permissive mode has the array. The manual does not say whether an empty one is omitted.
    let mut body = json!({"data": data});
    if !errors.is_empty() {
        body["errors"] = errors.into();
    }
    HttpReply::json(200, body.to_string())
}

fn paths(seen: &[HttpRequest]) -> Vec<&str> {
    seen.iter().map(|seen| seen.path.as_str()).collect()
}

#[tokio::test]
async fn refused_messages_of_a_batch_are_sent_alone() {
    let unverified =
        json!({"statusCode": 403, "name": "validation_error", "message": "The x.example domain is not verified."});
    let unverified = HttpReply::json(403, unverified);
    let bad = HttpReply::json(422, error(422, "validation_error"));
    let peer = HttpPeer::start([batch_response(5, &[3, 1]), bad, unverified]).await;
    let mails = batch(5);
    let results = connect(ResendCase::provider(), &peer).send_batch(&mails).await;

    let ids: Vec<_> =
        results.iter().map(|result| result.as_ref().ok().and_then(|it| it.provider_id.as_deref())).collect();
    assert_eq!(ids, [Some("0"), None, Some("2"), None, Some("4")]);
    let kinds: Vec<_> = results.iter().filter_map(|result| result.as_ref().err().map(kind)).collect();
    assert_eq!(kinds, [HttpErrorKind::Message, HttpErrorKind::Sender]);

    let seen = peer.seen();
    assert_eq!(paths(&seen), ["/emails/batch", "/emails", "/emails"]);
    assert_eq!(seen[0].header("x-batch-validation"), Some("permissive"));
    let together = seen[0].json();
    for (alone, place) in [(&seen[1], 1), (&seen[2], 3)] {
        assert_eq!(alone.json(), together[place], "a message is the same in a batch and alone");
        assert_eq!(alone.header("idempotency-key"), Some(mails[place].idempotency_key().as_str()));
    }
}

#[tokio::test]
async fn the_batch_key_depends_on_the_messages_and_their_order() {
    let peer = HttpPeer::start([batch_response(3, &[])]).await;
    let transport = connect(ResendCase::provider(), &peer);
    let mails = batch(4);
    let pick = |places: [usize; 3]| places.map(|place| mails[place].clone());
    for places in [[0, 1, 2], [0, 1, 2], [0, 2, 1], [0, 1, 3], [1, 2, 3]] {
        let results = transport.send_batch(&pick(places)).await;
        assert!(results.iter().all(Result::is_ok));
    }
    let seen = peer.seen();
    let keys: Vec<_> = seen.iter().map(|seen| seen.header("idempotency-key").expect("a key")).collect();
    assert_eq!((keys[0], &seen[0].body), (keys[1], &seen[1].body), "equal batches have equal requests");
    let others: std::collections::HashSet<_> = keys[1..].iter().collect();
    assert_eq!(others.len(), 4, "{keys:?}");
    assert!(keys.iter().all(|key| key.len() <= 256 && !mails.iter().any(|mail| mail.idempotency_key() == *key)));
}

#[tokio::test]
async fn mails_with_attachments_are_sent_alone() {
    let peer = HttpPeer::start([batch_response(2, &[]), HttpReply::json(200, r#"{"id":"alone"}"#)]).await;
    let mut mails = batch(3);
    mails[1] = new_delivery(rich());
    let results = connect(ResendCase::provider(), &peer).send_batch(&mails).await;
    let ids: Vec<_> = results.into_iter().map(|result| result.expect("accepted").provider_id).collect();
    let seen = peer.seen();
    for (place, id) in ids.iter().enumerate() {
        let request = seen.iter().find(|seen| {
            let json = seen.json();
            let list = json.as_array().cloned().unwrap_or_else(|| vec![json]);
            list.iter().any(|mail| mail["subject"] == mails[place].message().subject())
        });
        assert_eq!(request.expect("a request has the mail").path == "/emails", id.as_deref() == Some("alone"));
    }
    assert!(seen.iter().all(|seen| seen.path == "/emails" || !seen.json().to_string().contains("attachments")));
}

#[tokio::test]
async fn batches_are_split_by_number_and_size() {
    let peer = HttpPeer::start([batch_response(100, &[]), batch_response(2, &[])]).await;
    let transport = connect(ResendCase::provider(), &peer);
    assert_eq!(transport.max_batch(), 100);
    assert!(transport.send_batch(&batch(102)).await.iter().all(Result::is_ok));
    let lengths: Vec<_> = peer.seen().iter().map(|seen| seen.json().as_array().map(Vec::len)).collect();
    assert_eq!(lengths, [Some(100), Some(2)]);

    let peer = HttpPeer::start([batch_response(3, &[]), ResendCase::accepted()]).await;
    let mails: Vec<_> = (0..4).map(|_| new_delivery(plain().text("x".repeat(1_200_000)))).collect();
    assert!(connect(ResendCase::provider(), &peer).send_batch(&mails).await.iter().all(Result::is_ok));
    assert_eq!(paths(&peer.seen()), ["/emails/batch", "/emails"]);
}

#[tokio::test]
async fn without_batches_each_message_has_its_own_idempotency_key() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let transport = connect(ResendCase::provider().without_batches(), &peer);
    assert_eq!(transport.max_batch(), 1);
    let mails = batch(3);
    assert!(transport.send_batch(&mails).await.iter().all(Result::is_ok));
    let seen = peer.seen();
    assert_eq!(paths(&seen), ["/emails"; 3]);
    for (seen, mail) in seen.iter().zip(&mails) {
        assert_eq!(seen.header("idempotency-key"), Some(mail.idempotency_key().as_str()));
    }
}

#[tokio::test]
async fn messages_of_a_refused_batch_are_sent_one_by_one() {
    for reply in [HttpReply::json(422, error(422, "missing_required_field")), HttpReply::json(413, "<html>")] {
        let bad = HttpReply::json(422, error(422, "validation_error"));
        let peer = HttpPeer::start([reply, ResendCase::accepted(), bad, ResendCase::accepted()]).await;
        let results = connect(ResendCase::provider(), &peer).send_batch(&batch(3)).await;
        let results: Vec<_> = results.iter().map(|result| result.as_ref().map_err(kind).map(|_| ())).collect();
        assert_eq!(results, [Ok(()), Err(HttpErrorKind::Message), Ok(())]);
        assert_eq!(paths(&peer.seen()), ["/emails/batch", "/emails", "/emails", "/emails"]);
    }
}

#[tokio::test]
async fn an_error_of_a_batch_applies_to_all_messages() {
    use HttpErrorKind::{Account, NoResponse, Quota, RateLimit, Unavailable};
    let batched =
        |data: Value, errors: Value| HttpReply::json(200, json!({"data": data, "errors": errors}).to_string());
    let id = || json!({"id": "x"});
    let faulty = |index: i32| json!({"index": index, "message": "no"});
    for (reply, expected) in [
        (HttpReply::json(403, error(403, "invalid_api_key")), Account),
        (HttpReply::json(429, error(429, "daily_quota_exceeded")), Quota),
        (HttpReply::json(429, error(429, "rate_limit_exceeded")), RateLimit),
        (HttpReply::json(503, ""), Unavailable),
        // The same batch was sent before.
        (HttpReply::json(409, error(409, "concurrent_idempotent_requests")), NoResponse),
        (HttpReply::json(409, error(409, "invalid_idempotent_request")), NoResponse),
        // Some messages may have been accepted before the failure.
        (HttpReply::json(500, error(500, "internal_server_error")), NoResponse),
        (HttpReply::json(502, ""), NoResponse),
        (HttpReply::json(200, "<html>"), NoResponse),
        (HttpReply::json(200, r#"{"id":"one"}"#), NoResponse),
        (batched(json!([id(), id()]), json!([])), NoResponse),
        (batched(json!([id(), id(), id(), id()]), json!([])), NoResponse),
        (batched(json!([id(), id(), id()]), json!([faulty(0)])), NoResponse),
        (batched(json!([id(), id()]), json!([faulty(3)])), NoResponse),
        (batched(json!([id()]), json!([faulty(1), faulty(1)])), NoResponse),
        (batched(json!([id(), id()]), json!([faulty(-1)])), NoResponse),
        (HttpReply::Close, NoResponse),
    ] {
        let peer = HttpPeer::start([reply.clone()]).await;
        let results = connect(ResendCase::provider(), &peer).send_batch(&batch(3)).await;
        assert_eq!((results.len(), peer.seen().len()), (3, 1), "{reply:?}");
        for result in results {
            let failure = result.expect_err("no message has a known success");
            assert_eq!(kind(&failure), expected, "{reply:?}: {failure}");
            assert_redacted(&failure);
        }
    }
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([ResendCase::accepted()]).await;
    let url = format!("resend://{KEY}@{}?batches=false", peer.host());
    let alone = Http::<Resend>::from_url(&url).expect("a URL");
    assert_eq!(alone.max_batch(), 1);
    alone.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));

    let usual = Http::<Resend>::from_url("resend://K@default?batches=true").expect("a URL");
    assert!(format!("{usual:?}").contains("https://api.resend.com/"), "{usual:?}");
    assert_eq!(usual.max_batch(), 100);
    let error = |url| Http::<Resend>::from_url(url).err();
    assert_eq!(
        error("resend://K@default?batches=no"),
        Some(HttpConfigError::Value { setting: "batches", expected: "true or false".to_owned() })
    );
    assert_eq!(error("resend://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
