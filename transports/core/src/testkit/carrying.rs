//! What is accepted, and for whom.

use std::sync::Arc;

use super::letter::next_is_right;
use super::{Answer, Letter, PATIENCE, ScriptedPeer, TransportUnderTest};
use crate::{Class, Failure, Outgoing, Receipt, Recipient, Scope, Transport};

/// A message that the peer accepts is `Ok`, reached it once and whole, and has the name that the peer gave it.
pub async fn what_is_accepted_is_told_with_its_own_receipt<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    for _ in 0..4 {
        next_is_right(&transport, &peer).await;
    }
    assert_eq!(peer.accepted().len(), 4);
}

/// The same for messages that are sent at the same time, of which some are refused.
pub async fn messages_side_by_side_get_their_own_receipts<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    let transport = Arc::new(transport);
    for _ in 0..4 {
        peer.plan(Answer::RefuseMessage);
    }
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                let letter = Letter::new();
                let result = transport.send(&letter.outgoing).await;
                (letter, result)
            })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        let (letter, result) = call.await.expect("the call does not panic");
        if result.is_ok() {
            letter.assert_carried(&peer, &result);
        } else {
            refused += 1;
            assert_eq!(letter.copies(&peer), 0, "a message that the peer accepted is called refused");
        }
    }
    assert_eq!((refused, peer.accepted().len()), (4, 8), "refused and accepted");
    next_is_right(&*transport, &peer).await;
}

/// [`Outgoing::recipients`] are addressed and nobody else, whatever the message's own headers say.
pub async fn exactly_those_are_addressed_whom_the_attempt_is_for<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    let whole = Letter::to_the_first(3);
    let result = transport.send(&whole.outgoing).await;
    whole.assert_carried(&peer, &result);
    for left in [&[1, 2][..], &[0], &[1], &[2]] {
        let mut letter = Letter::to_the_first(3);
        let recipients: Vec<Recipient> = left.iter().map(|index| whole.outgoing.recipients()[*index].clone()).collect();
        letter.outgoing = letter.outgoing.with_recipients(recipients);
        let result = transport.send(&letter.outgoing).await;
        letter.assert_carried(&peer, &result);
    }
}

/// A later attempt at the same delivery is the same message: a receiver can drop the second copy.
pub async fn every_attempt_sends_the_same<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    let letter = Letter::to_the_first(3);
    for attempt in 1..=2 {
        let outgoing = letter.outgoing.clone().with_attempt(attempt, 1);
        transport.send(&outgoing).await.expect("the peer accepts the message");
    }
    let sent: Vec<_> = peer.accepted().into_iter().filter(|accepted| letter.is_in(accepted)).collect();
    assert_eq!(sent.len(), 2, "the peer accepted so many of two attempts");
    assert_eq!(sent[0].content, sent[1].content, "the second attempt is another message");
}

/// A batch has one result for each message, in order, and one that is refused, or cannot be expressed, spoils no other.
pub async fn a_batch_has_a_result_for_each<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    assert!(transport.max_batch() >= 1, "a batch has room for one message at least");
    assert_eq!(transport.send_batch(&[]).await.len(), 0, "results for no messages");

    let size = transport.max_batch().min(5);
    let letters: Vec<_> = (0..size).map(|_| Letter::new()).collect();
    // The second where there is one, else the only one.
    let bad = 1.min(size - 1);
    for index in 0..size {
        peer.plan(if index == bad { Answer::RefuseMessage } else { Answer::Accept });
    }
    let batch: Vec<_> = letters.iter().map(|letter| letter.outgoing.clone()).collect();
    let results = transport.send_batch(&batch).await;
    assert_eq!(results.len(), size, "not one result for each message");
    assert_each(&letters, &results, &peer, bad);

    if let Some(email) = test.inexpressible().filter(|_| size > 1) {
        let mut letters: Vec<_> = (0..size).map(|_| Letter::new()).collect();
        let outgoing = &letters[bad].outgoing;
        letters[bad].outgoing = Outgoing::new(outgoing.id(), outgoing.dated_at(), email);
        let batch: Vec<_> = letters.iter().map(|letter| letter.outgoing.clone()).collect();
        let results = transport.send_batch(&batch).await;
        assert_eq!(results.len(), size, "not one result for each message");
        assert_each(&letters, &results, &peer, bad);
        assert!(results[bad].as_ref().is_err_and(Failure::is_unsupported), "{:?}", results[bad]);
    }
    next_is_right(&transport, &peer).await;
}

fn assert_each(letters: &[Letter], results: &[Result<Receipt, Failure>], peer: &impl ScriptedPeer, bad: usize) {
    for (index, (letter, result)) in letters.iter().zip(results).enumerate() {
        if index == bad {
            let failure =
                result.as_ref().expect_err("what the peer refused, or cannot be expressed, is called accepted");
            assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
            assert_eq!(letter.copies(peer), 0, "a message that the peer accepted is called refused");
        } else {
            letter.assert_carried(peer, result);
        }
    }
}

/// What [`check`](Transport::check) finds inexpressible, `send` refuses as well, and without a word to the peer.
pub async fn an_inexpressible_mail<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    let email = test.inexpressible().expect("there is such a mail, or else the suite is stamped without it");
    let letter = Letter::new();
    let outgoing = Outgoing::new(letter.outgoing.id(), letter.outgoing.dated_at(), email);
    let checked = transport.check(outgoing.message()).expect_err("the check lets an inexpressible mail pass");
    let sent = transport.send(&outgoing).await.expect_err("an inexpressible mail is called accepted");
    for failure in [checked, sent] {
        assert!(failure.is_unsupported(), "it does not say that another transport may carry it: {failure:?}");
        assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
        assert!(!failure.in_doubt(), "{failure:?}");
    }
    assert_eq!((peer.read(), peer.accepted().len()), (0, 0), "the peer was sent what cannot be expressed");
    transport.check(letter.outgoing.message()).expect("the check refuses a simple mail");
    next_is_right(&transport, &peer).await;
}
