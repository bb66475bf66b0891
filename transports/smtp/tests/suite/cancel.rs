//! A call that is dropped half-way must not lend its answers to another.

use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use postrider_transport::Transport;
use tokio::sync::Notify;

use crate::support::{Act, At, Peer, assert_carried, builder, copies, mail, mail_to};

/// Lets the peer wait at MAIL until the call has been dropped, answer then, and refuse every message.
async fn peer_that_is_late() -> (Peer, Arc<Notify>) {
    let peer = Peer::start(false).await;
    let release = Arc::new(Notify::new());
    peer.once(At::Mail, Act::Hold(Arc::clone(&release)));
    peer.times(9, At::Dot, Act::Say("550 5.7.1 refused"));
    (peer, release)
}

/// Drops `call` once the peer has heard MAIL, and lets the late answer arrive.
async fn drop_at_mail<F: Future>(peer: &Peer, release: &Notify, call: F) {
    tokio::select! {
        _ = call => panic!("the call ended although its answer was held back"),
        () = peer.until(|peer| peer.heard_any("MAIL")) => {}
    }
    release.notify_one();
    // Until the answer is there to be mistaken.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The scenario bites: lettre's own pool reports success for what the server refused, since it reads each answer one late. Should
/// this test ever fail, lettre has mended its pool, and the comment on this crate's own may be softened.
#[tokio::test]
async fn the_hazard_is_real_in_a_pool_that_takes_every_connection_back() {
    let (peer, release) = peer_that_is_late().await;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(peer.port())
        .pool_config(PoolConfig::new().max_size(1))
        .build();
    let envelope =
        Envelope::new(Some("ada@example.com".parse().unwrap()), vec!["bob@example.org".parse().unwrap()]).unwrap();
    drop_at_mail(&peer, &release, transport.send_raw(&envelope, b"Subject: one\r\n\r\none\r\n")).await;
    let second = transport.send_raw(&envelope, b"Subject: two\r\n\r\ntwo\r\n").await;
    assert!(second.is_ok(), "{second:?}");
    assert_eq!(peer.accepted().len(), 0, "the server refused everything");
}

#[tokio::test]
async fn here_a_refusal_stays_a_refusal() {
    let (peer, release) = peer_that_is_late().await;
    let smtp = builder(&peer).max_connections(1).build().unwrap();
    drop_at_mail(&peer, &release, smtp.send(&mail())).await;
    for _ in 0..3 {
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(failure.reply(), Some("550 5.7.1 refused"));
    }
    assert_eq!(peer.connections(), 2, "the connection of the dropped call was used again");
}

/// Dropped at every stage, with the late answer on its way: the next message is carried, whole, with its own receipt.
#[tokio::test]
async fn dropped_at_every_stage() {
    for pipelining in [false, true] {
        for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::Dot] {
            let peer = Peer::start(pipelining).await;
            let smtp = builder(&peer).max_connections(1).build().unwrap();
            let release = Arc::new(Notify::new());
            peer.once(at, Act::Hold(Arc::clone(&release)));
            let dropped = mail();
            tokio::select! {
                _ = smtp.send(&dropped) => panic!("the call ended although its answer was held back"),
                () = peer.until(|peer| peer.rules_left() == 0) => {}
            }
            release.notify_one();
            let next = mail_to(2);
            let receipt = smtp.send(&next).await.unwrap();
            assert_carried(&peer, &next, &receipt, &["r0@example.org", "r1@example.org"]);
            assert_eq!(peer.connections(), 2, "{at:?}");
            assert!(copies(&peer, &dropped) <= usize::from(at == At::Dot), "{at:?}");
        }
    }
}

/// A call that is dropped while it waits for a connection takes none away.
#[tokio::test]
async fn dropped_while_it_waits() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).max_connections(1).build().unwrap();
    let release = Arc::new(Notify::new());
    peer.once(At::Dot, Act::Hold(Arc::clone(&release)));
    let (first, second) = (mail(), mail());
    let holding = tokio::spawn({
        let (smtp, first) = (smtp.clone(), first.clone());
        async move { smtp.send(&first).await }
    });
    peer.until(|peer| peer.rules_left() == 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), smtp.send(&second)).await.is_err());
    release.notify_one();
    let receipt = holding.await.unwrap().unwrap();
    assert_carried(&peer, &first, &receipt, &["bob@example.org"]);
    let receipt = smtp.send(&second).await.unwrap();
    assert_carried(&peer, &second, &receipt, &["bob@example.org"]);
    assert_eq!(peer.connections(), 1);
}
