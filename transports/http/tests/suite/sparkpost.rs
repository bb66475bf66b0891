//! SparkPost. Responses follow the manuals: <https://developers.sparkpost.com/api/transmissions/> and
//! <https://support.sparkpost.com/docs/tech-resources/extended-error-codes>. Responses about the idempotency key:
//! <https://github.com/SparkPost/developers.sparkpost.com/pull/590>.

use mail_parser::{MessageParser, MimeHeaders};
use postrider_http::{Http, HttpConfigError, HttpErrorKind, SparkPost};
use postrider_transport::{Attachment, Class, Recipient, Refusal, Transport, Unsupported};
use serde_json::json;

use crate::conformance::{conformance_tests, leaky_text, refusal, status};
use crate::faults::{TestProvider, fault_tests};
use crate::mails::mail_tests;
use crate::support::{
    KEY, Row, assert_redacted, assert_table, connect, outgoing, plain, rich, row, send_one, unsure_row,
};
use postrider_transport::testkit::{Accepted, Answer, HttpApi, HttpPeer, HttpReply, HttpRequest};

#[derive(Default)]
pub(crate) struct SparkPostCase;

impl TestProvider for SparkPostCase {
    type Provider = SparkPost;

    const TAKES_MIME: bool = true;

    fn provider() -> SparkPost {
        SparkPost::new(KEY).expect("a key")
    }

    fn accepted() -> HttpReply {
        HttpReply::json(200, results(0, 1, "[]"))
    }
}

impl HttpApi for SparkPostCase {
    fn messages(&self, request: &HttpRequest) -> Vec<Accepted> {
        let sent = request.json();
        let recipients = sent["recipients"].as_array().expect("recipients").iter();
        let recipients = recipients.map(|to| to["address"]["email"].as_str().expect("an address").to_owned());
        let content = sent["content"]["email_rfc822"].as_str().expect("a message");
        vec![Accepted::new(recipients.collect(), None, content)]
    }

    fn accept(&self, id: &str) -> HttpReply {
        HttpReply::json(
            200,
            json!({"results": {"total_rejected_recipients": 0, "total_accepted_recipients": 1, "id": id}}),
        )
    }

    fn refuse(&self, answer: Answer) -> HttpReply {
        let body = json!({"errors": [{"message": "no", "description": leaky_text(), "code": "1300"}]}).to_string();
        // RFC 6585 section 4; the manual names no header.
        refusal(status(answer), body, answer, "retry-after")
    }
}

fn results(rejected: usize, accepted: usize, errors: &str) -> String {
    format!(
        r#"{{"results":{{"rcpt_to_errors":{errors},"total_rejected_recipients":{rejected},"total_accepted_recipients":{accepted},"id":"11668787484950529"}}}}"#
    )
}

fault_tests!(SparkPostCase, status_is_enough: false);
mail_tests!(SparkPostCase);
conformance_tests!(SparkPostCase);

#[tokio::test]
async fn the_request_contains_the_whole_mail() {
    let peer = HttpPeer::start([HttpReply::json(
        200,
        r#"{"results":{"total_rejected_recipients":0,"total_accepted_recipients":4,"id":"11668787484950529"}}"#,
    )])
    .await;
    let mail = rich().reply_to("more@example.com").sender("office@example.com").header("X-Order", "43");
    let mail = outgoing(mail.envelope_from("bounces@mail.example.com".parse().expect("an address")));
    let receipt = connect(SparkPostCase::provider(), &peer).send(&mail).await.expect("it is accepted");
    assert_eq!(receipt.provider_id.as_deref(), Some("11668787484950529"));
    assert_eq!(receipt.refused, []);
    let seen = &peer.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/v1/transmissions"));
    assert_eq!(seen.header("authorization"), Some(KEY));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some("0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00-1"));
    let mut body = seen.json();
    let message = body["content"]["email_rfc822"].take();
    let to = |address: &str| json!({"address": {"email": address}, "tags": ["welcome"]});
    let expected = json!({
        "options": {"transactional": true, "perform_substitutions": false},
        "recipients": [to("ada@example.org"), to("bob@example.org"), to("carol@example.org"), to("dave@example.org")],
        "metadata": {"order": "42"},
        "return_path": "bounces@mail.example.com",
        "content": {"email_rfc822": null}
    });
    assert_eq!(body, expected);

    let message = message.as_str().expect("the message is text");
    assert!(!message.contains("dave@"), "a bcc recipient is visible");
    assert!(!message.contains("X-Tag") && !message.contains("X-Metadata"), "tags and metadata have separate fields");
    let parsed = MessageParser::default().parse(message).expect("a message");
    assert_eq!(format!("<{}>", parsed.message_id().unwrap()), mail.message_id());
    assert_eq!(parsed.to().unwrap().iter().count(), 2);
    assert_eq!(parsed.cc().unwrap().iter().count(), 1);
    assert_eq!(parsed.reply_to().unwrap().iter().count(), 2);
    assert_eq!(parsed.sender().unwrap().first().unwrap().address(), Some("office@example.com"));
    assert_eq!(parsed.header_values("X-Order").count(), 2);
    assert_eq!(parsed.header_raw("List-Unsubscribe-Post").unwrap().trim(), "List-Unsubscribe=One-Click");
    assert_eq!(parsed.body_text(0).unwrap().trim(), "body-of-the-mail");
    let logo = parsed.parts.iter().find(|part| part.content_id() == Some("logo")).expect("the inline part");
    assert_eq!(logo.contents(), b"\x89PNG");
    let terms = parsed.attachments().find(|part| part.attachment_name() == Some("terms.txt")).expect("the file");
    assert_eq!(terms.contents(), b"terms");
}

