//! Futures that are dropped in mid-call.

use postrider_transport::Transport;

use crate::support::{Act, Peer, mail, ses};

#[tokio::test]
async fn the_answer_of_a_dropped_call_is_nobody_elses() {
    let peer = Peer::start([Act::Hang, Act::Accept("second"), Act::Accept("third")]);
    let ses = ses(&peer);
    let first = mail();
    tokio::select! {
        _ = ses.send(&first) => panic!("nobody answered"),
        () = peer.heard(1) => {}
    }
    for id in ["second", "third"] {
        assert_eq!(ses.send(&mail()).await.unwrap().provider_id.as_deref(), Some(id));
    }
    assert_eq!(peer.received().len(), 3);
}

#[tokio::test]
async fn a_call_that_is_dropped_at_once_sends_nothing() {
    let peer = Peer::start([]);
    let ses = ses(&peer);
    let mail = mail();
    drop(ses.send(&mail));
    assert!(ses.send(&mail).await.is_ok());
    assert_eq!(peer.received().len(), 1);
}
