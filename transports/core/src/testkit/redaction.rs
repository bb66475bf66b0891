//! Tests that nothing confidential is shown.

use std::error::Error;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::fixture::{RECIPIENTS, SENDER};
use super::{Answer, LONG_LIMIT, ScriptedPeer, TestMail, TransportUnderTest};
use crate::{Failure, Receipt, Transport};

/// The name fits into a line of a log, and has no secret.
pub async fn the_name_can_be_shown<T: TransportUnderTest>(test: &T) {
    let (transport, _peer) = test.start(LONG_LIMIT).await;
    let name = transport.name();
    assert!(!name.trim().is_empty(), "the name is empty");
    assert!(name.len() <= 64 && !name.chars().any(char::is_control), "the name does not fit into a line: {name:?}");
    assert_no_secret(test, "the name", name);
}

/// The transport and the results of its calls show no secret, body or whole address, with any answer of the peer.
///
/// Replies ([`Failure::reply`]) are verbatim for the operator's history, but must not have secrets either.
pub async fn nothing_confidential_is_shown<T: TransportUnderTest>(test: &T) {
    use Answer::{Accept, Busy, CloseAfterReading, Garbage, RefuseCredentials, RefuseMessage, Unavailable};
    for answer in [Accept, RefuseMessage, Busy, RefuseCredentials, Unavailable, CloseAfterReading, Garbage] {
        let (transport, peer) = test.start(LONG_LIMIT).await;
        peer.plan(answer);
        let mail = TestMail::with_recipients(3);
        let result = transport.send(&mail.outgoing).await;
        assert_eq!(result.is_ok(), answer == Accept, "{answer:?} gave {result:?}");
        assert_result_is_redacted(test, &mail, &format!("{answer:?}"), &result);
        assert_redacted(test, &mail, &format!("Debug of the transport, after {answer:?}"), &format!("{transport:?}"));
    }
    let mail = TestMail::with_recipients(3);
    let transport = test.unreachable().await;
    let result = transport.send(&mail.outgoing).await;
    assert_result_is_redacted(test, &mail, "unreachable peer", &result);
    if let Some(email) = test.unsupported() {
        let (transport, _peer) = test.start(LONG_LIMIT).await;
        let result = transport.check(&email).map(|()| Receipt::new());
        assert_result_is_redacted(test, &mail, "unsupported mail", &result);
    }
}

fn assert_result_is_redacted<T: TransportUnderTest>(
    test: &T,
    mail: &TestMail,
    when: &str,
    result: &Result<Receipt, Failure>,
) {
    let failure = match result {
        Ok(receipt) => {
            assert_redacted(test, mail, &format!("Debug of the receipt, {when}"), &format!("{receipt:?}"));
            assert_no_secret(test, &format!("the reply, {when}"), receipt.reply.as_deref().unwrap_or_default());
            return;
        }
        Err(failure) => failure,
    };
    assert_redacted(test, mail, &format!("Display of the failure, {when}"), &failure.to_string());
    assert_redacted(test, mail, &format!("Debug of the failure, {when}"), &format!("{failure:?}"));
    assert_no_secret(test, &format!("the reply, {when}"), failure.reply().unwrap_or_default());
    let mut source = failure.source();
    while let Some(error) = source {
        assert_redacted(test, mail, &format!("a source of the failure, {when}"), &format!("{error} {error:?}"));
        source = error.source();
    }
}

fn assert_redacted<T: TransportUnderTest>(test: &T, mail: &TestMail, what: &str, text: &str) {
    assert_no_secret(test, what, text);
    for part in [&mail.subject, &mail.text, &mail.html] {
        assert!(!text.contains(part), "{what} shows text of the mail: {text}");
    }
    for address in RECIPIENTS.into_iter().chain([SENDER]) {
        assert!(!text.contains(address), "{what} shows a whole address: {text}");
    }
}

/// Checks for secrets as plain text and in base64.
fn assert_no_secret<T: TransportUnderTest>(test: &T, what: &str, text: &str) {
    for secret in test.secrets() {
        assert!(!secret.is_empty(), "a secret is empty");
        for form in [&STANDARD.encode(&secret), &URL_SAFE_NO_PAD.encode(&secret), &secret] {
            // The message must not repeat the secret.
            assert!(!text.contains(form.as_str()), "{what} shows a secret");
        }
    }
}
