//! Mailtrap. Answers are those of its OpenAPI specifications, unless a line says otherwise:
//! <https://github.com/mailtrap/mailtrap-openapi/tree/main/specs>, `email-sending-transactional`, `email-sending-bulk` and
//! `sandbox-sending`.

use postrider_http::{BatchLimits, Http, HttpConfigError, HttpError, HttpErrorKind, Mailtrap, Provider};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Recipient, Transport, Unsupported};
use serde_json::{Value, json};

use crate::alike::alike_tests;
use crate::conformance::{conformance_tests, echo, message, refusal, status};
use crate::faults::{Case, fault_tests};
use crate::limits::assert_third_is_alone;
use crate::support::{KEY, Line, another, assert_discreet, check_table, connect, guess, line, outgoing, plain, rich};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct Trap;

impl Case for Trap {
    type Provider = Mailtrap;

    fn provider() -> Mailtrap {
        Mailtrap::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        Self.accept("0c7fd939-02cf-11ed-88c2-0a58a9feac02")
    }
}

impl HttpApi for Trap {
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
        refusal(status(answer), failed(&echo()).to_string(), answer, "retry-after")
    }

    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        let each = outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(|| failed(&echo()), |id| sent(id)));
        answer(&each.collect::<Vec<_>>())
    }
}

