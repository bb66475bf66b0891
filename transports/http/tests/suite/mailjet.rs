//! Mailjet. Responses follow the guide, unless a comment names another source:
//! <https://dev.mailjet.com/email/guides/send-api-v31/> and, for the form of errors outside the Send API,
//! <https://dev.mailjet.com/docs/email-api/email_api_overview/status_codes>.

use postrider_http::{BatchLimits, Http, HttpConfigError, HttpError, HttpErrorKind, Mailjet, Provider};
use postrider_transport::{Attachment, Email, Failure, Outgoing, Receipt, Recipient, Transport, Unsupported};
use serde_json::{Value, json};

use crate::conformance::{conformance_tests, leaky_text, message, refusal, status};
use crate::faults::{TestProvider, fault_tests};
use crate::limits::assert_size_limit_splits_batch;
use crate::mails::mail_tests;
use crate::support::{
    KEY, assert_redacted, assert_table, connect, new_delivery, outgoing, plain, rich, row, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct MailjetCase;

impl TestProvider for MailjetCase {
    type Provider = Mailjet;

    fn provider() -> Mailjet {
        Mailjet::new("public", KEY).expect("keys")
    }

    fn accepted() -> HttpReply {
        Self.accept("456")
    }
}

impl HttpApi for MailjetCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let sent = request.json();
        let messages = sent["Messages"].as_array().expect("messages");
        messages.iter().map(|one| message(one, ["To", "Cc", "Bcc"])).collect()
    }

    fn accept(&self, id: &str) -> HttpReply {
        self.batch(&[Some(id.to_owned())])
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        if answer == Answer::RefuseMessage {
            return self.batch(&[None]);
        }
        let body = json!({"ErrorIdentifier": "1", "StatusCode": status(answer), "ErrorMessage": leaky_text()});
        // RFC 6585 section 4; the guide names no header.
        refusal(status(answer), body.to_string(), answer, "retry-after")
    }

    fn batch(&self, outcomes: &[Option<String>]) -> HttpReply {
        let messages = outcomes.iter().map(|outcome| match outcome {
            Some(id) => success("", id.parse().expect("a number")),
            None => failed(&[json!({
                "ErrorCode": "mj-0006", "StatusCode": 400, "ErrorMessage": leaky_text(), "ErrorRelatedTo": ["Subject"]
            })]),
        });
        let status = if outcomes.iter().any(Option::is_none) { 400 } else { 200 };
        HttpReply::json(status, answer(&messages.collect::<Vec<_>>()))
    }
}

fault_tests!(MailjetCase, status_is_enough: false);
mail_tests!(MailjetCase);
conformance_tests!(MailjetCase);

fn success(custom_id: &str, message_id: u64) -> Value {
    json!({
        "Status": "success", "CustomID": custom_id,
        "To": [{
            "Email": "ada@example.org", "MessageUUID": "1ab23cd4-e567-8901-2345-6789f0gh1i2j", "MessageID": message_id,
            "MessageHref": "https://api.mailjet.com/v3/message/1234567890987654321"
        }],
        "Cc": [], "Bcc": []
    })
}

fn error(code: &str, status: u16, related_to: &[&str]) -> Value {
    json!({
        "ErrorIdentifier": "f987008f-251a-4dff-8ffc-40f1583ad7bc", "ErrorCode": code, "StatusCode": status,
        "ErrorMessage": "ada@example.org will not do", "ErrorRelatedTo": related_to
    })
}

fn failed(errors: &[Value]) -> Value {
    json!({"Status": "error", "Errors": errors})
}

