//! Postmark. Codes follow <https://postmarkapp.com/developer/api/overview#error-codes>, responses
//! <https://postmarkapp.com/developer/api/email-api>, unless a comment names another source.

use postrider_http::{BatchLimits, Http, HttpConfigError, HttpErrorKind, Postmark, Provider};
use postrider_transport::{
    Attachment, Class, DeliveryId, Email, EmailBuilder, Outgoing, Recipient, Transport, Unsupported,
};
use serde_json::{Value, json};

use crate::conformance::{conformance_tests, leaky_text, message, refusal};
use crate::faults::{TestProvider, fault_tests, kind};
use crate::limits::assert_size_limit_splits_batch;
use crate::mails::mail_tests;
use crate::support::{
    KEY, Row, assert_redacted, assert_table, connect, new_delivery, outgoing, plain, rich, row, send_one, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct PostmarkCase;

impl TestProvider for PostmarkCase {
    type Provider = Postmark;

    fn provider() -> Postmark {
        Postmark::new(KEY).expect("a token")
    }

    fn accepted() -> HttpReply {
        Self.accept("b7bc2f4a-e38e-4336-af7d-e6c392c2f817")
    }
}

impl HttpApi for PostmarkCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let sent = request.json();
        let alone = std::slice::from_ref(&sent);
        let mails = sent.as_array().map_or(alone, Vec::as_slice);
        mails.iter().map(|mail| message(mail, ["To", "Cc", "Bcc"])).collect()
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(200, ok(id))
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let (status, code) = match answer {
            Answer::RefuseMessage => (422, 300),
            Answer::RefuseCredentials => (401, 10),
            Answer::RateLimit(_) => (429, 429),
            _ => (503, 100),
        };
        // RFC 6585 section 4; Postmark's manual names no header.
        refusal(status, error(code, &leaky_text()).to_string(), answer, "retry-after")
    }

    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        let each =
            outcomes.iter().map(|outcome| outcome.as_ref().map_or_else(|| error(300, &leaky_text()), |id| ok(id)));
        items(each.collect::<Vec<_>>())
    }
}

fault_tests!(PostmarkCase, status_is_enough: false);
mail_tests!(PostmarkCase);
conformance_tests!(
    PostmarkCase,
    without a_deferred_message = "Postmark has no code for it, and its internal errors are in doubt"
);

fn ok(id: &str) -> Value {
    json!({
        "To": "ada@example.org", "SubmittedAt": "2014-02-17T07:25:01.4178645-05:00", "MessageID": id, "ErrorCode": 0, "Message": "OK"
    })
}

fn error(code: i64, message: &str) -> Value {
    json!({"ErrorCode": code, "Message": message})
}

/// Text of the refusal if all recipients are inactive.
const INACTIVE: &str = "You tried to send to a recipient that has been marked as inactive. Found inactive addresses: \
    ADDRESSES. Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression. ";

