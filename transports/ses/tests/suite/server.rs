//! Tests against a server that implements the SES API.

use std::env;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::Region;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use mail_parser::{Address, MessageParser, MimeHeaders};
use postrider_ses::Ses;
use postrider_transport::{Attachment, Class, Scope, Transport};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{email, error, outgoing, sdk_config};

fn url() -> String {
    env::var("POSTRIDER_TEST_SES_URL").expect("POSTRIDER_TEST_SES_URL is set by scripts/test")
}

/// Verifies a sender domain on the server.
async fn verify(domain: &str) {
    let config = sdk_config()
        .into_builder()
        .endpoint_url(url())
        .region(Region::from_static("eu-west-1"))
        .timeout_config(TimeoutConfig::disabled())
        .build();
    if let Err(error) = Client::new(&config).create_email_identity().email_identity(domain).send().await {
        // An earlier run may have verified the domain on the same server.
        assert!(error.into_service_error().is_already_exists_exception());
    }
}

fn ses() -> Ses {
    Ses::builder(&sdk_config()).region("eu-west-1").endpoint_url(url()).build().unwrap()
}

/// Returns the message that the server has stored.
async fn stored_message(id: &str) -> Value {
    let url = url();
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /moto-api/data.json HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let all: Value = serde_json::from_slice(&answer[body..]).unwrap();
    let messages = all["ses"]["RawMessage"].as_array().unwrap();
    messages.iter().find(|message| message["id"] == id).expect("the server does not have the message").clone()
}

fn addresses(list: Option<&Address<'_>>) -> Vec<String> {
    list.map(|list| list.iter().map(|one| one.address().unwrap().to_owned()).collect()).unwrap_or_default()
}

#[tokio::test]
#[ignore = "needs an SES server: run scripts/test"]
async fn the_server_stores_the_sent_mail() {
    verify("example.com").await;
    let (pdf, png) = ((0..=255).cycle().take(70_000).collect::<Vec<u8>>(), vec![0x89, b'P', b'N', b'G', 0, 255]);
    let mail = email()
        .from("Ada Lovelace <ada@example.com>")
        .to("Böb <bob@example.org>")
        .cc("carol@example.org")
        .bcc("hidden@example.org")
        .reply_to("one@example.com")
        .reply_to("Two <two@example.com>")
        .subject("Grüße aus Zürich")
        .text("Hällo!\n.\nBye")
        .html("<p>Hällo <img src=\"cid:logo\"></p>")
        .header("X-Custom", "yes")
        .tag("welcome")
        .metadata("user", "42")
        .attach(Attachment::new("Übersicht.pdf", "application/pdf", pdf.clone()).unwrap())
        .attach(Attachment::inline("logo", "logo.png", "image/png", png.clone()).unwrap())
        .build()
        .unwrap();
    let ses = ses();
    ses.check(&mail).unwrap();
    let receipt = ses.send(&outgoing(mail)).await.unwrap();
    let stored_message = stored_message(receipt.provider_id.as_deref().unwrap()).await;

    // The server also adds the recipients in the headers.
    let destinations: Vec<_> =
        stored_message["destinations"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(destinations[..3], ["bob@example.org", "carol@example.org", "hidden@example.org"]);
    assert_eq!(stored_message["source"], "ada@example.com");

    let raw_message = stored_message["raw_data"].as_str().unwrap();
    assert!(!raw_message.contains("hidden@"), "a bcc recipient is visible");
    let message = MessageParser::default().parse(raw_message.as_bytes()).unwrap();
    assert_eq!(message.subject(), Some("Grüße aus Zürich"));
    assert_eq!(message.from().unwrap().first().unwrap().name(), Some("Ada Lovelace"));
    assert_eq!(message.to().unwrap().first().unwrap().name(), Some("Böb"));
    assert_eq!(addresses(message.to()), ["bob@example.org"]);
    assert_eq!(addresses(message.cc()), ["carol@example.org"]);
    assert_eq!(addresses(message.reply_to()), ["one@example.com", "two@example.com"]);
    assert_eq!(message.header("X-Custom").and_then(|value| value.as_text()), Some("yes"));
    assert_eq!(message.header("X-Tag").and_then(|value| value.as_text()), Some("welcome"));
    assert_eq!(message.header("X-Metadata-user").and_then(|value| value.as_text()), Some("42"));
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), "Hällo!\n.\nBye");
    assert_eq!(message.body_html(0).unwrap().trim_end(), "<p>Hällo <img src=\"cid:logo\"></p>");
    let parts: Vec<_> = message
        .parts
        .iter()
        .filter(|part| part.attachment_name().is_some())
        .map(|part| (part.attachment_name().unwrap(), part.content_id(), part.contents().to_vec()))
        .collect();
    assert_eq!(parts.len(), 2);
    assert!(parts.contains(&("Übersicht.pdf", None, pdf)));
    assert!(parts.contains(&("logo.png", Some("logo"), png)));
}

#[tokio::test]
#[ignore = "needs an SES server: run scripts/test"]
async fn the_server_refuses_an_unverified_sender() {
    let mail = email().from("ada@unknown.example").to("bob@example.org").build().unwrap();
    let failure = ses().send(&outgoing(mail)).await.unwrap_err();
    assert_eq!(error(&failure).code(), Some("MessageRejected"), "{failure}");
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Permanent, Scope::Message, false));
    assert!(!failure.to_string().contains("ada@"), "{failure}");
    assert!(failure.reply().unwrap().contains("ada@unknown.example"));
}