fn answer(messages: &[Value]) -> String {
    json!({ "Messages": messages }).to_string()
}

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([HttpReply::json(200, answer(&[success("", 1_234_567_890_987_654_321)]))]).await;
    let receipt = connect(MailjetCase::provider(), &peer).send(&outgoing(rich())).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("1234567890987654321"));
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v3.1/send"));
    let authorization = seen.header("authorization").expect("keys");
    assert_eq!(authorization, "Basic cHVibGljOktFWS10aGF0LW5vYm9keS1tYXktc2Vl");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let expected = json!({"Messages": [{
        "From": {"Email": "shop@example.com", "Name": "Shop"},
        "To": [{"Email": "ada@example.org"}, {"Email": "bob@example.org", "Name": "Bob"}],
        "Cc": [{"Email": "carol@example.org", "Name": "Carol"}],
        "Bcc": [{"Email": "dave@example.org"}],
        "ReplyTo": {"Email": "help@example.com", "Name": "Help"},
        "Subject": "Hello",
        "TextPart": "body-of-the-mail",
        "HTMLPart": "<p>body-of-the-mail <img src=\"cid:logo\"></p>",
        "Attachments": [{"ContentType": "text/plain", "Filename": "terms.txt", "Base64Content": "dGVybXM="}],
        "InlinedAttachments": [
            {"ContentType": "image/png", "Filename": "logo.png", "ContentID": "logo", "Base64Content": "iVBORw=="}
        ],
        "Headers": {
            "X-Order": "42",
            "List-Unsubscribe": "<https://example.com/u/1>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"
        },
        "CustomID": "0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00",
        "EventPayload": "{\"order\":\"42\"}",
        "CustomCampaign": "welcome"
    }]});
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn the_request_has_only_the_recipients_of_the_attempt() {
    let peer = HttpPeer::start([MailjetCase::accepted()]).await;
    let mail = outgoing(rich()).with_recipients(vec![Recipient::new("dave@example.org")]);
    connect(MailjetCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    let seen = &peer.seen()[0].json()["Messages"][0];
    assert_eq!(seen["To"], json!([{"Email": "dave@example.org"}]));
    assert_eq!((seen.get("Cc"), seen.get("Bcc")), (None, None));
}

#[tokio::test]
async fn a_sandbox_response_has_no_id() {
    let peer = HttpPeer::start([HttpReply::json(200, answer(&[success("", 0)]))]).await;
    let transport = connect(MailjetCase::provider().sandbox(), &peer);
    let receipt = transport.send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(receipt.provider_id, None);
    assert_eq!(peer.seen()[0].json()["SandboxMode"], json!(true));
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, NoResponse, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let global = |code: &str, status: u16| {
        json!({"ErrorIdentifier": "06df1144", "ErrorCode": code, "ErrorMessage": "no", "StatusCode": status})
            .to_string()
    };
    let one = |errors: &[Value]| answer(&[failed(errors)]);
    let table = vec![
        row(400, &global("mj-0002", 400), Message),
        row(400, &global("mj-0011", 400), Message),
        row(401, &global("mj-0001", 401), Account),
        row(401, &global("mj-0015", 401), Account),
        // The format of Mailjet's other APIs, without a code.
        row(401, r#"{"ErrorIdentifier":"1","StatusCode":401,"ErrorMessage":"API key authentication failed"}"#, Account),
        row(403, &one(&[error("send-0006", 403, &["SenderID"])]), Account),
        row(403, &one(&[error("send-0007", 403, &["SenderID"])]), Account),
        row(403, &one(&[error("send-0008", 403, &["From"])]), Sender),
        row(200, &one(&[error("send-0008", 403, &["From"])]), Sender),
        row(400, &one(&[error("send-0003", 400, &["HTMLPart"])]), Message),
        row(400, &one(&[error("send-0011", 400, &["Headers[\"Date\"]"])]), Message),
        row(400, &one(&[error("send-0015", 400, &["To"])]), Message),
        row(400, &one(&[error("mj-0006", 400, &["Subject"])]), Message),
        row(400, &one(&[error("mj-0013", 400, &["From.Email"])]), Sender),
        row(400, &one(&[error("mj-0013", 400, &["To[0].Email", "ReplyTo.Email"])]), Message),
        row(400, &one(&[error("mj-0013", 400, &["To[0].Email"])]), Recipient),
        row(400, &one(&[error("mj-0013", 400, &["To[0].Email"]), error("mj-0006", 400, &["Subject"])]), Message),
        row(403, &one(&[error("mj-0006", 400, &["Subject"]), error("send-0008", 403, &["From"])]), Sender),
        // Undocumented codes are classified by the status of each error.
        row(400, &one(&[error("send-9999", 429, &[])]), RateLimit),
        row(400, &one(&[error("send-9999", 500, &[])]), ServerError),
        unsure_row(400, &one(&[error("send-9999", 400, &["To"])]), Message),
        unsure_row(200, &one(&[error("send-9999", 403, &[])]), Message),
        unsure_row(400, &one(&[]), ServerError),
        row(200, &answer(&[json!({"Status": "perhaps"})]), NoResponse),
        row(200, &answer(&[]), NoResponse),
        row(200, &answer(&[success("", 1), success("", 2)]), NoResponse),
        row(200, &answer(&[success("0193f0a1-7e64-7cc1-8f6b-000000000000", 1)]), NoResponse),
        row(429, r#"{"ErrorIdentifier":"1","StatusCode":429,"ErrorMessage":"Too Many Requests"}"#, RateLimit),
        row(500, r#"{"ErrorIdentifier":"1","StatusCode":500,"ErrorMessage":"Internal"}"#, ServerError),
        row(503, "{}", Unavailable),
    ];
    assert_table(MailjetCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([MailjetCase::accepted()]).await;
    let transport = connect(MailjetCase::provider(), &peer);
    let file = |content: Vec<u8>| Attachment::new("a.bin", "application/octet-stream", content).expect("an attachment");
    let crowd = (0..50).fold(plain(), |email, number| email.bcc(format!("n{number}@example.org").as_str()));
    let headers = (0..51).fold(plain(), |email, number| email.header(format!("X-{number}"), "1"));
    let files = (0..51).fold(plain(), |email, _| email.attach(file(vec![1])));
    for email in [
        Email::builder().from("a@example.com").bcc("b@example.com").text("x"),
        plain().sender("b@example.com"),
        plain().null_envelope_from(),
        plain().cc("zoë@example.org"),
        plain().reply_to("zoë@example.org"),
        plain().header("X-A", "1").header("x-a", "2"),
        plain().header("List-Id", "<list.example.com>"),
        plain().header("X-MJ-CustomID", "1"),
        plain().header("X-Mailjet-Campaign", "1"),
        plain().reply_to("b@example.com").reply_to("c@example.com"),
        plain().tag("one").tag("two"),
        plain().subject("é".repeat(256)),
        plain().attach(file(Vec::new())),
        plain().attach(file(vec![1; 16 * 1024 * 1024])),
        crowd,
        headers,
        files,
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
    transport
        .check(&plain().subject("é".repeat(255)).build().expect("a mail"))
        .expect("255 characters are within the limit");
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([MailjetCase::accepted()]).await;
    let transport =
        Http::<Mailjet>::from_url(&format!("mailjet://public:{KEY}@{}?sandbox=true", peer.host())).expect("a URL");
    transport.send(&outgoing(plain())).await.expect("it is accepted");
    let seen = &peer.seen()[0];
    assert_eq!(seen.header("authorization"), Some("Basic cHVibGljOktFWS10aGF0LW5vYm9keS1tYXktc2Vl"));
    assert_eq!(seen.json()["SandboxMode"], json!(true));

    let us = Http::<Mailjet>::from_url("mailjet://K:S@default?region=us").expect("a URL");
    assert!(format!("{us:?}").contains("https://api.us.mailjet.com/"), "{us:?}");
    let error = |url| Http::<Mailjet>::from_url(url).err();
    assert_eq!(
        error("mailjet://K:S@default?region=mars"),
        Some(HttpConfigError::Value { setting: "region", expected: "global or us".to_owned() })
    );
    let secret = HttpConfigError::Missing { what: "a secret key between the : and the @" };
    assert_eq!(error("mailjet://K@default"), Some(secret));
}

fn kind(result: &Result<Receipt, Failure>) -> HttpErrorKind {
    let failure = result.as_ref().expect_err("it is a failure");
    assert_redacted(failure);
    failure.downcast_ref::<HttpError>().expect("it is an HttpError").kind()
}

fn id(result: &Result<Receipt, Failure>) -> Option<&str> {
    result.as_ref().expect("it is accepted").provider_id.as_deref()
}

async fn batch(
    reply: impl FnOnce(&[String]) -> HttpReply,
    then: &[HttpReply],
) -> (Vec<Result<Receipt, Failure>>, HttpPeer) {
    let mails: Vec<Outgoing<Email>> = (0..3).map(|_| new_delivery(plain())).collect();
    let ids: Vec<_> = mails.iter().map(|mail| mail.id().to_string()).collect();
    let peer = HttpPeer::start([reply(&ids)].into_iter().chain(then.iter().cloned())).await;
    let results = connect(MailjetCase::provider(), &peer).send_batch(&mails).await;
    let sent: Vec<_> = peer.seen()[0].json()["Messages"].as_array().expect("messages").to_vec();
    assert_eq!(
        sent.iter().map(|message| message["CustomID"].as_str()).collect::<Vec<_>>(),
        ids.iter().map(|id| Some(id.as_str())).collect::<Vec<_>>()
    );
    (results, peer)
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_result_with_any_status() {
    for status in [200, 400, 403] {
        let reply = |ids: &[String]| {
            HttpReply::json(
                status,
                answer(&[success(&ids[0], 1), failed(&[error("mj-0006", 400, &["Subject"])]), success(&ids[2], 3)]),
            )
        };
        let (results, peer) = batch(reply, &[]).await;
        assert_eq!((id(&results[0]), id(&results[2])), (Some("1"), Some("3")));
        assert_eq!(kind(&results[1]), HttpErrorKind::Message);
        assert_eq!(peer.seen().len(), 1, "no message is sent twice");
    }
}

#[tokio::test]
async fn messages_of_a_refused_batch_are_sent_one_by_one() {
    let global = r#"{"ErrorIdentifier":"1","ErrorCode":"mj-0011","ErrorMessage":"too large","StatusCode":400}"#;
    let alone = [
        HttpReply::json(200, answer(&[success("", 1)])),
        HttpReply::json(400, answer(&[failed(&[error("mj-0006", 400, &["Subject"])])])),
        HttpReply::json(200, answer(&[success("", 3)])),
    ];
    let (results, peer) = batch(|_| HttpReply::json(400, global), &alone).await;
    assert_eq!((id(&results[0]), id(&results[2])), (Some("1"), Some("3")));
    assert_eq!(kind(&results[1]), HttpErrorKind::Message);
    assert_eq!(peer.seen().len(), 4);
}

#[tokio::test]
async fn an_error_of_the_account_applies_to_all_messages() {
    use HttpErrorKind::{Account, RateLimit, Unavailable};
    let said = |code: &str, status: u16| {
        json!({"ErrorIdentifier": "1", "ErrorCode": code, "ErrorMessage": "no", "StatusCode": status}).to_string()
    };
    for (status, body, expected) in [
        (401, said("mj-0015", 401), Account),
        (403, "<html>".to_owned(), Account),
        (429, "{}".to_owned(), RateLimit),
        (503, "{}".to_owned(), Unavailable),
    ] {
        let (results, peer) = batch(|_| HttpReply::json(status, &body), &[]).await;
        assert_eq!(results.iter().map(kind).collect::<Vec<_>>(), vec![expected; 3], "{status}");
        assert_eq!(peer.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_batch_with_unclear_results_is_in_doubt() {
    let swapped =
        |ids: &[String]| HttpReply::json(200, answer(&[success(&ids[1], 1), success(&ids[0], 2), success(&ids[2], 3)]));
    let short =
        |ids: &[String]| HttpReply::json(400, answer(&[success(&ids[0], 1), failed(&[error("mj-0006", 400, &[])])]));
    let inside = |_: &[String]| HttpReply::json(500, r#"{"ErrorIdentifier":"1","StatusCode":500,"ErrorMessage":"no"}"#);
    let page = |_: &[String]| HttpReply::json(200, "<html>");
    let broken = |_: &[String]| HttpReply::Raw(b"HTTP/1.1 400 X\r\ncontent-length: 99\r\n\r\n{\"Messages\":[".to_vec());
    let gone = |_: &[String]| HttpReply::Close;
    for reply in [&swapped as &dyn Fn(&[String]) -> HttpReply, &short, &inside, &page, &broken, &gone] {
        let (results, peer) = batch(reply, &[]).await;
        assert_eq!(results.iter().map(kind).collect::<Vec<_>>(), vec![HttpErrorKind::NoResponse; 3]);
        assert_eq!(peer.seen().len(), 1, "no message is sent twice");
    }
}

#[tokio::test]
async fn batches_are_split_by_number_and_size() {
    let fifty: Vec<_> = (1..=50).map(|number| success("", number)).collect();
    let peer = HttpPeer::start([HttpReply::json(200, answer(&fifty)), HttpReply::json(200, answer(&fifty[..2]))]).await;
    let transport = connect(MailjetCase::provider(), &peer);
    let mails: Vec<_> = (0..52).map(|_| new_delivery(plain())).collect();
    let results = transport.send_batch(&mails).await;
    assert_eq!(results.iter().map(id).collect::<Vec<_>>()[48..], [Some("49"), Some("50"), Some("1"), Some("2")]);
    let sizes: Vec<_> = peer.seen().iter().map(|seen| seen.json()["Messages"].as_array().map(Vec::len)).collect();
    assert_eq!(sizes, [Some(50), Some(2)]);

    let limits = MailjetCase::provider().batch_limits();
    assert_eq!(limits, Some(BatchLimits::new(50, 15 * 1024 * 1024)));
    let peer = HttpPeer::start([HttpReply::json(200, answer(&fifty[..2])), MailjetCase::accepted()]).await;
    assert_size_limit_splits_batch(MailjetCase::provider(), &peer).await;
}
