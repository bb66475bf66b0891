//! Tests of dropped calls.

use std::pin::pin;
use std::time::Duration;

use super::fixture::assert_next_is_accepted;
use super::{Answer, LONG_LIMIT, ScriptedPeer, TestMail, TransportUnderTest};
use crate::{Class, Scope, Transport};

/// A call is dropped after the peer read its message and before it answers. The late acceptance must not become the answer to the next
/// message, which is refused.
pub async fn the_answer_to_a_dropped_call_is_discarded<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    for _ in 0..3 {
        let (dropped, read) = (TestMail::new(), peer.read());
        peer.plan(Answer::Hang);
        {
            let mut call = pin!(transport.send(&dropped.outgoing));
            let mut polls = 0;
            while peer.read() == read {
                let ended = tokio::time::timeout(Duration::from_millis(10), call.as_mut()).await;
                assert!(ended.is_err(), "the call ended before the answer: {ended:?}");
                polls += 1;
                assert!(polls < 6_000, "the message never reached the peer");
            }
        }
        peer.plan(Answer::RefuseMessage);
        peer.release();
        // Wait for the late answer to arrive.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = TestMail::new();
        let result = transport.send(&next.outgoing).await;
        let failure = result.expect_err("the answer to the dropped call was taken for the answer to the next message");
        assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
        assert_eq!(next.copies(&peer), 0);
        assert!(dropped.copies(&peer) <= 1, "a dropped call was sent again");
        assert_next_is_accepted(&transport, &peer).await;
    }
}

/// A call can be dropped at any time, also before its first poll, without an effect on the next call.
pub async fn a_call_can_be_dropped_at_any_time<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(LONG_LIMIT).await;
    let never = TestMail::new();
    drop(transport.send(&never.outgoing));
    assert_next_is_accepted(&transport, &peer).await;
    assert_eq!(never.copies(&peer), 0, "a call that was never polled was sent");
    for micros in [0, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800] {
        let mail = TestMail::new();
        let call = tokio::time::timeout(Duration::from_micros(micros), transport.send(&mail.outgoing)).await;
        if let Ok(result) = call {
            mail.assert_accepted(&peer, &result);
        }
        let next = TestMail::new();
        let result = transport.send(&next.outgoing).await;
        next.assert_accepted(&peer, &result);
        // The dropped message may still arrive, but only once.
        assert!(mail.copies(&peer) <= 1, "a dropped call was sent again");
    }
}
