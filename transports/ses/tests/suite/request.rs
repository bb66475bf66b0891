//! The content of requests.

use postrider_transport::testkit::HttpRequest;
use postrider_transport::{Attachment, Email, Mime, Transport};
use serde_json::{Value, json};

use crate::support::{builder, email, mail, outgoing, peer, raw_message, sdk_config, ses};

async fn sent(email: Email) -> HttpRequest {
    let peer = peer([]).await;
    ses(&peer).send(&outgoing(email)).await.unwrap();
    peer.seen().remove(0)
}

#[tokio::test]
async fn the_message_has_the_bytes_that_smtp_sends() {
    let email = email()
        .to("Bob <bob@example.org>")
        .cc("carol@example.org")
        .bcc("hidden@example.org")
        .reply_to("one@example.com")
        .reply_to("two@example.com")
        .html("<p>Hi!</p>")
        .header("X-Custom", "yes")
        .attach(Attachment::new("a.txt", "text/plain", b"attached".to_vec()).unwrap())
        .build()
        .unwrap();
    let peer = peer([]).await;
    let mail = outgoing(email);
    let receipt = ses(&peer).send(&mail).await.unwrap();
    assert_eq!(receipt.provider_id.as_deref(), Some("next"));
    let received = peer.seen().remove(0);
    assert_eq!(raw_message(&received), Mime::new().render(&mail).unwrap());
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/v2/email/outbound-emails"));
    let to = json!(["bob@example.org", "carol@example.org", "hidden@example.org"]);
    assert_eq!(received.json()["Destination"], json!({ "ToAddresses": to }));
    for absent in ["FromEmailAddress", "ReplyToAddresses", "ConfigurationSetName", "EmailTags"] {
        assert_eq!(received.json()[absent], Value::Null, "{absent}");
    }
}

#[tokio::test]
async fn no_content_coding_is_requested() {
    let received = sent(email().to("bob@example.org").build().unwrap()).await;
    assert_eq!(received.header("accept-encoding"), Some("identity"));
    let signed = received.header("authorization").unwrap();
    assert!(!signed.contains("accept-encoding"), "a proxy may change it: {signed}");
}

#[tokio::test]
async fn a_retry_has_only_the_remaining_recipients() {
    let peer = peer([]).await;
    let mail = outgoing(email().to("bob@example.org").cc("carol@example.org").build().unwrap());
    let carol = mail.recipients()[1..].to_vec();
    ses(&peer).send(&mail.with_recipients(carol)).await.unwrap();
    assert_eq!(peer.seen()[0].json()["Destination"], json!({ "ToAddresses": ["carol@example.org"] }));
}

#[tokio::test]
async fn two_attempts_have_the_same_message() {
    let peer = peer([]).await;
    let (ses, mail) = (ses(&peer), mail());
    ses.send(&mail).await.unwrap();
    ses.send(&mail.clone().with_attempt(2, 1)).await.unwrap();
    let received = peer.seen();
    assert_eq!(received[0].body, received[1].body);
    // Both use one connection.
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn tags_and_metadata_are_email_tags() {
    let email = email()
        .to("bob@example.org")
        .tag("welcome")
        .tag("autumn")
        .metadata("user", "42")
        .metadata("tag-9", "x")
        .build()
        .unwrap();
    let tags = sent(email).await.json()["EmailTags"].clone();
    let tag = |name: &str, value: &str| json!({ "Name": name, "Value": value });
    assert_eq!(tags, json!([tag("tag", "welcome"), tag("tag-2", "autumn"), tag("tag-9", "x"), tag("user", "42")]));
}

#[tokio::test]
async fn the_feedback_address_is_the_mails_or_else_the_transports() {
    let plain = || email().to("bob@example.org");
    let by = |address: &str| plain().envelope_from(address.parse().unwrap()).build().unwrap();
    let sender = || plain().sender("office@example.com").build().unwrap();
    for (default, email, expected) in [
        (None, plain().build().unwrap(), None),
        (None, sender(), Some("office@example.com")),
        (None, by("bounces@example.com"), Some("bounces@example.com")),
        (Some("all@example.com"), plain().build().unwrap(), Some("all@example.com")),
        (Some("all@example.com"), sender(), Some("all@example.com")),
        (Some("all@example.com"), by("bounces@example.com"), Some("bounces@example.com")),
    ] {
        let peer = peer([]).await;
        let mut builder = builder(&peer);
        if let Some(address) = default {
            builder = builder.feedback_address(address.parse().unwrap());
        }
        builder.build().unwrap().send(&outgoing(email)).await.unwrap();
        assert_eq!(peer.seen()[0].json()["FeedbackForwardingEmailAddress"].as_str(), expected, "{default:?}");
    }
}

#[tokio::test]
async fn requests_have_the_configuration_set_and_are_signed_for_the_region() {
    let peer = peer([]).await;
    let config = sdk_config().into_builder().endpoint_url(peer.url()).build();
    let ses = postrider_ses::Ses::builder(&config).region("eu-central-1").configuration_set("my-set").build().unwrap();
    ses.send(&mail()).await.unwrap();
    let received = peer.seen().remove(0);
    assert_eq!(received.json()["ConfigurationSetName"], "my-set");
    let authorization = received.header("authorization").unwrap();
    assert!(authorization.contains("/eu-central-1/ses/aws4_request"), "{authorization}");
}