fault_tests!(Trap, status_says_all: false);
alike_tests!(Trap);
conformance_tests!(Trap);

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
async fn the_whole_mail_is_in_the_request() {
    let peer = HttpPeer::start([Trap::accepted()]).await;
    let receipt = connect(Trap::provider(), &peer).send(&outgoing(rich())).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("0c7fd939-02cf-11ed-88c2-0a58a9feac02"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/send"));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let agent = seen.header("user-agent").expect("requests without one may be blocked");
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
async fn only_the_recipients_of_the_attempt_are_named() {
    let peer = HttpPeer::start([Trap::accepted()]).await;
    let mail =
        outgoing(rich()).with_recipients(vec![Recipient::new("bob@example.org"), Recipient::new("dave@example.org")]);
    connect(Trap::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    assert_eq!(seen["to"], json!([{"email": "bob@example.org", "name": "Bob"}]));
    assert_eq!((seen.get("cc"), &seen["bcc"]), (None, &json!([{"email": "dave@example.org"}])));
}

#[tokio::test]
async fn answers() {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Sender, ServerError, Unavailable};
    let said = |text: &str| failed(text).to_string();
    let limited = HttpReply::answer(429, &[("retry-after", "3")], said("Rate limit exceeded"));
    let table = vec![
        guess(400, &said("'to' address ada@example.org is invalid"), Message),
        line(400, &said("'from' address is invalid"), Sender),
        line(400, &said("must specify either text or html body"), Message),
        line(403, &said("Sending from domain example.com is not allowed"), Sender),
        guess(422, &said("nobody knows ada@example.org"), Message),
        line(400, r#"{"success":false,"errors":["'from' is required","'subject' is required"]}"#, Message),
        line(401, &said("Unauthorized"), Account),
        line(403, &said("Forbidden"), Account),
        line(429, &said("Rate limit exceeded"), RateLimit),
        // The sandbox's words, as users report them: https://github.com/izmjs/izmjs/issues/26.
        line(429, &said("Too many emails per second. Please upgrade your plan"), RateLimit),
        line(429, &said("The email limit is reached. Please upgrade your plan"), Quota),
        Line { reply: limited, kind: RateLimit, retry_after: Some(3), sure: true },
        line(500, &said("Internal server error"), ServerError),
        line(503, &said("no"), Unavailable),
        // In another form than is specified.
        guess(400, r#"{"error":"Bad request"}"#, Account),
        line(200, &said("no"), NoResponse),
    ];
    check_table(Trap::provider, table).await;
}

#[tokio::test]
async fn what_it_cannot_express_is_refused_at_once_and_sends_nothing() {
    let peer = HttpPeer::start([Trap::accepted()]).await;
    let transport = connect(Trap::provider(), &peer);
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
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("it is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("it is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
}

#[tokio::test]
async fn reads_its_url() {
    let peer = HttpPeer::start([Trap::accepted()]).await;
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
    let stream = value("stream", "transactional or bulk, and left out beside sandbox");
    assert_eq!(error("mailtrap://K@default?stream=promotional"), stream);
    assert_eq!(error("mailtrap://K@default?stream=bulk&sandbox=1"), stream);
    assert_eq!(error("mailtrap://K@default?sandbox=inbox"), value("sandbox", "the number of an inbox"));
    assert_eq!(error("mailtrap://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}

fn kind(result: &Result<Receipt, Failure>) -> HttpErrorKind {
    let failure = result.as_ref().expect_err("it is a failure");
    assert_discreet(failure);
    failure.downcast_ref::<HttpError>().expect("it is an HttpError").kind()
}

fn id(result: &Result<Receipt, Failure>) -> Option<&str> {
    result.as_ref().expect("it is accepted").provider_id.as_deref()
}

async fn batch(replies: impl IntoIterator<Item = HttpReply>) -> (Vec<Result<Receipt, Failure>>, HttpPeer) {
    let mails: Vec<Outgoing<Email>> = ["a", "b", "c"].map(|subject| another(plain().subject(subject))).into();
    let peer = HttpPeer::start(replies).await;
    let results = connect(Trap::provider(), &peer).send_batch(&mails).await;
    (results, peer)
}

/// Which mails each request held, by their subjects.
fn subjects(peer: &HttpPeer) -> Vec<String> {
    let of = |mail: &Value| mail["subject"].as_str().expect("a subject").to_owned();
    let all =
        |body: &Value| body["requests"].as_array().map_or_else(|| of(body), |mails| mails.iter().map(of).collect());
    peer.seen().iter().map(|seen| all(&seen.json())).collect()
}

#[tokio::test]
async fn a_batch_is_one_request_of_whole_mails() {
    let peer = HttpPeer::start([answer(&[sent("1"), sent("2")])]).await;
    let transport = connect(Trap::provider().sandbox(7), &peer);
    let mails = [another(rich()), another(plain())];
    let results = transport.send_batch(&mails).await;
    assert_eq!(results.iter().map(id).collect::<Vec<_>>(), [Some("1"), Some("2")]);
    assert_eq!((peer.seen().len(), peer.seen()[0].path.as_str()), (1, "/api/batch/7"));

    let alone = HttpPeer::start([Trap::accepted()]).await;
    for mail in &mails {
        connect(Trap::provider(), &alone).send(mail).await.expect("it is accepted");
    }
    let bodies: Vec<_> = alone.seen().iter().map(|seen| seen.json()).collect();
    assert_eq!(peer.seen()[0].json(), json!({ "requests": bodies }));
}

#[tokio::test]
async fn what_failed_in_a_batch_is_asked_for_alone_and_nothing_else_is() {
    let replies = [
        answer(&[sent("1"), failed("'to' address is invalid"), sent("3")]),
        HttpReply::json(400, failed("'to' address is invalid").to_string()),
    ];
    let (results, peer) = batch(replies).await;
    assert_eq!((id(&results[0]), kind(&results[1]), id(&results[2])), (Some("1"), HttpErrorKind::Message, Some("3")));
    assert_eq!(subjects(&peer), ["abc", "b"]);
}

#[tokio::test]
async fn what_holds_for_the_others_too_ends_the_asking() {
    let no = || failed("no");
    for (status, expected, asked) in [
        (429, [HttpErrorKind::RateLimit, HttpErrorKind::RateLimit], vec!["abc", "a"]),
        (503, [HttpErrorKind::Unavailable, HttpErrorKind::Unavailable], vec!["abc", "a"]),
        (403, [HttpErrorKind::Account, HttpErrorKind::Account], vec!["abc", "a"]),
        // Another sender's domain may well be verified.
        (403, [HttpErrorKind::Sender, HttpErrorKind::Sender], vec!["abc", "a", "c"]),
    ] {
        let words = if expected[0] == HttpErrorKind::Sender { "this domain is not verified" } else { "no" };
        let replies = [answer(&[no(), sent("2"), no()]), HttpReply::json(status, failed(words).to_string())];
        let (results, peer) = batch(replies).await;
        assert_eq!([kind(&results[0]), kind(&results[2])], expected);
        assert_eq!(id(&results[1]), Some("2"));
        assert_eq!(subjects(&peer), asked);
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_in_doubt() {
    let no = || failed("no");
    let (results, peer) = batch([answer(&[no(), no(), no()]), Trap::accepted(), HttpReply::Close]).await;
    assert!(results[0].is_ok());
    assert_eq!((kind(&results[1]), kind(&results[2])), (HttpErrorKind::NoResponse, HttpErrorKind::Unavailable));
    assert_eq!(subjects(&peer), ["abc", "a", "b"]);
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_is_asked_for_one_by_one() {
    let bad = || HttpReply::json(400, failed("empty field: 'requests'").to_string());
    let (results, peer) = batch([bad(), Trap::accepted(), bad(), Trap::accepted()]).await;
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(kind(&results[1]), HttpErrorKind::Message);
    assert_eq!(subjects(&peer), ["abc", "a", "b", "c"]);
}

#[tokio::test]
async fn what_is_not_of_one_message_is_of_each() {
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
async fn an_answer_is_as_long_as_its_recipients_are_many() {
    let ids = vec!["0c7fd939-02cf-11ed-88c2-0a58a9feac02"; 1000];
    let answers = vec![json!({"success": true, "message_ids": ids}); 40];
    assert!(json!(answers).to_string().len() > 1024 * 1024, "longer than an answer may be otherwise");
    let peer = HttpPeer::start([answer(&answers)]).await;
    let crowd = (0..999).fold(plain(), |email, number| email.to(format!("n{number}@example.org").as_str()));
    let mails: Vec<_> = (0..40).map(|_| another(crowd.clone())).collect();
    let results = connect(Trap::provider(), &peer).send_batch(&mails).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 40, "{:?}", results[0]);
}

#[tokio::test]
async fn the_limits_split_a_batch() {
    let many: Vec<_> = (0..500).map(|number| sent(&number.to_string())).collect();
    let peer = HttpPeer::start([answer(&many), answer(&many[..2])]).await;
    let mails: Vec<_> = (0..502).map(|_| another(plain())).collect();
    let results = connect(Trap::provider(), &peer).send_batch(&mails).await;
    assert_eq!(results.iter().map(id).collect::<Vec<_>>()[498..], [Some("498"), Some("499"), Some("0"), Some("1")]);

    let limits = Trap::provider().batch_limits();
    assert_eq!(limits, Some(BatchLimits::new(500, 50_000_000)));
    let peer = HttpPeer::start([answer(&many[..2]), Trap::accepted()]).await;
    assert_third_is_alone(Trap::provider(), &peer).await;
    let paths: Vec<_> = peer.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/api/batch", "/api/send"]);
}
