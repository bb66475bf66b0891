//! Tests of the classification of each answer.

use std::time::Duration;

use super::fixture::assert_next_is_accepted;
use super::{Answer, LONG_LIMIT, SHORT_LIMIT, ScriptedPeer, TestMail, TransportUnderTest};
use crate::{Class, Failure, Scope, Transport};

/// The expected classification of a failure. `None` allows both values.
struct Expected {
    class: Option<Class>,
    scope: Option<Scope>,
    in_doubt: Option<bool>,
}

const fn expect(class: Class, scope: Scope) -> Expected {
    Expected { class: Some(class), scope: Some(scope), in_doubt: Some(false) }
}

/// A lost answer has the scope of the transport, in every transport.
const IN_DOUBT: Expected =
    Expected { class: Some(Class::Transient), scope: Some(Scope::Transport), in_doubt: Some(true) };

impl Expected {
    fn assert_matches(&self, failure: &Failure) {
        if let Some(class) = self.class {
            assert_eq!(failure.class(), class, "wrong class: {failure:?}");
        }
        if let Some(scope) = self.scope {
            assert_eq!(failure.scope(), scope, "wrong scope: {failure:?}");
        }
        if let Some(in_doubt) = self.in_doubt {
            assert_eq!(failure.in_doubt(), in_doubt, "wrong doubt: {failure:?}");
        }
    }
}

/// Plans the answer for the first message of a new pair, and checks the failure. Then checks that the next message is accepted.
async fn first<T: TransportUnderTest>(test: &T, answer: Answer, limit: Duration, expected: Expected) -> Failure {
    let (transport, peer) = test.start(limit).await;
    one(&transport, &peer, answer, expected).await
}

/// As [`first`], after a message that was accepted.
async fn later<T: TransportUnderTest>(test: &T, answer: Answer, limit: Duration, expected: Expected) {
    let (transport, peer) = test.start(limit).await;
    assert_next_is_accepted(&transport, &peer).await;
    one(&transport, &peer, answer, expected).await;
}

async fn one<T, P>(transport: &T, peer: &P, answer: Answer, expected: Expected) -> Failure
where
    T: Transport<Message = crate::Email>,
    P: ScriptedPeer,
{
    peer.plan(answer);
    let (mail, read) = (TestMail::new(), peer.read());
    let failure = match transport.send(&mail.outgoing).await {
        Ok(receipt) => panic!("{answer:?} was reported as accepted: {receipt:?}"),
        Err(failure) => failure,
    };
    expected.assert_matches(&failure);
    assert!(peer.read() <= read + 1, "one call made {} requests: a transport makes one attempt", peer.read() - read);
    assert!(!failure.is_unsupported(), "the message is supported: {failure:?}");
    assert_next_is_accepted(transport, peer).await;
    failure
}

/// [`Answer::RefuseMessage`] is permanent and has the scope of the message.
pub async fn a_refused_message<T: TransportUnderTest>(test: &T) {
    let expected = || expect(Class::Permanent, Scope::Message);
    first(test, Answer::RefuseMessage, LONG_LIMIT, expected()).await;
    later(test, Answer::RefuseMessage, LONG_LIMIT, expected()).await;
}

/// [`Answer::Busy`] is transient and has the scope of the message.
pub async fn a_deferred_message<T: TransportUnderTest>(test: &T) {
    let expected = || expect(Class::Transient, Scope::Message);
    first(test, Answer::Busy, LONG_LIMIT, expected()).await;
    later(test, Answer::Busy, LONG_LIMIT, expected()).await;
}

/// [`Answer::RefuseCredentials`] has the scope of the transport and any class: no message is given up for a wrong password.
pub async fn refused_credentials<T: TransportUnderTest>(test: &T) {
    let expected = Expected { class: None, scope: Some(Scope::Transport), in_doubt: Some(false) };
    first(test, Answer::RefuseCredentials, LONG_LIMIT, expected).await;
}

/// [`Answer::RateLimit`] is transient, has the scope of the transport, and has the time to wait.
pub async fn a_rate_limit<T: TransportUnderTest>(test: &T) {
    let wait = Duration::from_secs(120);
    let failure = first(test, Answer::RateLimit(wait), LONG_LIMIT, expect(Class::Transient, Scope::Transport)).await;
    // A wait that ends at a time of day is a little shorter by now.
    let asked = failure.retry_after().expect("the failure lacks the wait that the peer asked for");
    assert!(asked <= wait && asked + LONG_LIMIT >= wait, "the peer asked for {wait:?}, and the failure says {asked:?}");
    later(test, Answer::RateLimit(wait), LONG_LIMIT, expect(Class::Transient, Scope::Transport)).await;
}

/// [`Answer::Unavailable`] is transient and has the scope of the transport.
pub async fn an_unavailable_peer<T: TransportUnderTest>(test: &T) {
    let expected = || expect(Class::Transient, Scope::Transport);
    first(test, Answer::Unavailable, LONG_LIMIT, expected()).await;
    later(test, Answer::Unavailable, LONG_LIMIT, expected()).await;
}

/// [`Answer::CloseBeforeReading`] is transient and has the scope of the transport. It may be in doubt, because not every protocol shows
/// that nothing was read.
pub async fn a_connection_closed_at_once<T: TransportUnderTest>(test: &T) {
    let expected = Expected { class: Some(Class::Transient), scope: Some(Scope::Transport), in_doubt: None };
    first(test, Answer::CloseBeforeReading, LONG_LIMIT, expected).await;
}

/// [`Answer::CloseAfterReading`] is in doubt.
pub async fn a_connection_closed_before_the_answer<T: TransportUnderTest>(test: &T) {
    first(test, Answer::CloseAfterReading, LONG_LIMIT, IN_DOUBT).await;
    later(test, Answer::CloseAfterReading, LONG_LIMIT, IN_DOUBT).await;
}

/// [`Answer::Hang`] ends at the transport's time limit, and is in doubt.
pub async fn a_missing_answer<T: TransportUnderTest>(test: &T) {
    let call = first(test, Answer::Hang, SHORT_LIMIT, IN_DOUBT);
    tokio::time::timeout(LONG_LIMIT * 2, call).await.expect("the transport has no time limit");
}

/// [`Answer::Garbage`] is in doubt.
pub async fn a_malformed_answer<T: TransportUnderTest>(test: &T) {
    first(test, Answer::Garbage, LONG_LIMIT, IN_DOUBT).await;
    later(test, Answer::Garbage, LONG_LIMIT, IN_DOUBT).await;
}

/// A failed connection is transient, has the scope of the transport, and is not in doubt.
pub async fn an_unreachable_peer<T: TransportUnderTest>(test: &T) {
    let transport = test.unreachable().await;
    let mail = TestMail::new();
    let call = transport.send(&mail.outgoing);
    let result = tokio::time::timeout(LONG_LIMIT * 2, call).await.expect("the transport has no time limit");
    let failure = result.expect_err("a message was reported as accepted without a peer");
    expect(Class::Transient, Scope::Transport).assert_matches(&failure);
}