/// Text of the acceptance if some recipients are inactive, from the tests of Postmark's client for Ruby:
/// <https://github.com/ActiveCampaign/postmark-gem/blob/main/spec/unit/postmark/error_spec.rb>.
const PARTLY: &str = "Message OK, but will not deliver to these inactive addresses: ADDRESSES.";

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([PostmarkCase::accepted()]).await;
    let mail = outgoing(rich().reply_to("\"More, or less\" <more@example.com>"));
    let transport = connect(PostmarkCase::provider().message_stream("receipts"), &peer);
    let receipt = transport.send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("b7bc2f4a-e38e-4336-af7d-e6c392c2f817"));
    assert_eq!(receipt.refused, []);
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/email"));
    assert_eq!(seen.header("x-postmark-server-token"), Some(KEY));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    let expected = json!({
        "From": "Shop <shop@example.com>",
        "To": "ada@example.org, Bob <bob@example.org>",
        "Cc": "Carol <carol@example.org>",
        "Bcc": "dave@example.org",
        "ReplyTo": "Help <help@example.com>, \"More, or less\" <more@example.com>",
        "Subject": "Hello",
        "TextBody": "body-of-the-mail",
        "HtmlBody": "<p>body-of-the-mail <img src=\"cid:logo\"></p>",
        "Tag": "welcome",
        "Metadata": {"order": "42"},
        "Headers": [
            {"Name": "X-Order", "Value": "42"},
            {"Name": "List-Unsubscribe", "Value": "<https://example.com/u/1>"},
            {"Name": "List-Unsubscribe-Post", "Value": "List-Unsubscribe=One-Click"},
            {"Name": "Message-ID", "Value": mail.message_id()},
            {"Name": "X-PM-KeepID", "Value": "true"}
        ],
        "Attachments": [
            {"Name": "terms.txt", "Content": "dGVybXM=", "ContentType": "text/plain"},
            {"Name": "logo.png", "Content": "iVBORw==", "ContentType": "image/png", "ContentID": "cid:logo"}
        ],
        "MessageStream": "receipts"
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([PostmarkCase::accepted()]).await;
    let mail = outgoing(rich()).with_recipients(vec![Recipient::new("carol@example.org")]);
    connect(PostmarkCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = peer.seen()[0].json();
    assert_eq!(seen["Cc"], "Carol <carol@example.org>");
    assert_eq!((seen.get("To"), seen.get("Bcc"), seen.get("MessageStream")), (None, None, None));
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Recipient, Sender, Unavailable};
    let refused = |code, kind| row(422, &error(code, "no, ada@example.org").to_string(), kind);
    let mut table = vec![
        row(401, &error(10, "The request does not contain a valid Server token.").to_string(), Account),
        row(503, &error(100, "Maintenance").to_string(), Unavailable),
        row(429, &error(429, "Rate limit exceeded").to_string(), RateLimit),
        row(429, "", RateLimit),
        row(413, "", Message),
        unsure_row(415, "", Account),
        // "In most cases the message is lost during the process".
        row(500, "", NoResponse),
        row(500, &error(300, "an answer that makes no sense").to_string(), NoResponse),
        row(200, &error(300, "Invalid 'To' address: 'ada@example.org'.").to_string(), Message),
        unsure_row(200, &error(9999, "nobody knows ada@example.org").to_string(), Message),
        unsure_row(422, &error(9999, "nobody knows ada@example.org").to_string(), Message),
        row(
            422,
            &error(300, "Invalid 'From' address: 'shop@example.com' is not a verified sender signature.").to_string(),
            Sender,
        ),
        row(422, &error(300, "Invalid 'To' address: 'from@example.com'.").to_string(), Message),
        Row {
            reply: HttpReply::answer(429, &[("retry-after", "3")], error(429, "Rate limit exceeded").to_string()),
            kind: RateLimit,
            retry_after: Some(3),
            sure: true,
        },
    ];
    table.extend([300, 402, 403, 410, 411].map(|code| refused(code, Message)));
    table.extend([10, 409, 413, 422, 1235, 1236, 1480].map(|code| refused(code, Account)));
    table.extend([400, 401, 412].map(|code| refused(code, Sender)));
    table.extend(
        [(405, Quota), (406, Recipient), (429, RateLimit), (100, Unavailable)].map(|(code, kind)| refused(code, kind)),
    );
    assert_table(PostmarkCase::provider, table).await;
}

fn several() -> EmailBuilder {
    plain().cc("Bob@Example.org").bcc("carol@example.org")
}

#[tokio::test]
async fn inactive_recipients_are_refused_and_the_others_accepted() {
    let said = |text: &str, addresses: &str| text.replace("ADDRESSES", addresses);
    let refused = |list: &[postrider_transport::Refusal]| -> Vec<String> {
        assert!(list.iter().all(|refusal| refusal.class == Class::Permanent));
        list.iter().map(|refusal| refusal.recipient.as_str().to_owned()).collect()
    };

    // Accepted, except for two recipients.
    for prose in ["", " Inactive recipients are ones that have generated a hard bounce or a spam complaint."] {
        let text = said(PARTLY, "bob@example.org, carol@example.org") + prose;
        let mut body = ok("id");
        body["Message"] = text.into();
        let receipt = send_one(PostmarkCase::provider(), several(), HttpReply::json(200, body.to_string()))
            .await
            .expect("ada is accepted");
        assert_eq!(refused(&receipt.refused), ["Bob@example.org", "carol@example.org"]);
        assert_eq!(receipt.provider_id.as_deref(), Some("id"));
    }

    // All recipients are refused.
    for (status, code, text) in [(422, 406, INACTIVE), (200, 406, INACTIVE), (200, 0, PARTLY)] {
        let mut body = ok("id");
        body["ErrorCode"] = code.into();
        body["Message"] = said(text, "ada@example.org,bob@example.org, Carol@example.org").into();
        let failure = send_one(PostmarkCase::provider(), several(), HttpReply::json(status, body.to_string()))
            .await
            .expect_err("no recipient is accepted");
        assert_eq!(kind(&failure), HttpErrorKind::Recipient, "{failure}");
        assert_redacted(&failure);
    }

    // In doubt, with the refused recipients.
    let body = error(406, &said(INACTIVE, "bob@example.org"));
    let failure = send_one(PostmarkCase::provider(), several(), HttpReply::json(422, body.to_string()))
        .await
        .expect_err("the mail is not accepted");
    assert!(failure.in_doubt(), "{failure}");
    assert_eq!(refused(failure.refused()), ["Bob@example.org"]);
    assert_redacted(&failure);
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([PostmarkCase::accepted()]).await;
    let transport = connect(PostmarkCase::provider(), &peer);
    let crowd =
        |number| (1..number).fold(plain(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    let pairs = |number| (0..number).fold(plain(), |email, number| email.metadata(format!("k{number}"), "v"));
    let large = |octets| Attachment::new("a.txt", "text/plain", vec![b'x'; octets]).expect("an attachment");
    for email in [
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().to("\"a b\"@example.com"),
        plain().bcc("пошта@example.com"),
        plain().reply_to("a@[127.0.0.1]"),
        plain().from((vec!["name"; 50].join(" "), "shop@example.com")),
        plain().subject(vec!["word"; 401].join(" ")),
        plain().tag("one").tag("two"),
        plain().metadata("key", "1").metadata("KEY", "2"),
        plain().metadata("a".repeat(21), "x"),
        plain().metadata("a", "x".repeat(81)),
        plain().text("x".repeat(5 * 1024 * 1024 + 1)),
        plain().attach(large(8 * 1024 * 1024)),
        pairs(11),
        crowd(51),
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
    for email in [pairs(10), crowd(50), plain().metadata("a".repeat(20), "x".repeat(80)).attach(large(7 * 1024 * 1024))]
    {
        transport.check(&email.build().expect("a mail")).expect("the mail is within the limits");
    }
}

fn batch(number: usize) -> Vec<Outgoing<Email>> {
    (0..number).map(|number| new_delivery(plain().subject(format!("number {number}")))).collect()
}

fn items(items: impl IntoIterator<Item = Value>) -> HttpReply {
    HttpReply::json(200, items.into_iter().collect::<Value>().to_string())
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_result() {
    let bad = error(300, "Invalid 'From' address: 'shop@example.com'.");
    let unsigned = error(400, "The 'From' address you supplied is not a Sender Signature.");
    let peer = HttpPeer::start([items([ok("first"), bad, json!({"Message": "what?"}), unsigned, ok("last")])]).await;
    let mails = batch(5);
    let results = connect(PostmarkCase::provider(), &peer).send_batch(&mails).await;

    let ids: Vec<_> =
        results.iter().map(|result| result.as_ref().ok().and_then(|it| it.provider_id.as_deref())).collect();
    assert_eq!(ids, [Some("first"), None, None, None, Some("last")]);
    let kinds: Vec<_> = results.iter().filter_map(|result| result.as_ref().err().map(kind)).collect();
    assert_eq!(kinds, [HttpErrorKind::Sender, HttpErrorKind::NoResponse, HttpErrorKind::Sender]);
    let reply = results[1].as_ref().expect_err("the mail is refused").reply().expect("a reply");
    assert!(reply.contains("Invalid 'From'") && !reply.contains("first"), "the reply is its own: {reply}");

    let seen = peer.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/email/batch"));
    assert_eq!(seen[0].header("accept"), Some("application/json"));
    let sent = seen[0].json();
    let alone = HttpPeer::start([PostmarkCase::accepted()]).await;
    for (place, mail) in mails.iter().enumerate() {
        connect(PostmarkCase::provider(), &alone).send(mail).await.expect("it is accepted");
        assert_eq!(sent[place], alone.seen()[place].json(), "a message is the same in a batch and alone");
    }
}

#[tokio::test]
async fn batches_are_split_by_number_and_size() {
    let answer = |number: usize| items((0..number).map(|number| ok(&format!("id {number}"))));
    let peer = HttpPeer::start([answer(500), answer(2)]).await;
    let transport = connect(PostmarkCase::provider(), &peer);
    assert_eq!(transport.max_batch(), 500);
    let results = transport.send_batch(&batch(502)).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(results[501].as_ref().expect("accepted").provider_id.as_deref(), Some("id 1"));
    let lengths: Vec<_> = peer.seen().iter().map(|seen| seen.json().as_array().map(Vec::len)).collect();
    assert_eq!(lengths, [Some(500), Some(2)]);

    let limits = PostmarkCase::provider().batch_limits();
    assert_eq!(limits, Some(BatchLimits::new(500, 50_000_000)));
    let peer = HttpPeer::start([answer(2), PostmarkCase::accepted()]).await;
    assert_size_limit_splits_batch(PostmarkCase::provider(), &peer).await;
    let paths: Vec<_> = peer.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/email/batch", "/email"]);
}

#[tokio::test]
async fn messages_of_a_refused_batch_are_sent_one_by_one() {
    for reply in
        [HttpReply::json(422, error(403, "Invalid request field(s): 'From'.").to_string()), HttpReply::json(413, "")]
    {
        let bad = HttpReply::json(422, error(300, "Invalid").to_string());
        let peer = HttpPeer::start([reply, PostmarkCase::accepted(), bad, PostmarkCase::accepted()]).await;
        let results = connect(PostmarkCase::provider(), &peer).send_batch(&batch(3)).await;
        let results: Vec<_> = results.iter().map(|result| result.as_ref().map_err(kind).map(|_| ())).collect();
        assert_eq!(results, [Ok(()), Err(HttpErrorKind::Message), Ok(())]);
        let paths: Vec<_> = peer.seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(paths, ["/email/batch", "/email", "/email", "/email"]);
    }
}

/// The messages are unlikely to be the cause, and a batch may have 500.
#[tokio::test]
async fn after_three_unknown_refusals_the_rest_of_a_batch_is_not_sent() {
    let unknown = HttpReply::json(422, error(9999, "nobody knows").to_string());
    let peer = HttpPeer::start([unknown]).await;
    let results = connect(PostmarkCase::provider(), &peer).send_batch(&batch(10)).await;
    let kinds: Vec<_> = results.iter().map(|result| kind(result.as_ref().expect_err("no message is sent"))).collect();
    assert_eq!(kinds, [vec![HttpErrorKind::Message; 3], vec![HttpErrorKind::Unavailable; 7]].concat());
    assert!(results[..3].iter().all(|result| result.as_ref().is_err_and(|failure| !failure.is_sure())));
    assert_eq!(peer.seen().len(), 4);
}

#[tokio::test]
async fn an_error_of_a_batch_applies_to_all_messages() {
    use HttpErrorKind::{Account, NoResponse, Quota, RateLimit, Unavailable};
    for (reply, expected) in [
        (HttpReply::json(401, error(10, "no token").to_string()), Account),
        (HttpReply::json(422, error(405, "no credits").to_string()), Quota),
        (HttpReply::json(429, ""), RateLimit),
        (HttpReply::json(503, error(100, "Maintenance").to_string()), Unavailable),
        (HttpReply::json(500, ""), NoResponse),
        (HttpReply::json(500, error(300, "an answer that makes no sense").to_string()), NoResponse),
        (HttpReply::json(502, ""), NoResponse),
        (HttpReply::json(200, "<html>"), NoResponse),
        (HttpReply::json(200, ok("one").to_string()), NoResponse),
        (items([ok("one"), ok("two")]), NoResponse),
        (items((0..4).map(|number| ok(&number.to_string()))), NoResponse),
        (HttpReply::Close, NoResponse),
    ] {
        let peer = HttpPeer::start([reply.clone()]).await;
        let results = connect(PostmarkCase::provider(), &peer).send_batch(&batch(3)).await;
        assert_eq!((results.len(), peer.seen().len()), (3, 1), "{reply:?}");
        for result in results {
            let failure = result.expect_err("no message has a known success");
            assert_eq!(kind(&failure), expected, "{reply:?}: {failure}");
            assert_redacted(&failure);
        }
    }
}

#[tokio::test]
async fn an_unsupported_message_does_not_shift_the_other_results() {
    let peer = HttpPeer::start([items([ok("first"), ok("third")])]).await;
    let mut mails = batch(3);
    mails[1] =
        Outgoing::new(DeliveryId::new(), mails[0].dated_at(), plain().tag("a").tag("b").build().expect("a mail"));
    let results = connect(PostmarkCase::provider(), &peer).send_batch(&mails).await;
    let ids: Vec<_> =
        results.iter().map(|result| result.as_ref().ok().and_then(|it| it.provider_id.as_deref())).collect();
    assert_eq!(ids, [Some("first"), None, Some("third")]);
    assert!(results[1].as_ref().expect_err("the mail is refused").downcast_ref::<Unsupported>().is_some());
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([PostmarkCase::accepted()]).await;
    let url = format!("postmark://{KEY}@{}?stream=broadcast", peer.host());
    Http::<Postmark>::from_url(&url).expect("a URL").send(&outgoing(plain())).await.expect("it is accepted");
    let seen = &peer.seen()[0];
    assert_eq!(seen.header("x-postmark-server-token"), Some(KEY));
    assert_eq!(seen.json()["MessageStream"], "broadcast");

    let usual = Http::<Postmark>::from_url("postmark://K@default").expect("a URL");
    assert!(format!("{usual:?}").contains("https://api.postmarkapp.com/"), "{usual:?}");
    let error = Http::<Postmark>::from_url("postmark://default").err();
    assert_eq!(error, Some(HttpConfigError::Missing { what: "a key before the @" }));
}
