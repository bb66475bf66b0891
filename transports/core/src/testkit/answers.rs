//! What each answer means, and that it stays with its message.

use std::time::Duration;

use super::letter::next_is_right;
use super::{Answer, IMPATIENCE, Letter, PATIENCE, ScriptedPeer, TransportUnderTest};
use crate::{Class, Failure, Scope, Transport};

/// What a failure must mean. `None` where it may be either.
struct Meaning {
    class: Option<Class>,
    scope: Option<Scope>,
    in_doubt: Option<bool>,
}

const fn meaning(class: Class, scope: Scope) -> Meaning {
    Meaning { class: Some(class), scope: Some(scope), in_doubt: Some(false) }
}

/// A lost answer is the transport's condition, in every transport.
const IN_DOUBT: Meaning =
    Meaning { class: Some(Class::Transient), scope: Some(Scope::Transport), in_doubt: Some(true) };

impl Meaning {
    fn assert_is(&self, failure: &Failure) {
        if let Some(class) = self.class {
            assert_eq!(failure.class(), class, "the wrong class: {failure:?}");
        }
        if let Some(scope) = self.scope {
            assert_eq!(failure.scope(), scope, "the wrong scope: {failure:?}");
        }
        if let Some(in_doubt) = self.in_doubt {
            assert_eq!(failure.in_doubt(), in_doubt, "wrong about whether it is in doubt: {failure:?}");
        }
    }
}

/// Has a message answered so by a fresh pair, asserts what it means, and that the next message fares as if nothing had been.
async fn first<T: TransportUnderTest>(test: &T, answer: Answer, limit: Duration, meaning: Meaning) -> Failure {
    let (transport, peer) = test.start(limit).await;
    one(&transport, &peer, answer, meaning).await
}

/// The same, with a message before it that was accepted.
async fn later<T: TransportUnderTest>(test: &T, answer: Answer, limit: Duration, meaning: Meaning) {
    let (transport, peer) = test.start(limit).await;
    next_is_right(&transport, &peer).await;
    one(&transport, &peer, answer, meaning).await;
}

async fn one<T, P>(transport: &T, peer: &P, answer: Answer, meaning: Meaning) -> Failure
where
    T: Transport<Message = crate::Email>,
    P: ScriptedPeer,
{
    peer.plan(answer);
    let (letter, read) = (Letter::new(), peer.read());
    let failure = match transport.send(&letter.outgoing).await {
        Ok(receipt) => panic!("{answer:?} was taken for an acceptance: {receipt:?}"),
        Err(failure) => failure,
    };
    meaning.assert_is(&failure);
    assert!(peer.read() <= read + 1, "one call was {} requests: a transport makes one try", peer.read() - read);
    assert!(!failure.is_unsupported(), "the message can be expressed: {failure:?}");
    next_is_right(transport, peer).await;
    failure
}

/// [`Answer::RefuseMessage`] is permanent, and the message's condition.
pub async fn a_message_that_is_refused<T: TransportUnderTest>(test: &T) {
    let meaning = || meaning(Class::Permanent, Scope::Message);
    first(test, Answer::RefuseMessage, PATIENCE, meaning()).await;
    later(test, Answer::RefuseMessage, PATIENCE, meaning()).await;
}

/// [`Answer::Busy`] is transient, and the message's condition.
pub async fn a_message_that_is_put_off<T: TransportUnderTest>(test: &T) {
    let meaning = || meaning(Class::Transient, Scope::Message);
    first(test, Answer::Busy, PATIENCE, meaning()).await;
    later(test, Answer::Busy, PATIENCE, meaning()).await;
}

/// [`Answer::RefuseCredentials`] is the transport's condition, of either class: no message may die of a wrong password.
pub async fn credentials_that_are_refused<T: TransportUnderTest>(test: &T) {
    let meaning = Meaning { class: None, scope: Some(Scope::Transport), in_doubt: Some(false) };
    first(test, Answer::RefuseCredentials, PATIENCE, meaning).await;
}

/// [`Answer::RateLimit`] is transient, the transport's condition, and says how long to wait.
pub async fn a_rate_limit<T: TransportUnderTest>(test: &T) {
    let wait = Duration::from_secs(120);
    let failure = first(test, Answer::RateLimit(wait), PATIENCE, meaning(Class::Transient, Scope::Transport)).await;
    // An end that the peer named by the clock is a little nearer by now.
    let asked = failure.retry_after().expect("the peer said how long to wait, and the failure does not");
    assert!(asked <= wait && asked + PATIENCE >= wait, "the peer asked for {wait:?}, and the failure says {asked:?}");
    later(test, Answer::RateLimit(wait), PATIENCE, meaning(Class::Transient, Scope::Transport)).await;
}

/// [`Answer::Unavailable`] is transient, and the transport's condition.
pub async fn a_peer_that_is_out_of_order<T: TransportUnderTest>(test: &T) {
    let meaning = || meaning(Class::Transient, Scope::Transport);
    first(test, Answer::Unavailable, PATIENCE, meaning()).await;
    later(test, Answer::Unavailable, PATIENCE, meaning()).await;
}

/// [`Answer::CloseBeforeReading`] is transient, and the transport's condition. Where the protocol shows that nothing was read it is not
/// in doubt.
pub async fn a_connection_that_is_closed_at_once<T: TransportUnderTest>(test: &T) {
    let meaning = Meaning { class: Some(Class::Transient), scope: Some(Scope::Transport), in_doubt: None };
    first(test, Answer::CloseBeforeReading, PATIENCE, meaning).await;
}

/// [`Answer::CloseAfterReading`] leaves it in doubt whether the message was accepted.
pub async fn a_connection_that_is_closed_before_the_answer<T: TransportUnderTest>(test: &T) {
    first(test, Answer::CloseAfterReading, PATIENCE, IN_DOUBT).await;
    later(test, Answer::CloseAfterReading, PATIENCE, IN_DOUBT).await;
}

/// [`Answer::Hang`] ends with the transport's own time limit, in doubt.
pub async fn an_answer_that_does_not_come<T: TransportUnderTest>(test: &T) {
    let call = first(test, Answer::Hang, IMPATIENCE, IN_DOUBT);
    tokio::time::timeout(PATIENCE * 2, call).await.expect("the transport waits for ever");
}

/// [`Answer::Garbage`] leaves it in doubt whether the message was accepted.
pub async fn an_answer_that_makes_no_sense<T: TransportUnderTest>(test: &T) {
    first(test, Answer::Garbage, PATIENCE, IN_DOUBT).await;
    later(test, Answer::Garbage, PATIENCE, IN_DOUBT).await;
}

/// Where nobody is, it is the transport's condition, for now: nothing is in doubt.
pub async fn nobody_is_there<T: TransportUnderTest>(test: &T) {
    let transport = test.unreachable().await;
    let letter = Letter::new();
    let call = transport.send(&letter.outgoing);
    let result = tokio::time::timeout(PATIENCE * 2, call).await.expect("the transport waits for ever");
    let failure = result.expect_err("a message was accepted by nobody");
    meaning(Class::Transient, Scope::Transport).assert_is(&failure);
}
