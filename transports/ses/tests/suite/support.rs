//! A scripted peer, mails and transports for all tests.

use std::time::{Duration, SystemTime};

use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{BehaviorVersion, Credentials, SharedCredentialsProvider};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use postrider_ses::{SdkConfig, Ses, SesBuilder, SesError, Timeouts};
use postrider_transport::testkit::{HttpPeer, HttpReply, HttpRequest};
use postrider_transport::{Attachment, Class, DeliveryId, Email, EmailBuilder, Failure, Outgoing, Scope, Transport};
use serde_json::json;

pub(crate) const SECRET: &str = "hunter2-secret";

/// An AWS configuration with five attempts and a timeout of 1 ns, both of which the transport must ignore.
pub(crate) fn sdk_config() -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("AKID", SECRET, None, None, "test")))
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_nanos(1)).build())
        .retry_config(RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(1)))
        .build()
}

/// Timeouts that no test reaches.
pub(crate) fn long_timeouts() -> Timeouts {
    let mut timeouts = Timeouts::default();
    (timeouts.connect, timeouts.request, timeouts.response) =
        (Duration::from_secs(60), Duration::from_secs(60), Duration::from_secs(60));
    timeouts
}

/// Starts a peer that sends these replies, then accepts every request with the id `next`.
pub(crate) async fn peer(replies: impl IntoIterator<Item = HttpReply>) -> HttpPeer {
    HttpPeer::start(replies.into_iter().chain([accepted("next")])).await
}

pub(crate) fn accepted(id: &str) -> HttpReply {
    HttpReply::json(200, json!({ "MessageId": id }))
}

pub(crate) fn builder(peer: &HttpPeer) -> SesBuilder {
    Ses::builder(&sdk_config()).region("eu-west-1").endpoint_url(peer.url()).timeouts(long_timeouts())
}

pub(crate) fn ses(peer: &HttpPeer) -> Ses {
    builder(peer).build().unwrap()
}

pub(crate) fn email() -> EmailBuilder {
    Email::builder().from("ada@example.com").subject("Hello").text("Hi!")
}

pub(crate) fn outgoing(email: Email) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email)
}

/// A mail to one recipient.
pub(crate) fn mail() -> Outgoing<Email> {
    outgoing(email().to("bob@example.org").build().unwrap())
}

/// A mail of several megabytes, which exceeds the socket buffers.
pub(crate) fn large_mail() -> Outgoing<Email> {
    let zip = vec![0xff; 5 << 20];
    outgoing(
        email()
            .to("bob@example.org")
            .attach(Attachment::new("large.zip", "application/zip", zip).unwrap())
            .build()
            .unwrap(),
    )
}

/// Decodes the MIME message in a request.
pub(crate) fn raw_message(received: &HttpRequest) -> Vec<u8> {
    BASE64_STANDARD.decode(received.json()["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap()
}

/// Classification of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classification {
    class: Class,
    scope: Scope,
    in_doubt: bool,
    /// Seconds to wait before a retry.
    retry_after: Option<u64>,
}

const fn new_classification(class: Class, scope: Scope) -> Classification {
    Classification { class, scope, in_doubt: false, retry_after: None }
}

pub(crate) const UNAVAILABLE: Classification = new_classification(Class::Transient, Scope::Transport);
pub(crate) const MISCONFIGURED: Classification = new_classification(Class::Permanent, Scope::Transport);
pub(crate) const SENDER_UNVERIFIED: Classification = new_classification(Class::Permanent, Scope::Sender);
pub(crate) const MESSAGE_TRANSIENT: Classification = new_classification(Class::Transient, Scope::Message);
pub(crate) const MESSAGE_PERMANENT: Classification = new_classification(Class::Permanent, Scope::Message);
pub(crate) const IN_DOUBT: Classification = Classification { in_doubt: true, ..UNAVAILABLE };

pub(crate) const fn throttled(seconds: u64) -> Classification {
    Classification { retry_after: Some(seconds), ..UNAVAILABLE }
}

pub(crate) fn classification(failure: &Failure) -> Classification {
    let retry_after = failure.retry_after().map(|wait| wait.as_secs());
    Classification { class: failure.class(), scope: failure.scope(), in_doubt: failure.in_doubt(), retry_after }
}

pub(crate) fn error(failure: &Failure) -> &SesError {
    failure.downcast_ref().unwrap()
}

/// Sends a mail and returns its failure. Asserts that it took one connection at most and that no text shows the secret or the address.
pub(crate) async fn send_failing(ses: &Ses, peer: &HttpPeer, mail: &Outgoing<Email>) -> Failure {
    let before = peer.connections();
    let failure = ses.send(mail).await.expect_err("the mail is not accepted");
    assert!(peer.connections() <= before + 1, "{} connections for one call", peer.connections() - before);
    let shown = format!("{failure} {failure:?} {:?} {ses:?}", error(&failure));
    assert!(!shown.contains(SECRET) && !shown.contains("bob@"), "{shown}");
    failure
}