#[tokio::test]
async fn an_attempt_for_some_recipients_has_its_own_idempotency_key() {
    let peer = HttpPeer::start([SparkPostCase::accepted()]).await;
    let transport = connect(SparkPostCase::provider(), &peer);
    let left = vec![Recipient::new("dave@example.org")];
    transport.send(&outgoing(rich()).with_recipients(left)).await.expect("it is accepted");
    transport.send(&outgoing(rich()).with_attempt(5, 2)).await.expect("it is accepted");
    let seen = peer.seen();
    let recipients = &seen[0].json()["recipients"];
    assert_eq!(recipients, &json!([{"address": {"email": "dave@example.org"}, "tags": ["welcome"]}]));
    let keys = seen.iter().map(|seen| seen.header("idempotency-key").expect("a key").to_owned());
    let keys: std::collections::BTreeSet<_> =
        keys.chain(["0193f0a1-7e64-7cc1-8f6b-3d2f1a5b9c00-1".to_owned()]).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    // The characters and length that the API accepts.
    let plain =
        |key: &String| key.len() <= 255 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    assert!(keys.iter().all(plain), "{keys:?}");
}

#[tokio::test]
async fn sandbox_is_a_field_of_the_request() {
    let peer = HttpPeer::start([SparkPostCase::accepted()]).await;
    connect(SparkPostCase::provider().sandbox(), &peer).send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].json()["options"]["sandbox"], json!(true));
}

