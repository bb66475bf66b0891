//! Tests of accepted messages, recipients and batches.

use std::sync::Arc;

use super::fixture::assert_next_is_accepted;
use super::{Answer, LONG_LIMIT, ScriptedPeer, TestMail, TransportUnderTest};
use crate::{Class, Failure, Outgoing, Receipt, Recipient, Scope, Transport};

/// An accepted message is `Ok`, reaches the peer once and complete, and its receipt has the peer's id.
pub async fn an_accepted_message_has_its_receipt<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    for _ in 0..4 {
        assert_next_is_accepted(&transport, &peer).await;
    }
    assert_eq!(peer.accepted().len(), 4);
}

/// Concurrent messages, some of which are refused, each get their own result.
pub async fn concurrent_messages_have_their_own_receipts<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    let transport = Arc::new(transport);
    for _ in 0..4 {
        peer.plan(Answer::RefuseMessage);
    }
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                let mail = TestMail::new();
                let result = transport.send(&mail.outgoing).await;
                (mail, result)
            })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        let (mail, result) = call.await.expect("the call does not panic");
        if result.is_ok() {
            mail.assert_accepted(&peer, &result);
        } else {
            refused += 1;
            assert_eq!(mail.copies(&peer), 0, "an accepted message was reported as refused");
        }
    }
    assert_eq!((refused, peer.accepted().len()), (4, 8), "refused and accepted");
    assert_next_is_accepted(&*transport, &peer).await;
}

/// The message goes to [`Outgoing::recipients`] and not to those in its headers.
pub async fn only_the_recipients_of_the_attempt_are_addressed<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    let whole = TestMail::with_recipients(3);
    let result = transport.send(&whole.outgoing).await;
    whole.assert_accepted(&peer, &result);
    for left in [&[1, 2][..], &[0], &[1], &[2]] {
        let mut mail = TestMail::with_recipients(3);
        let recipients: Vec<Recipient> = left.iter().map(|index| whole.outgoing.recipients()[*index].clone()).collect();
        mail.outgoing = mail.outgoing.with_recipients(recipients);
        let result = transport.send(&mail.outgoing).await;
        mail.assert_accepted(&peer, &result);
    }
}

/// Every attempt at a delivery sends the same message, so that a receiver can drop the second copy.
pub async fn every_attempt_sends_the_same_message<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    let mail = TestMail::with_recipients(3);
    for attempt in 1..=2 {
        let outgoing = mail.outgoing.clone().with_attempt(attempt, 1);
        transport.send(&outgoing).await.expect("the peer accepts the message");
    }
    let sent: Vec<_> = peer.accepted().into_iter().filter(|accepted| mail.is_in(accepted)).collect();
    assert_eq!(sent.len(), 2, "the peer did not accept both attempts");
    assert_eq!(sent[0].content, sent[1].content, "the second attempt sent another message");
}

/// A batch has one result per message, in order. A refused or unsupported message does not affect the others.
pub async fn a_batch_has_a_result_for_each_message<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    assert!(transport.max_batch() >= 1, "the largest batch is empty");
    assert_eq!(transport.send_batch(&[]).await.len(), 0, "an empty batch has results");

    let size = transport.max_batch().min(5);
    let mails: Vec<_> = (0..size).map(|_| TestMail::new()).collect();
    // The second message, if there is one.
    let bad = 1.min(size - 1);
    for index in 0..size {
        peer.plan(if index == bad { Answer::RefuseMessage } else { Answer::Accept });
    }
    let batch: Vec<_> = mails.iter().map(|mail| mail.outgoing.clone()).collect();
    let results = transport.send_batch(&batch).await;
    assert_eq!(results.len(), size, "the batch lacks one result per message");
    assert_each(&mails, &results, &peer, bad);

    if let Some(email) = test.unsupported().filter(|_| size > 1) {
        let mut mails: Vec<_> = (0..size).map(|_| TestMail::new()).collect();
        let outgoing = &mails[bad].outgoing;
        mails[bad].outgoing = Outgoing::new(outgoing.id(), outgoing.dated_at(), email);
        let batch: Vec<_> = mails.iter().map(|mail| mail.outgoing.clone()).collect();
        let results = transport.send_batch(&batch).await;
        assert_eq!(results.len(), size, "the batch lacks one result per message");
        assert_each(&mails, &results, &peer, bad);
        assert!(results[bad].as_ref().is_err_and(Failure::is_unsupported), "{:?}", results[bad]);
    }
    assert_next_is_accepted(&transport, &peer).await;
}

fn assert_each(mails: &[TestMail], results: &[Result<Receipt, Failure>], peer: &impl ScriptedPeer, bad: usize) {
    for (index, (mail, result)) in mails.iter().zip(results).enumerate() {
        if index == bad {
            let failure = result.as_ref().expect_err("a refused or unsupported message was reported as accepted");
            assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
            assert_eq!(mail.copies(peer), 0, "an accepted message was reported as refused");
        } else {
            mail.assert_accepted(peer, result);
        }
    }
}

/// A message that [`check`](Transport::check) refuses is refused by `send` as well, without a request to the peer.
pub async fn an_unsupported_mail<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    let email =
        test.unsupported().expect("`unsupported` returns a mail, or the suite runs `without an_unsupported_mail`");
    let mail = TestMail::new();
    let outgoing = Outgoing::new(mail.outgoing.id(), mail.outgoing.dated_at(), email);
    let checked = transport.check(outgoing.message()).expect_err("check accepted an unsupported mail");
    let sent = transport.send(&outgoing).await.expect_err("an unsupported mail was reported as accepted");
    for failure in [checked, sent] {
        assert!(failure.is_unsupported(), "the failure is not marked as unsupported: {failure:?}");
        assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
        assert!(!failure.in_doubt(), "{failure:?}");
    }
    assert_eq!((peer.read(), peer.accepted().len()), (0, 0), "an unsupported mail was sent to the peer");
    transport.check(mail.outgoing.message()).expect("check refused a simple mail");
    assert_next_is_accepted(&transport, &peer).await;
}
