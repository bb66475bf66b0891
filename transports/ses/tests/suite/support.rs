//! What the tests share: a scripted peer, mails, and transports to it.

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

/// An AWS configuration that would try five times, and have no time for it, if it were asked.
pub(crate) fn sdk_config() -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("AKID", SECRET, None, None, "test")))
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_nanos(1)).build())
        .retry_config(RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(1)))
        .build()
}

/// Far above what anything here takes, so that only a test that wants a time-out meets one.
pub(crate) fn patient() -> Timeouts {
    let mut timeouts = Timeouts::default();
    (timeouts.connect, timeouts.send, timeouts.answer) =
        (Duration::from_secs(60), Duration::from_secs(60), Duration::from_secs(60));
    timeouts
}

/// Does these one after the other, then accepts everything as `next`.
pub(crate) async fn peer(replies: impl IntoIterator<Item = HttpReply>) -> HttpPeer {
    HttpPeer::start(replies.into_iter().chain([accepted("next")])).await
}

pub(crate) fn accepted(id: &str) -> HttpReply {
    HttpReply::json(200, json!({ "MessageId": id }))
}

pub(crate) fn builder(peer: &HttpPeer) -> SesBuilder {
    Ses::builder(&sdk_config()).region("eu-west-1").endpoint_url(peer.url()).timeouts(patient())
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

/// A mail of several megabytes, more than the system keeps between two ends of a connection.
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

/// The message in a request, as SES would read it.
pub(crate) fn raw(received: &HttpRequest) -> Vec<u8> {
    BASE64_STANDARD.decode(received.json()["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap()
}

/// What a failure means, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning(pub(crate) Class, pub(crate) Scope, pub(crate) bool, pub(crate) Option<u64>);

pub(crate) const OUT_OF_ORDER: Meaning = Meaning(Class::Transient, Scope::Transport, false, None);
pub(crate) const MISCONFIGURED: Meaning = Meaning(Class::Permanent, Scope::Transport, false, None);
pub(crate) const UNVERIFIED: Meaning = Meaning(Class::Permanent, Scope::Sender, false, None);
pub(crate) const LATER: Meaning = Meaning(Class::Transient, Scope::Message, false, None);
pub(crate) const NEVER: Meaning = Meaning(Class::Permanent, Scope::Message, false, None);
pub(crate) const IN_DOUBT: Meaning = Meaning(Class::Transient, Scope::Transport, true, None);

pub(crate) const fn wait(seconds: u64) -> Meaning {
    Meaning(Class::Transient, Scope::Transport, false, Some(seconds))
}

pub(crate) fn meaning(failure: &Failure) -> Meaning {
    let wait = failure.retry_after().map(|wait| wait.as_secs());
    Meaning(failure.class(), failure.scope(), failure.in_doubt(), wait)
}

pub(crate) fn error(failure: &Failure) -> &SesError {
    failure.downcast_ref().unwrap()
}

/// Sends this mail to a peer that does this, and asserts that it was tried once and that the peer is well served afterwards.
pub(crate) async fn refused(ses: &Ses, peer: &HttpPeer, mail: &Outgoing<Email>) -> Failure {
    let before = peer.connections();
    let failure = ses.send(mail).await.expect_err("it was to fail");
    assert!(peer.connections() <= before + 1, "{} connections for one call", peer.connections() - before);
    let shown = format!("{failure} {failure:?} {:?} {ses:?}", error(&failure));
    assert!(!shown.contains(SECRET) && !shown.contains("bob@"), "{shown}");
    failure
}
