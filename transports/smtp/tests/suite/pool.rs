//! Reuse and limits of connections.

use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{Class, Scope, Transport};
use tokio::sync::Notify;

use crate::support::{Action, At, TestServer, assert_delivered, builder, long_timeouts, mail, smtp};

#[tokio::test]
async fn one_connection_carries_many_messages() {
    for pipelining in [false, true] {
        let server = TestServer::start(pipelining).await;
        let smtp = smtp(&server);
        for _ in 0..10 {
            let mail = mail();
            let receipt = smtp.send(&mail).await.unwrap();
            assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        }
        assert_eq!((server.connections(), server.received_any("NOOP"), server.received_any("RSET")), (1, false, false));
    }
}

#[tokio::test]
async fn a_connection_ends_with_quit_after_its_message_limit() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).max_messages_per_connection(3).build().unwrap();
    for _ in 0..7 {
        smtp.send(&mail()).await.unwrap();
    }
    let by: Vec<_> = server.accepted().iter().map(|accepted| accepted.connection).collect();
    assert_eq!(by, [1, 1, 1, 2, 2, 2, 3]);
    server.wait_until(|server| server.received().iter().filter(|received| received.line == "QUIT").count() == 2).await;
}

#[tokio::test]
async fn refused_messages_count_towards_the_limit() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).max_messages_per_connection(2).build().unwrap();
    server.times(4, At::EndOfData, Action::Reply("550 5.7.1 no"));
    for _ in 0..4 {
        smtp.send(&mail()).await.unwrap_err();
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_ends_at_its_age_limit() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).max_connection_age(Duration::from_millis(50)).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_another_call() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).idle_timeout(Duration::from_millis(50)).build().unwrap();
    for round in 1..=2 {
        smtp.send(&mail()).await.unwrap();
        server.wait_until_open(0).await;
        assert_eq!(server.received().iter().filter(|received| received.line == "QUIT").count(), round);
    }
}

#[tokio::test]
async fn without_idle_time_each_message_has_a_connection() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).idle_timeout(Duration::ZERO).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    server.wait_until_open(0).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

/// The server closes an idle connection, with or without a reply. The next call notices before it sends anything.
#[tokio::test]
async fn a_connection_that_ended_while_idle_is_not_used() {
    for action in [Action::ReplyAndClose("421 4.4.2 idle for too long"), Action::Reply("221 2.0.0 Bye"), Action::Close]
    {
        for pipelining in [false, true] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            smtp.send(&mail()).await.unwrap();
            server.act_while_idle(action.clone()).await;
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
            assert_eq!(server.accepted()[1].connection, 2);
            let on_first = server.received().iter().filter(|received| received.connection == 1).count();
            assert_eq!(on_first, 4, "the first connection was used again");
        }
    }
}

/// The server closes the connection while the first command is on its way, and never saw the message.
#[tokio::test]
async fn a_stale_connection_is_replaced_within_the_call() {
    for pipelining in [false, true] {
        for action in [Action::Close, Action::Reset, Action::ReplyAndClose("421 4.4.2 that took too long")] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            smtp.send(&mail()).await.unwrap();
            server.once(At::Mail, action.clone());
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
            assert_eq!(server.connections(), 2, "{action:?}");
        }
    }
}

/// A new connection that ends is a failure, and so is a reused one that ends after a reply.
#[tokio::test]
async fn reconnecting_happens_once_and_only_before_any_reply() {
    let transient = (Class::Transient, Scope::Transport, false);
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    smtp.send(&mail()).await.unwrap();
    server.times(2, At::Mail, Action::Close);
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), transient);
    assert_eq!((server.connections(), server.actions_left()), (2, 0));

    for at in [At::Rcpt, At::Data, At::EndOfData] {
        let server = TestServer::start(false).await;
        let smtp = crate::support::smtp(&server);
        smtp.send(&mail()).await.unwrap();
        server.once(at, Action::Close);
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(failure.in_doubt(), at == At::EndOfData);
        assert_eq!(server.connections(), 1, "{at:?}");
    }
}

#[tokio::test]
async fn an_open_transaction_is_reset_first() {
    for (action, connections) in [(None, 1), (Some(Action::Reply("500 5.5.2 what?")), 2), (Some(Action::Close), 2)] {
        let server = TestServer::start(true).await;
        let smtp = smtp(&server);
        server.once(At::Data, Action::Reply("451 4.3.0 later"));
        smtp.send(&mail()).await.unwrap_err();
        if let Some(action) = action {
            server.once(At::Rset, action);
        }
        let next = mail();
        let receipt = smtp.send(&next).await.unwrap();
        assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
        assert_eq!(server.connections(), connections);
        assert!(server.received_any("RSET"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_few_connections() {
    let server = TestServer::builder().offer("PIPELINING").delay(Duration::from_millis(10)).start().await;
    let smtp = builder(&server).max_connections(3).max_messages_per_connection(7).build().unwrap();
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
        assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
    }
    assert_eq!(server.accepted().len(), 60);
    assert_eq!(server.max_open(), 3);
}

#[tokio::test]
async fn close_ends_idle_connections_and_a_later_call_reconnects() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    smtp.send(&mail()).await.unwrap();
    smtp.close().await;
    assert!(server.received_any("QUIT"));
    server.wait_until_open(0).await;
    smtp.send(&mail()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

/// A slow reply to one QUIT does not delay the others.
#[tokio::test]
async fn close_ends_all_connections_at_the_same_time() {
    let server = TestServer::start(true).await;
    let mut timeouts = long_timeouts();
    timeouts.quit = Duration::from_secs(3600);
    let smtp = builder(&server).timeouts(timeouts).build().unwrap();
    let release = Arc::new(Notify::new());
    server.times(2, At::EndOfData, Action::Hold(Arc::clone(&release)));
    let both = [mail(), mail()].map(|mail| {
        let smtp = smtp.clone();
        tokio::spawn(async move { smtp.send(&mail).await })
    });
    server.wait_until(|server| server.actions_left() == 0).await;
    release.notify_waiters();
    for sending in both {
        sending.await.unwrap().unwrap();
    }
    server.times(2, At::Quit, Action::Hold(Arc::clone(&release)));
    let closing = tokio::spawn(async move { smtp.close().await });
    server.wait_until(|server| server.actions_left() == 0).await;
    release.notify_waiters();
    closing.await.unwrap();
    server.wait_until_open(0).await;
}

/// A check counts as a connection, and waits for a permit.
#[tokio::test]
async fn check_connection_respects_the_connection_limit() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).max_connections(1).build().unwrap();
    smtp.send(&mail()).await.unwrap();
    smtp.check_connection().await.unwrap();
    let release = Arc::new(Notify::new());
    server.once(At::EndOfData, Action::Hold(Arc::clone(&release)));
    let sending = tokio::spawn({
        let smtp = smtp.clone();
        async move { smtp.send(&mail()).await }
    });
    server.wait_until(|server| server.actions_left() == 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), smtp.check_connection()).await.is_err());
    release.notify_one();
    sending.await.unwrap().unwrap();
    smtp.check_connection().await.unwrap();
    assert_eq!(server.max_open(), 1);
}

#[tokio::test]
async fn check_connection_sends_no_mail() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    smtp.check_connection().await.unwrap();
    let lines: Vec<_> = server.received().into_iter().map(|received| received.line).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], "QUIT");
    server.once(At::Greeting, Action::Reply("554 5.7.1 not you"));
    let failure = smtp.check_connection().await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Transient, Scope::Transport));
}
