//! What may be shown.

use std::error::Error;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::letter::{RECIPIENTS, SENDER};
use super::{Answer, Letter, PATIENCE, ScriptedPeer, TransportUnderTest};
use crate::{Failure, Receipt, Transport};

/// The name is for logs and for the history: some words, and no secret.
pub async fn the_name_is_fit_to_be_shown<T: TransportUnderTest>(test: &T) {
    let (transport, _peer) = test.start(PATIENCE).await;
    let name = transport.name();
    assert!(!name.trim().is_empty(), "the name is empty");
    assert!(name.len() <= 64 && !name.chars().any(char::is_control), "the name does not fit into a line: {name:?}");
    assert_holds_no_secret(test, "the name", name);
}

/// Neither the transport nor anything that comes of a call shows a secret, a body or a whole address, whatever the peer says. (What it
/// says to the letter is in [`Failure::reply`], for the operator's history; secrets are not in that either.)
pub async fn nothing_confidential_is_shown<T: TransportUnderTest>(test: &T) {
    use Answer::{Accept, Busy, CloseAfterReading, Garbage, RefuseCredentials, RefuseMessage, Unavailable};
    for answer in [Accept, RefuseMessage, Busy, RefuseCredentials, Unavailable, CloseAfterReading, Garbage] {
        let (transport, peer) = test.start(PATIENCE).await;
        peer.plan(answer);
        let letter = Letter::to_the_first(3);
        let result = transport.send(&letter.outgoing).await;
        assert_eq!(result.is_ok(), answer == Accept, "{answer:?} was answered by {result:?}");
        assert_shows_nothing(test, &letter, &format!("{answer:?}"), &result);
        assert_discreet(test, &letter, &format!("Debug of the transport, after {answer:?}"), &format!("{transport:?}"));
    }
    let letter = Letter::to_the_first(3);
    let transport = test.unreachable().await;
    let result = transport.send(&letter.outgoing).await;
    assert_shows_nothing(test, &letter, "nobody there", &result);
    if let Some(email) = test.inexpressible() {
        let (transport, _peer) = test.start(PATIENCE).await;
        let result = transport.check(&email).map(|()| Receipt::new());
        assert_shows_nothing(test, &letter, "what cannot be expressed", &result);
    }
}

fn assert_shows_nothing<T: TransportUnderTest>(
    test: &T,
    letter: &Letter,
    when: &str,
    result: &Result<Receipt, Failure>,
) {
    let failure = match result {
        Ok(receipt) => {
            assert_discreet(test, letter, &format!("Debug of the receipt, {when}"), &format!("{receipt:?}"));
            assert_holds_no_secret(test, &format!("the reply, {when}"), receipt.reply.as_deref().unwrap_or_default());
            return;
        }
        Err(failure) => failure,
    };
    assert_discreet(test, letter, &format!("Display of the failure, {when}"), &failure.to_string());
    assert_discreet(test, letter, &format!("Debug of the failure, {when}"), &format!("{failure:?}"));
    assert_holds_no_secret(test, &format!("the reply, {when}"), failure.reply().unwrap_or_default());
    let mut source = failure.source();
    while let Some(error) = source {
        assert_discreet(test, letter, &format!("a source of the failure, {when}"), &format!("{error} {error:?}"));
        source = error.source();
    }
}

fn assert_discreet<T: TransportUnderTest>(test: &T, letter: &Letter, what: &str, text: &str) {
    assert_holds_no_secret(test, what, text);
    for words in [&letter.subject, &letter.text, &letter.html] {
        assert!(!text.contains(words), "{what} holds words of the mail: {text}");
    }
    for address in RECIPIENTS.into_iter().chain([SENDER]) {
        assert!(!text.contains(address), "{what} holds a whole address: {text}");
    }
}

/// In the clear, or in the form in which many protocols carry it.
fn assert_holds_no_secret<T: TransportUnderTest>(test: &T, what: &str, text: &str) {
    for secret in test.secrets() {
        assert!(!secret.is_empty(), "an empty secret is in everything");
        for form in [&STANDARD.encode(&secret), &URL_SAFE_NO_PAD.encode(&secret), &secret] {
            // The secret itself is not repeated here either.
            assert!(!text.contains(form.as_str()), "{what} holds a secret");
        }
    }
}
