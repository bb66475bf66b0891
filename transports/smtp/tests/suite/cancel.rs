//! The replies to a dropped call must not count for another call.

use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::PoolConfig;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use postrider_transport::Transport;
use tokio::sync::Notify;

use crate::support::{Action, At, TestServer, assert_delivered, builder, count_copies, mail, mail_to};

/// A server that holds its reply to MAIL until the call was dropped, and refuses every message.
async fn late_server() -> (TestServer, Arc<Notify>) {
    let server = TestServer::start(false).await;
    let release = Arc::new(Notify::new());
    server.once(At::Mail, Action::Hold(Arc::clone(&release)));
    server.times(9, At::EndOfData, Action::Reply("550 5.7.1 refused"));
    (server, release)
}

/// Drops `call` after the server received MAIL, and lets the late reply arrive.
async fn drop_at_mail<F: Future>(server: &TestServer, release: &Notify, call: F) {
    tokio::select! {
        _ = call => panic!("the call ended before the reply"),
        () = server.wait_until(|server| server.received_any("MAIL")) => {}
    }
    release.notify_one();
    // Lets the late reply arrive.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The hazard is real: lettre's pool reads the reply to the previous command each time, and reports success for refused mail. If this test fails, lettre has
/// fixed its pool.
#[tokio::test]
async fn lettres_pool_reports_success_for_refused_mail() {
    let (server, release) = late_server().await;
    let transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("127.0.0.1")
        .port(server.port())
        .pool_config(PoolConfig::new().max_size(1))
        .build();
    let envelope =
        Envelope::new(Some("ada@example.com".parse().unwrap()), vec!["bob@example.org".parse().unwrap()]).unwrap();
    drop_at_mail(&server, &release, transport.send_raw(&envelope, b"Subject: one\r\n\r\none\r\n")).await;
    let second = transport.send_raw(&envelope, b"Subject: two\r\n\r\ntwo\r\n").await;
    assert!(second.is_ok(), "{second:?}");
    assert_eq!(server.accepted().len(), 0, "the server refused everything");
}

#[tokio::test]
async fn a_dropped_call_leaves_no_reply_behind() {
    let (server, release) = late_server().await;
    let smtp = builder(&server).max_connections(1).build().unwrap();
    drop_at_mail(&server, &release, smtp.send(&mail())).await;
    for _ in 0..3 {
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!(failure.reply(), Some("550 5.7.1 refused"));
    }
    assert_eq!(server.connections(), 2, "the connection of the dropped call was used again");
}

#[tokio::test]
async fn a_call_dropped_at_any_stage_does_not_harm_the_next() {
    for pipelining in [false, true] {
        for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::EndOfData] {
            let server = TestServer::start(pipelining).await;
            let smtp = builder(&server).max_connections(1).build().unwrap();
            let release = Arc::new(Notify::new());
            server.once(at, Action::Hold(Arc::clone(&release)));
            let dropped = mail();
            tokio::select! {
                _ = smtp.send(&dropped) => panic!("the call ended before the reply"),
                () = server.wait_until(|server| server.actions_left() == 0) => {}
            }
            release.notify_one();
            let next = mail_to(2);
            let receipt = smtp.send(&next).await.unwrap();
            assert_delivered(&server, &next, &receipt, &["r0@example.org", "r1@example.org"]);
            assert_eq!(server.connections(), 2, "{at:?}");
            assert!(count_copies(&server, &dropped) <= usize::from(at == At::EndOfData), "{at:?}");
        }
    }
}

#[tokio::test]
async fn a_call_dropped_while_waiting_keeps_no_permit() {
    let server = TestServer::start(true).await;
    let smtp = builder(&server).max_connections(1).build().unwrap();
    let release = Arc::new(Notify::new());
    server.once(At::EndOfData, Action::Hold(Arc::clone(&release)));
    let (first, second) = (mail(), mail());
    let holding = tokio::spawn({
        let (smtp, first) = (smtp.clone(), first.clone());
        async move { smtp.send(&first).await }
    });
    server.wait_until(|server| server.actions_left() == 0).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), smtp.send(&second)).await.is_err());
    release.notify_one();
    let receipt = holding.await.unwrap().unwrap();
    assert_delivered(&server, &first, &receipt, &["bob@example.org"]);
    let receipt = smtp.send(&second).await.unwrap();
    assert_delivered(&server, &second, &receipt, &["bob@example.org"]);
    assert_eq!(server.connections(), 1);
}
