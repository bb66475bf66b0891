//! Mailtrap. Responses follow the OpenAPI specifications, unless a comment names another source:
//! <https://github.com/mailtrap/mailtrap-openapi/tree/main/specs>, `email-sending-transactional`, `email-sending-bulk` and
//! `sandbox-sending`.

use postrider_http::{BatchLimits, Http, HttpConfigError, HttpError, HttpErrorKind, Mailtrap, Provider};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Recipient, Transport, Unsupported};
use serde_json::{Value, json};

use crate::conformance::{conformance_tests, leaky_text, message, refusal, status};
use crate::faults::{TestProvider, fault_tests};
use crate::limits::assert_size_limit_splits_batch;
use crate::mails::mail_tests;
use crate::support::{
    KEY, Row, assert_redacted, assert_table, connect, new_delivery, outgoing, plain, rich, row, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct MailtrapCase;

impl TestProvider for MailtrapCase {
    type Provider = Mailtrap;

    fn provider() -> Mailtrap {
        Mailtrap::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("0c7fd939-02cf-11ed-88c2-0a58a9feac02")
    }
}

impl HttpApi for MailtrapCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let sent = request.json();
        let alone = std::slice::from_ref(&sent);
        let mails = sent["requests"].as_array().map_or(alone, Vec::as_slice);
        mails.iter().map(|mail| message(mail, ["to", "cc", "bcc"])).collect()
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(200, sent(id))
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        refusal(status(answer), failed(&leaky_text()).to_string(), answer, "retry-after")
    }

    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        let each = outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(|| failed(&leaky_text()), |id| sent(id)));
        answer(&each.collect::<Vec<_>>())
    }
}

fault_tests!(MailtrapCase, status_is_enough: false);
mail_tests!(MailtrapCase);
conformance_tests!(MailtrapCase);

fn sent(id: &str) -> Value {
    json!({"success": true, "message_ids": [id, "another"]})
}

fn failed(text: &str) -> Value {
    json!({"success": false, "errors": [text]})
}