#[tokio::test]
async fn recipients_rejected_within_a_success_are_recorded() {
    let error = |description: &str| {
        format!(r#"[{{"message":"invalid data format/type","description":"{description}","code":"1300"}}]"#)
    };
    let ask = |rejected, accepted, errors: &str| {
        send_one(SparkPostCase::provider(), rich(), HttpReply::json(200, results(rejected, accepted, errors)))
    };
    let receipt = ask(1, 3, &error("'bob@example.org' is not deliverable")).await.expect("the others are accepted");
    let said = "invalid data format/type: 'bob@example.org' is not deliverable";
    assert_eq!(receipt.refused, [Refusal::new("bob@example.org", Class::Permanent, said)]);

    // Only whole addresses match, without case.
    let reply = HttpReply::json(200, results(1, 1, &error("JoAnn@example.org is not deliverable")));
    let mail = plain().to("ann@example.org").to("joann@example.org");
    let left = ["ann@example.org", "joann@example.org"].map(Recipient::new).to_vec();
    let peer = HttpPeer::start([reply]).await;
    let receipt = connect(SparkPostCase::provider(), &peer).send(&outgoing(mail).with_recipients(left)).await;
    let refused = receipt.expect("the other one is accepted").refused;
    assert_eq!(refused.iter().map(|refusal| refusal.recipient.as_str()).collect::<Vec<_>>(), ["joann@example.org"]);

    let nobody = ask(4, 0, &error("address.email is no address")).await.expect_err("no recipient is accepted");
    let kind = |failure: &postrider_transport::Failure| {
        failure.downcast_ref::<postrider_http::HttpError>().expect("it is an HttpError").kind()
    };
    assert_eq!(kind(&nobody), HttpErrorKind::Recipient);
    for (rejected, errors) in [(1, error("no address")), (2, error("'bob@example.org' is bad")), (1, "[]".to_owned())] {
        let unnamed = ask(rejected, 4 - rejected, &errors).await.expect_err("the rejected recipients are unknown");
        assert_eq!(kind(&unnamed), HttpErrorKind::NoResponse, "{unnamed}");
        assert!(unnamed.in_doubt());
        assert_redacted(&unnamed);
    }
}

#[tokio::test]
async fn responses_are_classified_by_the_table() {
    use HttpErrorKind::{Account, Message, NoResponse, Quota, RateLimit, Recipient, Sender, ServerError, Unavailable};
    let errors = |code: &str, message: &str, description: &str| {
        format!(r#"{{"errors":[{{"message":"{message}","description":"{description}","code":"{code}"}}]}}"#)
    };
    let table = vec![
        row(400, &errors("7001", "Invalid domain", "Unconfigured or unverified sending domain."), Sender),
        row(400, &errors("7000", "Sending domain blacklisted", ""), Sender),
        unsure_row(400, &errors("9999", "nobody knows ada@example.org", ""), Message),
        unsure_row(422, &errors("9999", "nobody knows", ""), Message),
        row(400, &errors("1910", "Message generation not configured", ""), Account),
        row(
            400,
            &errors("1902", "Message generation rejected", "recipient address suppressed due to customer policy"),
            Recipient,
        ),
        row(400, &errors("1902", "Message generation rejected", "the content is not wanted"), Message),
        row(400, &errors("5002", "At least one valid recipient is required", "ada@example.org"), Recipient),
        row(400, &errors("1502", "Server resources unavailable", ""), Unavailable),
        row(400, &errors("1901", "Message failed to generate", ""), Message),
        row(400, r#"{"errors":[{"message":"invalid params","code":1200}]}"#, Message),
        unsure_row(400, r#"{"errors":[{"message":"invalid params"}]}"#, Message),
        row(401, r#"{"errors":[{"message":"Unauthorized."}]}"#, Account),
        row(403, &errors("1100", "Forbidden.", "permission denied"), Account),
        row(404, &errors("1101", "invalid URI", ""), Account),
        row(405, &errors("1102", "invalid HTTP method", ""), Account),
        row(409, &errors("1600", "the key was used with another payload", ""), NoResponse),
        row(409, &errors("1601", "a request with this key is in progress", ""), NoResponse),
        row(409, &errors("1602", "Resource in use", ""), NoResponse),
        row(413, &errors("1300", "too large", ""), Message),
        row(422, &errors("3020", "template mime parsing error", "for ada@example.org"), Message),
        row(420, &errors("2101", "Exceed Sending Limit (hourly)", ""), Quota),
        row(420, &errors("2103", "Exceed Sending Limit (sandbox)", ""), Quota),
        row(429, r#"{"errors":[{"message":"Too many requests"}]}"#, RateLimit),
        Row {
            reply: HttpReply::answer(429, &[("retry-after", "4")], r#"{"errors":[{"message":"Too many requests"}]}"#),
            kind: RateLimit,
            retry_after: Some(4),
            sure: true,
        },
        row(500, &errors("1500", "Failed to update database", ""), ServerError),
        row(503, &errors("1900", "Message generation module not available", ""), Unavailable),
    ];
    assert_table(SparkPostCase::provider, table).await;
}

#[tokio::test]
async fn unsupported_mail_is_refused_and_not_sent() {
    let peer = HttpPeer::start([SparkPostCase::accepted()]).await;
    let transport = connect(SparkPostCase::provider(), &peer);
    let tags = (0..11).fold(plain(), |email, number| email.tag(number.to_string()));
    let large = Attachment::new("x.bin", "application/x", vec![0; 20_000_001]).expect("an attachment");
    let unsubscribe = postrider_transport::ListUnsubscribe::uri("https://example.com/{{u}}").expect("a link");
    for email in [
        plain().null_envelope_from(),
        plain().to("пошта@example.org"),
        plain().reply_to("пошта@example.org"),
        plain().sender("пошта@example.org"),
        plain().attach(Attachment::new("x", "message/rfc822", *b"a: \0").expect("an attachment")),
        plain().attach(Attachment::new("x", "message/rfc822", "a: é".as_bytes()).expect("an attachment")),
        tags,
        plain().metadata("long", vec!["z"; 600].join(" ")),
        plain().attach(large).size_limit(usize::MAX),
        plain().subject("Hello {{name}}"),
        plain().header("X-A", "{{ x }}"),
        plain().header("X-{{a}}", "x"),
        plain().reply_to(("The {{team}}", "team@example.com")),
        plain().sender(("The {{team}}", "team@example.com")),
        plain().list_unsubscribe(unsubscribe),
    ] {
        let checked = transport.check(&email.clone().build().expect("a mail")).expect_err("the mail is refused");
        assert!(checked.downcast_ref::<Unsupported>().is_some(), "{checked}");
        let sent = transport.send(&outgoing(email)).await.expect_err("the mail is refused");
        assert!(sent.downcast_ref::<Unsupported>().is_some(), "{sent}");
    }
    assert_eq!(peer.seen().len(), 0);
    transport.send(&outgoing(plain().text("{{ in a body is a text }}"))).await.expect("it is accepted");
}

#[tokio::test]
async fn from_url_reads_all_settings() {
    let peer = HttpPeer::start([SparkPostCase::accepted()]).await;
    let url = format!("sparkpost://{KEY}@{}?sandbox=true", peer.host());
    Http::<SparkPost>::from_url(&url).expect("a URL").send(&outgoing(plain())).await.expect("it is accepted");
    assert_eq!(peer.seen()[0].header("authorization"), Some(KEY));

    let shown = |url| format!("{:?}", Http::<SparkPost>::from_url(url).expect("a URL"));
    assert!(shown("sparkpost://K@default?region=eu").contains("https://api.eu.sparkpost.com/"));
    assert!(shown("sparkpost://K@default?region=us").contains("https://api.sparkpost.com/"));
    let error = |url| Http::<SparkPost>::from_url(url).err();
    assert_eq!(
        error("sparkpost://K@default?region=mars"),
        Some(HttpConfigError::Value { setting: "region", expected: "us or eu".to_owned() })
    );
    assert_eq!(error("sparkpost://default"), Some(HttpConfigError::Missing { what: "a key before the @" }));
}
