//! Calls whose future is dropped.

use std::pin::pin;
use std::time::Duration;

use super::letter::next_is_right;
use super::{Answer, Letter, PATIENCE, ScriptedPeer, TransportUnderTest};
use crate::{Class, Scope, Transport};

/// A call is dropped after the peer has read its message and before it answers. The answer, an acceptance, then comes, and must not
/// become that of the next message, which is refused.
pub async fn a_dropped_call_lends_its_answer_to_no_other<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    for _ in 0..3 {
        let (dropped, read) = (Letter::new(), peer.read());
        peer.plan(Answer::Hang);
        {
            let mut call = pin!(transport.send(&dropped.outgoing));
            let mut polls = 0;
            while peer.read() == read {
                let ended = tokio::time::timeout(Duration::from_millis(10), call.as_mut()).await;
                assert!(ended.is_err(), "the call ended before it was answered: {ended:?}");
                polls += 1;
                assert!(polls < 6_000, "the message never reached the peer");
            }
        }
        peer.plan(Answer::RefuseMessage);
        peer.release();
        // Until the answer is there to be mistaken.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = Letter::new();
        let result = transport.send(&next.outgoing).await;
        let failure = result.expect_err("the dropped call's acceptance was taken for the next message's");
        assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Message), "{failure:?}");
        assert_eq!(next.copies(&peer), 0);
        assert!(dropped.copies(&peer) <= 1, "a dropped call was sent again");
        next_is_right(&transport, &peer).await;
    }
}

/// Whenever a call is dropped, be it before it began, the next is answered as if nothing had been.
pub async fn a_call_may_be_dropped_at_any_moment<T: TransportUnderTest>(test: &T) {
    let (transport, peer) = test.start(PATIENCE).await;
    let never = Letter::new();
    drop(transport.send(&never.outgoing));
    next_is_right(&transport, &peer).await;
    assert_eq!(never.copies(&peer), 0, "a call that was never begun was sent");
    for micros in [0, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800] {
        let letter = Letter::new();
        let call = tokio::time::timeout(Duration::from_micros(micros), transport.send(&letter.outgoing)).await;
        if let Ok(result) = call {
            letter.assert_carried(&peer, &result);
        }
        let next = Letter::new();
        let result = transport.send(&next.outgoing).await;
        next.assert_carried(&peer, &result);
        // What was on its way may still arrive, and must not count as another's.
        assert!(letter.copies(&peer) <= 1, "a dropped call was sent again");
    }
}
