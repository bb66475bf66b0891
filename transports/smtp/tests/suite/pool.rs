//! Connections are used again, and not too often.

use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{Class, Scope, Transport};
use tokio::sync::Notify;

use crate::support::{Act, At, Peer, assert_carried, builder, mail, patient, smtp};

#[tokio::test]
async fn one_connection_carries_many_messages() {
    for pipelining in [false, true] {
        let peer = Peer::start(pipelining).await;
        let smtp = smtp(&peer);
        for _ in 0..10 {
            let mail = mail();
            let receipt = smtp.send(&mail).await.unwrap();
            assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        }
        assert_eq!((peer.connections(), peer.heard_any("NOOP"), peer.heard_any("RSET")), (1, false, false));
    }
}

#[tokio::test]
async fn a_connection_ends_after_so_many_messages_and_says_goodbye() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).max_messages_per_connection(3).build().unwrap();
    for _ in 0..7 {
        smtp.send(&mail()).await.unwrap();
    }
    let by: Vec<_> = peer.accepted().iter().map(|accepted| accepted.connection).collect();
    assert_eq!(by, [1, 1, 1, 2, 2, 2, 3]);
    peer.until(|peer| peer.heard().iter().filter(|heard| heard.line == "QUIT").count() == 2).await;
}

/// A refused message is one of the messages that a connection carries.
#[tokio::test]
async fn refusals_count() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).max_messages_per_connection(2).build().unwrap();
    peer.times(4, At::Dot, Act::Say("550 5.7.1 no"));
    for _ in 0..4 {
        smtp.send(&mail()).await.unwrap_err();
    }
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_connection_grows_old() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).max_connection_age(Duration::from_millis(50)).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn who_waits_too_long_is_sent_home_without_another_call() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).idle_timeout(Duration::from_millis(50)).build().unwrap();
    for round in 1..=2 {
        smtp.send(&mail()).await.unwrap();
        peer.until_open(0).await;
        assert_eq!(peer.heard().iter().filter(|heard| heard.line == "QUIT").count(), round);
    }
}

#[tokio::test]
async fn no_idle_time_means_a_connection_each() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).idle_timeout(Duration::ZERO).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    peer.until_open(0).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

/// The server closes a connection that waits, with or without a word: the next call notices before it says anything.
#[tokio::test]
async fn a_connection_that_ended_while_it_waited_is_not_used() {
    for act in [Act::SayAndClose("421 4.4.2 idle for too long"), Act::Say("221 2.0.0 Bye"), Act::Close] {
        for pipelining in [false, true] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            smtp.send(&mail()).await.unwrap();
            peer.say_to_idle(act.clone()).await;
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
            assert_eq!(peer.accepted()[1].connection, 2);
            let heard_by_first = peer.heard().iter().filter(|heard| heard.connection == 1).count();
            assert_eq!(heard_by_first, 4, "the first connection was spoken to again");
        }
    }
}

/// The end of the connection and our first words cross: the server has heard nothing of the message.
#[tokio::test]
async fn a_connection_that_ends_as_it_is_used_again_costs_no_attempt() {
    for pipelining in [false, true] {
        for act in [Act::Close, Act::Reset, Act::SayAndClose("421 4.4.2 that took too long")] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            smtp.send(&mail()).await.unwrap();
            peer.once(At::Mail, act.clone());
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
            assert_eq!(peer.connections(), 2, "{act:?}");
        }
    }
}

/// But a new connection has no such excuse, and one that was heard has none either.
#[tokio::test]
async fn connecting_anew_happens_once_and_only_when_nothing_was_heard() {
    let transient = (Class::Transient, Scope::Transport, false);
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    smtp.send(&mail()).await.unwrap();
    peer.times(2, At::Mail, Act::Close);
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), transient);
    assert_eq!((peer.connections(), peer.rules_left()), (2, 0));

    for at in [At::Rcpt, At::Data, At::Dot] {
        let peer = Peer::start(false).await;
        let smtp = crate::support::smtp(&peer);
        smtp.send(&mail()).await.unwrap();
        peer.once(at, Act::Close);
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(failure.in_doubt(), at == At::Dot);
        assert_eq!(peer.connections(), 1, "{at:?}");
    }
}

