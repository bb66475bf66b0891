//! Futures that are dropped during a call.

use std::time::Duration;

use postrider_transport::Transport;
use postrider_transport::testkit::{HttpPeer, HttpReply};

use crate::support::{accepted, mail, peer, ses};

/// Waits until the peer has a whole request.
async fn request_received(peer: &HttpPeer) {
    while peer.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_response_of_a_dropped_call_is_not_used_for_another() {
    let peer = peer([HttpReply::Hang, accepted("second"), accepted("third")]).await;
    let ses = ses(&peer);
    let first = mail();
    tokio::select! {
        _ = ses.send(&first) => panic!("no response was sent"),
        () = request_received(&peer) => {}
    }
    for id in ["second", "third"] {
        assert_eq!(ses.send(&mail()).await.unwrap().provider_id.as_deref(), Some(id));
    }
    assert_eq!(peer.seen().len(), 3);
}

#[tokio::test]
async fn a_call_that_is_dropped_at_once_sends_nothing() {
    let peer = peer([]).await;
    let ses = ses(&peer);
    let mail = mail();
    drop(ses.send(&mail));
    assert!(ses.send(&mail).await.is_ok());
    assert_eq!(peer.seen().len(), 1);
}
