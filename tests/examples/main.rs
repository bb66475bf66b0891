//! Runs the example of each provider against a local server in place of the provider's. The mail is sent, and the request has all parts of
//! it and conforms to the provider's specification. Also runs the examples for SMTP, Prometheus and the mailbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../examples/common/catcher.rs"]
mod catcher;
mod expected_mail;
mod providers;
mod spec;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postrider::testkit::transport::{HttpPeer, HttpReply, HttpRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::catcher::Catcher;
use crate::expected_mail::{ExpectedMail, texts_of_json, texts_of_mime};
use crate::spec::Schema;

const FROM: &str = "shop@example.com";
const TO: &str = "ada@example.org";

/// The path of an example's executable.
fn program(example: &str) -> std::path::PathBuf {
    // This program is in `deps`, beside `examples`.
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(program.exists(), "the example is not built: run scripts/test, or cargo build --examples --all-features");
    program
}

/// Runs an example to its end, and asserts that it reports its mail as sent.
async fn run(example: &str, variables: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(program(example));
    command.env_clear().envs(variables.iter().copied()).envs([("MAIL_FROM", FROM), ("MAIL_TO", TO)]);
    command.current_dir(directory.path()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("it ends").unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{example}: {stdout}{stderr}");
    assert!(stdout.lines().next().is_some_and(|line| line.ends_with(" is sent")), "{example}: {stdout}{stderr}");
}

/// Runs an example against a server with this response. Returns the only request.
async fn request_of(example: &str, base_url: &str, keys: &[(&str, &str)], response: HttpReply) -> HttpRequest {
    let peer = HttpPeer::start([response]).await;
    let url = peer.url();
    let variables = [keys, &[(base_url, &url)]].concat();
    run(example, &variables).await;
    let mut seen = peer.seen();
    assert_eq!(seen.len(), 1, "one mail is one request");
    seen.remove(0)
}

fn assert_valid(schema: Schema, value: &Value) {
    let errors = schema.errors(value);
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Each row has the example, the variable for the server's URL, other variables, the path, the response, the specification and the mail.
macro_rules! json_examples {
    ($($example:ident: $base_url:literal, [$($key:literal),*], $path:literal, $response:expr, $schema:expr, $mail:expr;)*) => {
        $(
            #[tokio::test]
            async fn $example() {
                let keys = [$(($key, "a-key-of-the-example")),*];
                let request = request_of(stringify!($example), $base_url, &keys, $response).await;
                assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", $path));
                assert_eq!(request.header("content-type"), Some("application/json"));
                assert_valid($schema, &request.json());
                $mail.assert_in(&texts_of_json(&request.json()));
            }
        )*
    };
}

json_examples! {
    sendgrid: "SENDGRID_BASE_URL", ["SENDGRID_API_KEY"], "/v3/mail/send",
        HttpReply::answer(202, &[("x-message-id", "1")], ""), providers::SENDGRID, ExpectedMail::new(2, 2);
    postmark: "POSTMARK_BASE_URL", ["POSTMARK_SERVER_TOKEN"], "/email",
        HttpReply::json(200, json!({"ErrorCode": 0, "Message": "OK", "MessageID": "1"})), providers::POSTMARK, ExpectedMail::new(2, 2);
    resend: "RESEND_BASE_URL", ["RESEND_API_KEY"], "/emails",
        HttpReply::json(200, json!({"id": "1"})), providers::RESEND, ExpectedMail::new(2, 2);
    brevo: "BREVO_BASE_URL", ["BREVO_API_KEY"], "/v3/smtp/email",
        HttpReply::json(201, json!({"messageId": "1"})), providers::BREVO, ExpectedMail::new(2, 1).without_inline_parts();
    mailjet: "MAILJET_BASE_URL", ["MJ_APIKEY_PUBLIC", "MJ_APIKEY_PRIVATE"], "/v3.1/send",
        HttpReply::json(200, json!({"Messages": [{"Status": "success", "To": [{"MessageID": 1}]}]})),
        providers::MAILJET, ExpectedMail::new(2, 1);
    mailersend: "MAILERSEND_BASE_URL", ["MAILERSEND_API_KEY"], "/v1/email",
        HttpReply::answer(202, &[("x-message-id", "1")], ""), providers::MAILERSEND, ExpectedMail::new(2, 1).without_metadata();
    mailtrap: "MAILTRAP_BASE_URL", ["MAILTRAP_API_KEY"], "/api/send",
        HttpReply::json(200, json!({"success": true, "message_ids": ["1"]})), providers::MAILTRAP, ExpectedMail::new(2, 1);
}

#[tokio::test]
async fn sparkpost() {
    let response = json!({"results": {"total_rejected_recipients": 0, "total_accepted_recipients": 3, "id": "1"}});
    let keys = [("SPARKPOST_API_KEY", "a-key-of-the-example")];
    let request = request_of("sparkpost", "SPARKPOST_BASE_URL", &keys, HttpReply::json(200, response)).await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/v1/transmissions"));
    let mut transmission = request.json();
    assert_valid(providers::SPARKPOST, &transmission);
    let message = transmission["content"]["email_rfc822"].take();
    let mut texts = texts_of_json(&transmission);
    texts.extend(texts_of_mime(message.as_str().unwrap().as_bytes()));
    ExpectedMail::new(2, 3).assert_in(&texts);
}

#[tokio::test]
async fn mailgun() {
    let response = HttpReply::json(200, json!({"id": "<1@example.com>", "message": "Queued. Thank you."}));
    let keys = [("MAILGUN_API_KEY", "a-key-of-the-example"), ("MAILGUN_DOMAIN", "mg.example.com")];
    let request = request_of("mailgun", "MAILGUN_BASE_URL", &keys, response).await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v3/mg.example.com/messages.mime"));
    let mut texts = Vec::new();
    let mut messages = 0;
    for (name, file_name, value) in request.form() {
        let known =
            |field: &&str| name == **field || field.strip_suffix('*').is_some_and(|start| name.starts_with(start));
        assert!(providers::MAILGUN.iter().any(known), "{name} is not in the specification");
        if name == "message" {
            assert!(file_name.is_some(), "it is a file");
            messages += 1;
            texts.extend(texts_of_mime(&value));
        } else {
            assert_eq!(file_name, None, "{name} is no file");
            texts.extend([name, String::from_utf8(value).unwrap()]);
        }
    }
    assert_eq!(messages, 1);
    ExpectedMail::new(2, 3).assert_in(&texts);
}

/// Runs the example for SES against the server at this URL.
async fn run_ses(url: &str) {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "a-key-of-the-example"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL", url),
    ];
    run("ses", &variables).await;
}

#[tokio::test]
async fn ses() {
    let peer = HttpPeer::start([HttpReply::json(200, json!({"MessageId": "1"}))]).await;
    run_ses(&peer.url()).await;
    assert_eq!(peer.seen().len(), 1, "one mail is one request");
    let request = peer.seen().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v2/email/outbound-emails"));
    let mut sent = request.json();
    assert_valid(providers::SES, &sent);
    let message = STANDARD.decode(sent["Content"]["Raw"]["Data"].take().as_str().unwrap()).unwrap();
    let mut texts = texts_of_json(&sent);
    texts.extend(texts_of_mime(&message));
    ExpectedMail::new(2, 3).assert_in(&texts);
}

/// Sends a request to a test server, and returns the body of its response.
async fn exchange(url: &str, request: &str, body: &str) -> String {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    // The server reads only the service from the signature.
    let signature =
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/ses/aws4_request, SignedHeaders=host, Signature=0";
    let length = body.len();
    let head =
        format!("{request} HTTP/1.0\r\nHost: {host}\r\nAuthorization: {signature}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
#[ignore = "needs an SES server: run scripts/test"]
async fn ses_through_an_emulator() {
    let url = std::env::var("POSTRIDER_TEST_SES_URL").expect("POSTRIDER_TEST_SES_URL is set by scripts/test");
    // Another test may have created the identity.
    exchange(&url, "POST /v2/email/identities", r#"{"EmailIdentity":"example.com"}"#).await;
    run_ses(&url).await;
    let kept: Value = serde_json::from_str(&exchange(&url, "GET /moto-api/data.json", "").await).unwrap();
    let mine = |kept: &&Value| kept["source"] == FROM && kept["raw_data"].as_str().unwrap().contains("Your order 42");
    let kept = kept["ses"]["RawMessage"].as_array().unwrap().iter().find(mine).expect("the server has the mail");
    let mut texts = texts_of_mime(kept["raw_data"].as_str().unwrap().as_bytes());
    // The server appends the recipients in the headers.
    texts.extend(texts_of_json(&kept["destinations"]).into_iter().take(3));
    ExpectedMail::new(2, 3).assert_in(&texts);
}

#[tokio::test]
async fn smtp() {
    let catcher = Catcher::start().await.unwrap();
    let url = catcher.url();
    run("smtp", &[("SMTP_URL", &url)]).await;
    let caught = catcher.caught();
    assert_eq!(caught.len(), 1, "one mail is one message");
    assert_eq!(caught[0].header("Subject"), Some("Your order 42"));
    let mut texts = caught[0].to.clone();
    texts.extend(texts_of_mime(caught[0].content.as_bytes()));
    ExpectedMail::new(2, 3).assert_in(&texts);
}

/// The example that serves metrics runs until it is stopped, so the test reads them, and ends it.
#[tokio::test]
async fn prometheus() {
    let catcher = Catcher::start().await.unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(program("prometheus"));
    let variables = [("SMTP_URL", catcher.url()), ("METRICS_ADDRESS", address.clone())];
    command.env_clear().envs(variables).envs([("MAIL_FROM", FROM), ("MAIL_TO", TO)]);
    let mut running = command.current_dir(directory.path()).kill_on_drop(true).spawn().unwrap();
    let sent = "postrider_deliveries_settled_total{postrider_result=\"sent\"} 1";
    let read = async {
        loop {
            assert_eq!(running.try_wait().unwrap(), None, "the example has ended");
            if let Ok(mut stream) = TcpStream::connect(&address).await {
                let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
                let mut response = String::new();
                let written = stream.write_all(request.as_bytes()).await;
                if written.is_ok() && stream.read_to_string(&mut response).await.is_ok() && response.contains(sent) {
                    break response;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let response = tokio::time::timeout(Duration::from_secs(60), read).await.expect("the mail is counted");
    for metric in ["messaging_client_operation_duration_seconds_bucket", "postrider_outbox_lag_seconds 0"] {
        assert!(response.contains(metric), "{metric} is missing: {response}");
    }
    assert_eq!(catcher.caught().len(), 1);
}

/// The body of a response to a request without a body. `None` if the server does not listen yet.
async fn fetch(address: &str, path: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok()?;
    let end = response.windows(4).position(|octets| octets == b"\r\n\r\n")?;
    assert!(response.starts_with(b"HTTP/1.0 200") || response.starts_with(b"HTTP/1.1 200"), "{path}: {response:?}");
    Some(response.split_off(end + 4))
}

/// One command shows mails in a dashboard: sent, refused, deferred and scheduled ones. An independent parser reads the source of one.
#[tokio::test]
async fn mailbox() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(program("mailbox"));
    command.env_clear().env("DASHBOARD_ADDRESS", &address).current_dir(directory.path()).kill_on_drop(true);
    let mut running = command.spawn().unwrap();
    let shows = [
        ("state=sent", &["Welcome, Ada", "Invoice 42", "What is new in spring"][..]),
        ("state=dead", &["Your parcel is on its way"]),
        ("state=pending", &["Your parcel has arrived", "Your basket waits"]),
    ];
    let read = async {
        'again: loop {
            assert_eq!(running.try_wait().unwrap(), None, "the example has ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
            for (query, subjects) in shows {
                let Some(page) = fetch(&address, &format!("/deliveries?{query}")).await else { continue 'again };
                let page = String::from_utf8(page).unwrap();
                if !subjects.iter().all(|subject| page.contains(subject)) {
                    continue 'again;
                }
            }
            break;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.expect("the mails are shown");
    let page = String::from_utf8(fetch(&address, "/deliveries?subject=Welcome").await.unwrap()).unwrap();
    let (_, rest) = page.split_once("deliveries/").expect("a link to the delivery");
    let id = &rest[..36];
    let source = fetch(&address, &format!("/deliveries/{id}/message.eml")).await.unwrap();
    let mail = mail_parser::MessageParser::default().parse(&source).unwrap();
    assert_eq!(mail.subject(), Some("Welcome, Ada"));
    assert!(mail.body_html(0).unwrap().contains("Good to have you."));
    let logo = mail.attachments().next().expect("the inline image");
    assert_eq!(logo.contents(), include_bytes!("../../examples/common/envelope.png"));
    let page = String::from_utf8(fetch(&address, &format!("/deliveries/{id}")).await.unwrap()).unwrap();
    assert!(page.contains("nothing was sent"), "{page}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the example leaves files behind");
}