fn answer(responses: &[Value]) -> HttpReply {
    HttpReply::json(200, json!({"success": true, "responses": responses}).to_string())
}

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([MailtrapCase::accepted()]).await;
    let receipt = connect(MailtrapCase::provider(), &peer).send(&outgoing(rich())).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("0c7fd939-02cf-11ed-88c2-0a58a9feac02"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/send"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let agent = seen.header("user-agent").expect("the request has a User-Agent");
    assert!(agent.starts_with("postrider/"), "{agent}");
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
            {"content": "dGVybXM=", "filename": "terms.txt", "type": "text/plain", "disposition": "attachment"},
            {"content": "iVBORw==", "filename": "logo.png", "type": "image/png", "disposition": "inline", "content_id": "logo"}
        ],
        "headers": {
            "X-Order": "42",
            "List-Unsubscribe": "<https://example.com/u/1>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"
        },
        "category": "welcome",
        "custom_variables": {"order": "42"}
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([MailtrapCase::accepted()]).await;
    let mail =
        outgoing(rich()).with_recipients(vec![Recipient::new("bob@example.org"), Recipient::new("dave@example.org")]);
    connect(MailtrapCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    assert_eq!(seen["to"], json!([{"email": "bob@example.org", "name": "Bob"}]));
    assert_eq!((seen.get("cc"), &seen["bcc"]), (None, &json!([{"email": "dave@example.org"}])));
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Sender, ServerError, Unavailable};
    let said = |text: &str| failed(text).to_string();
    let limited = HttpReply::answer(429, &[("retry-after", "3")], said("Rate limit exceeded"));
    let table = vec![
        unsure_row(400, &said("'to' address ada@example.org is invalid"), Message),
        row(400, &said("'from' address is invalid"), Sender),
        row(400, &said("must specify either text or html body"), Message),
        row(403, &said("Sending from domain example.com is not allowed"), Sender),
        unsure_row(422, &said("nobody knows ada@example.org"), Message),
        row(400, r#"{"success":false,"errors":["'from' is required","'subject' is required"]}"#, Message),
        row(401, &said("Unauthorized"), Account),
        row(403, &said("Forbidden"), Account),
        row(429, &said("Rate limit exceeded"), RateLimit),
        // Texts of the sandbox, as users report them: https://github.com/izmjs/izmjs/issues/26.
        row(429, &said("Too many emails per second. Please upgrade your plan"), RateLimit),
        row(429, &said("The email limit is reached. Please upgrade your plan"), Quota),
        Row { reply: limited, kind: RateLimit, retry_after: Some(3), sure: true },
        row(500, &said("Internal server error"), ServerError),
        row(503, &said("no"), Unavailable),
        // Not in the specified format.
        unsure_row(400, r#"{"error":"Bad request"}"#, Account),
        row(200, &said("no"), NoResponse),
    ];
    assert_table(MailtrapCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([MailtrapCase::accepted()]).await;
    let transport = connect(MailtrapCase::provider(), &peer);
    let crowd = (0..1001).fold(plain(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    let empty = Attachment::new("a.txt", "text/plain", *b"").expect("an attachment");
    for email in [
        Email::builder().from("a@example.com").to("b@example.com").text("no subject"),
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().cc("zoë@example.org"),
        plain().reply_to("zoë@example.org"),
        plain().header("X-A", "1").header("x-a", "2"),
        plain().tag("one").tag("two"),
        plain().text(""),
        plain().attach(empty),
        plain().metadata("a", vec!["é"; 340].join(" ")),
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
    let peer = HttpPeer::start([MailtrapCase::accepted()]).await;
    let transport =
        Http::<Mailtrap>::from_url(&format!("mailtrap://{KEY}@{}?sandbox=4015", peer.host())).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(peer.seen()[0].path, "/api/send/4015");

    for (url, host) in [
        ("mailtrap://K@default", "https://send.api.mailtrap.io/"),
        ("mailtrap://K@default?stream=transactional", "https://send.api.mailtrap.io/"),
        ("mailtrap://K@default?stream=bulk", "https://bulk.api.mailtrap.io/"),
        ("mailtrap://K@default?sandbox=1", "https://sandbox.api.mailtrap.io/"),
    ] {
        let transport = Http::<Mailtrap>::from_url(url).expect("a URL");
        assert!(format!("{transport:?}").contains(host), "{transport:?}");
    }
    let error = |url| Http::<Mailtrap>::from_url(url).err();
    let value = |setting, expected: &str| Some(HttpConfigError::Value { setting, expected: expected.to_owned() });
    let stream = value("stream", "transactional or bulk, and absent if there is a sandbox");
    assert_eq!(error("mailtrap://K@default?stream=promotional"), stream);
    assert_eq!(error("mailtrap://K@default?stream=bulk&sandbox=1"), stream);
    assert_eq!(error("mailtrap://K@default?sandbox=inbox"), value("sandbox", "the number of an inbox"));
    assert_eq!(error("mailtrap://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}

fn kind(result: &Result<Receipt, Failure>) -> HttpErrorKind {
    let failure = result.as_ref().expect_err("it is a failure");
    assert_redacted(failure);
    failure.downcast_ref::<HttpError>().expect("it is an HttpError").kind()
}

fn id(result: &Result<Receipt, Failure>) -> Option<&str> {
    result.as_ref().expect("it is accepted").provider_id.as_deref()
}

async fn batch(replies: impl IntoIterator<Item = HttpReply>) -> (Vec<Result<Receipt, Failure>>, HttpPeer) {
    let mails: Vec<Outgoing<Email>> = ["a", "b", "c"].map(|subject| new_delivery(plain().subject(subject))).into();
    let peer = HttpPeer::start(replies).await;
    let results = connect(MailtrapCase::provider(), &peer).send_batch(&mails).await;
    (results, peer)
}

/// Returns the subjects of the mails in each request.
fn subjects(peer: &HttpPeer) -> Vec<String> {
    let of = |mail: &Value| mail["subject"].as_str().expect("a subject").to_owned();
    let all =
        |body: &Value| body["requests"].as_array().map_or_else(|| of(body), |mails| mails.iter().map(of).collect());
    peer.seen().iter().map(|seen| all(&seen.json())).collect()
}

#[tokio::test]
async fn a_batch_is_one_request_with_the_same_mails() {
    let peer = HttpPeer::start([answer(&[sent("1"), sent("2")])]).await;
    let transport = connect(MailtrapCase::provider().sandbox(7), &peer);
    let mails = [new_delivery(rich()), new_delivery(plain())];
    let results = transport.send_batch(&mails).await;
    assert_eq!(results.iter().map(id).collect::<Vec<_>>(), [Some("1"), Some("2")]);
    assert_eq!((peer.seen().len(), peer.seen()[0].path.as_str()), (1, "/api/batch/7"));

    let alone = HttpPeer::start([MailtrapCase::accepted()]).await;
    for mail in &mails {
        connect(MailtrapCase::provider(), &alone).send(mail).await.expect("it is accepted");
    }
    let bodies: Vec<_> = alone.seen().iter().map(|seen| seen.json()).collect();
    assert_eq!(peer.seen()[0].json(), json!({ "requests": bodies }));
}

#[tokio::test]
async fn only_failed_messages_of_a_batch_are_sent_again() {
    let replies = [
        answer(&[sent("1"), failed("'to' address is invalid"), sent("3")]),
        HttpReply::json(400, failed("'to' address is invalid").to_string()),
    ];
    let (results, peer) = batch(replies).await;
    assert_eq!((id(&results[0]), kind(&results[1]), id(&results[2])), (Some("1"), HttpErrorKind::Message, Some("3")));
    assert_eq!(subjects(&peer), ["abc", "b"]);
}

#[tokio::test]
async fn an_error_of_the_account_stops_the_sending() {
    let no = || failed("no");
    for (status, expected, sent_subjects) in [
        (429, [HttpErrorKind::RateLimit, HttpErrorKind::RateLimit], vec!["abc", "a"]),
        (503, [HttpErrorKind::Unavailable, HttpErrorKind::Unavailable], vec!["abc", "a"]),
        (403, [HttpErrorKind::Account, HttpErrorKind::Account], vec!["abc", "a"]),
        // The domain of another sender may be verified.
        (403, [HttpErrorKind::Sender, HttpErrorKind::Sender], vec!["abc", "a", "c"]),
    ] {
        let words = if expected[0] == HttpErrorKind::Sender { "this domain is not verified" } else { "no" };
        let replies = [answer(&[no(), sent("2"), no()]), HttpReply::json(status, failed(words).to_string())];
        let (results, peer) = batch(replies).await;
        assert_eq!([kind(&results[0]), kind(&results[2])], expected);
        assert_eq!(id(&results[1]), Some("2"));
        assert_eq!(subjects(&peer), sent_subjects);
    }
}

#[tokio::test]
async fn messages_that_were_not_sent_are_not_in_doubt() {
    let no = || failed("no");
    let (results, peer) = batch([answer(&[no(), no(), no()]), MailtrapCase::accepted(), HttpReply::Close]).await;
    assert!(results[0].is_ok());
    assert_eq!((kind(&results[1]), kind(&results[2])), (HttpErrorKind::NoResponse, HttpErrorKind::Unavailable));
    assert_eq!(subjects(&peer), ["abc", "a", "b"]);
}

#[tokio::test]
async fn messages_of_a_refused_batch_are_sent_one_by_one() {
    let bad = || HttpReply::json(400, failed("empty field: 'requests'").to_string());
    let (results, peer) = batch([bad(), MailtrapCase::accepted(), bad(), MailtrapCase::accepted()]).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(kind(&results[1]), HttpErrorKind::Message);
    assert_eq!(subjects(&peer), ["abc", "a", "b", "c"]);
}

#[tokio::test]
async fn an_error_of_a_batch_applies_to_all_messages() {
    use HttpErrorKind::{Account, NoResponse, RateLimit};
    let no = failed("no").to_string();
    for (reply, expected) in [
        (HttpReply::json(401, &no), Account),
        (HttpReply::json(400, "<html>"), Account),
        (HttpReply::json(429, &no), RateLimit),
        (HttpReply::json(500, &no), NoResponse),
        (HttpReply::json(200, "<html>"), NoResponse),
        (answer(&[sent("1"), sent("2")]), NoResponse),
        (HttpReply::json(200, r#"{"success":false,"errors":["no"]}"#), NoResponse),
        (HttpReply::Close, NoResponse),
    ] {
        let (results, peer) = batch([reply.clone()]).await;
        assert_eq!(results.iter().map(kind).collect::<Vec<_>>(), vec![expected; 3], "{reply:?}");
        assert_eq!(peer.seen().len(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn the_response_limit_grows_with_the_recipients() {
    let ids = vec!["0c7fd939-02cf-11ed-88c2-0a58a9feac02"; 1000];
    let responses = vec![json!({"success": true, "message_ids": ids}); 40];
    assert!(json!(responses).to_string().len() > 1024 * 1024, "the response exceeds the basic limit");
    let peer = HttpPeer::start([answer(&responses)]).await;
    let crowd = (0..999).fold(plain(), |email, number| email.to(format!("n{number}@example.org").as_str()));
    let mails: Vec<_> = (0..40).map(|_| new_delivery(crowd.clone())).collect();
    let results = connect(MailtrapCase::provider(), &peer).send_batch(&mails).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 40, "{:?}", results[0]);
}

#[tokio::test]
async fn batches_are_split_by_number_and_size() {
    let many: Vec<_> = (0..500).map(|number| sent(&number.to_string())).collect();
    let peer = HttpPeer::start([answer(&many), answer(&many[..2])]).await;
    let mails: Vec<_> = (0..502).map(|_| new_delivery(plain())).collect();
    let results = connect(MailtrapCase::provider(), &peer).send_batch(&mails).await;
    assert_eq!(results.iter().map(id).collect::<Vec<_>>()[498..], [Some("498"), Some("499"), Some("0"), Some("1")]);

    let limits = MailtrapCase::provider().batch_limits();
    assert_eq!(limits, Some(BatchLimits::new(500, 50_000_000)));
    let peer = HttpPeer::start([answer(&many[..2]), MailtrapCase::accepted()]).await;
    assert_size_limit_splits_batch(MailtrapCase::provider(), &peer).await;
    let paths: Vec<_> = peer.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/batch", "/api/send"]);
}