#[tokio::test]
async fn a_transaction_that_was_left_open_is_put_away_first() {
    for (act, connections) in [(None, 1), (Some(Act::Say("500 5.5.2 what?")), 2), (Some(Act::Close), 2)] {
        let peer = Peer::start(true).await;
        let smtp = smtp(&peer);
        peer.once(At::Data, Act::Say("451 4.3.0 later"));
        smtp.send(&mail()).await.unwrap_err();
        if let Some(act) = act {
            peer.once(At::Rset, act);
        }
        let next = mail();
        let receipt = smtp.send(&next).await.unwrap();
        assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
        assert_eq!(peer.connections(), connections);
        assert!(peer.heard_any("RSET"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_few_connections() {
    let peer = Peer::builder().offer("PIPELINING").pace(Duration::from_millis(10)).start().await;
    let smtp = builder(&peer).max_connections(3).max_messages_per_connection(7).build().unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let smtp = smtp.clone();
        calls.spawn(async move {
            let mail = mail();
            let receipt = smtp.send(&mail).await.unwrap();
            (mail, receipt)
        });
    }
    for (mail, receipt) in calls.join_all().await {
        assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
    }
    assert_eq!(peer.accepted().len(), 60);
    assert_eq!(peer.most_open(), 3);
}

#[tokio::test]
async fn close_says_goodbye_to_those_who_wait_and_a_later_call_connects_again() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    smtp.send(&mail()).await.unwrap();
    smtp.close().await;
    assert!(peer.heard_any("QUIT"));
    peer.until_open(0).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

/// A server that is slow to answer one goodbye holds up no other.
#[tokio::test]
async fn close_says_every_goodbye_at_once() {
    let peer = Peer::start(true).await;
    let mut timeouts = patient();
    timeouts.quit = Duration::from_secs(3600);
    let smtp = builder(&peer).timeouts(timeouts).build().unwrap();
    let release = Arc::new(Notify::new());
    peer.times(2, At::Dot, Act::Hold(Arc::clone(&release)));
    let both = [mail(), mail()].map(|mail| {
        let smtp = smtp.clone();
        tokio::spawn(async move { smtp.send(&mail).await })
    });
    peer.until(|peer| peer.rules_left() == 0).await;
    release.notify_waiters();
    for sending in both {
        sending.await.unwrap().unwrap();
    }
    peer.times(2, At::Quit, Act::Hold(Arc::clone(&release)));
    let closing = tokio::spawn(async move { smtp.close().await });
    peer.until(|peer| peer.rules_left() == 0).await;
    release.notify_waiters();
    closing.await.unwrap();
    peer.until_open(0).await;
}

/// A check is one of the connections allowed, and waits for its turn.
#[tokio::test]
async fn checking_the_connection_keeps_to_the_bound() {
    let peer = Peer::start(true).await;
    let smtp = builder(&peer).max_connections(1).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    smtp.check_connection().await.unwrap();
    let release = Arc::new(Notify::new());
    peer.once(At::Dot, Act::Hold(Arc::clone(&release)));
    let sending = tokio::spawn({
        let smtp = smtp.clone();
        async move { smtp.send(&mail()).await }
    });
    peer.until(|peer| peer.rules_left() == 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), smtp.check_connection()).await.is_err());
    release.notify_one();
    sending.await.unwrap().unwrap();
    smtp.check_connection().await.unwrap();
    assert_eq!(peer.most_open(), 1);
}

#[tokio::test]
async fn checking_the_connection_sends_nothing() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    smtp.check_connection().await.unwrap();
    let lines: Vec<_> = peer.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], "QUIT");
    peer.once(At::Greeting, Act::Say("554 5.7.1 not you"));
    let failure = smtp.check_connection().await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Transient, Scope::Transport));
}
