//! Rules of the RFCs, each with its section.

use std::sync::Arc;
use std::time::Duration;

use postrider_smtp::{AuthMechanism, Credentials, Rule, Smtp, SmtpBuilder, SmtpConfigError, Stage, Tls};
use postrider_transport::{Class, Scope, Transport};
use tokio::sync::Notify;

use crate::support::{Action, At, TestServer, assert_delivered, builder, long_timeouts, mail, smtp};

const SECRET: &str = "hunter2-and-more";

fn with_credentials(server: &TestServer, secret: &str) -> SmtpBuilder {
    let credentials = Credentials::new("ada@example.com", secret);
    Smtp::builder("127.0.0.1").port(server.port()).tls(Tls::None).credentials(credentials).timeouts(long_timeouts())
}

fn lines(server: &TestServer) -> Vec<String> {
    server.received().into_iter().map(|received| received.line).collect()
}

/// RFC 5321 sections 3.2 and 4.3.2.
#[tokio::test]
async fn helo_follows_if_the_server_does_not_know_ehlo() {
    for reply in ["500 5.5.1 what?", "502 5.5.1 not implemented", "504 5.5.4 not implemented"] {
        let server = TestServer::builder().offer("PIPELINING").start().await;
        server.once(At::Ehlo, Action::Reply(reply));
        let smtp = smtp(&server);
        let mail = mail();
        let receipt = smtp.send(&mail).await.unwrap();
        assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        let received = lines(&server);
        assert!(
            received[0].starts_with("EHLO ") && received[1] == received[0].replacen("EHLO", "HELO", 1),
            "{received:?}"
        );
        // HELO offers no extensions, so none is used.
        assert!(received.iter().all(|line| !line.contains("SIZE=")), "{received:?}");
        assert!(
            server
                .received()
                .iter()
                .all(|received| !received.pipelined || received.line.is_empty() || !received.line.starts_with("MAIL"))
        );
    }
}

/// RFC 5321 section 4.1.4: the server refuses the name or the client, and HELO would repeat it.
#[tokio::test]
async fn helo_does_not_follow_if_the_name_is_refused() {
    for reply in ["501 5.5.4 what a name", "550 5.7.1 not you", "554 5.7.1 go away", "451 4.3.0 later"] {
        let server = TestServer::start(true).await;
        server.once(At::Ehlo, Action::Reply(reply));
        let failure = smtp(&server).send(&mail()).await.unwrap_err();
        assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some(reply)));
        assert!(!server.received_any("HELO"), "{reply}");
        assert_eq!(lines(&server).last().unwrap(), "QUIT", "{reply}");
    }
}

/// HELO may be refused as well, and it offers no STARTTLS.
#[tokio::test]
async fn helo_does_not_bypass_encryption_or_a_refusal() {
    let server = TestServer::start(true).await;
    server.once(At::Ehlo, Action::Reply("500 5.5.1 what?"));
    server.once(At::Helo, Action::Reply("550 5.7.1 not you"));
    let failure = smtp(&server).send(&mail()).await.unwrap_err();
    assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some("550 5.7.1 not you")));

    let server = TestServer::start(true).await;
    server.once(At::Ehlo, Action::Reply("500 5.5.1 what?"));
    let failure = builder(&server).tls(Tls::Required).build().unwrap().send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Transport));
    assert!(!server.received_any("MAIL"));
}

/// RFC 4954 section 4.
#[tokio::test]
async fn a_long_auth_response_goes_on_its_own_line() {
    let long: &'static str = "hunter2-".repeat(250).leak();
    for (offer, configured) in [("AUTH PLAIN", AuthMechanism::Plain), ("AUTH XOAUTH2", AuthMechanism::XOAuth2)] {
        for (secret, apart) in [(SECRET, false), (long, true)] {
            let server = TestServer::builder().offer(offer).password(secret).start().await;
            let smtp = with_credentials(&server, secret).auth_mechanism(configured).build().unwrap();
            smtp.send(&mail()).await.unwrap();
            let received = lines(&server);
            let command = received.iter().find(|line| line.starts_with("AUTH")).unwrap();
            assert!(command.len() + 2 <= 512, "the command has {} octets", command.len() + 2);
            assert_eq!(command == offer, apart, "{command}");
        }
    }
    let builder = |length| Smtp::builder("localhost").credentials(Credentials::new("ada", "x".repeat(length)));
    assert_eq!(builder(10_000).tls(Tls::None).build().unwrap_err(), SmtpConfigError::CredentialsTooLong);
    assert!(builder(9_000).tls(Tls::None).build().is_ok());
}

/// RFC 4954 section 4: 504 refuses the mechanism. Any other code refuses the credentials, which are not sent again.
#[tokio::test]
async fn the_next_mechanism_is_tried_after_504_only() {
    let server = TestServer::builder().offer("AUTH PLAIN LOGIN").password(SECRET).start().await;
    server.once(At::AuthCommand, Action::Reply("504 5.5.4 Unrecognized authentication type"));
    with_credentials(&server, SECRET).build().unwrap().send(&mail()).await.unwrap();
    assert!(server.received_any("AUTH PLAIN") && server.received_any("AUTH LOGIN"));

    for (reply, configured) in [
        ("534 5.7.9 Application-specific password required", None),
        ("535 5.7.8 wrong", None),
        ("454 4.7.0 not now", None),
        ("504 5.5.4 Unrecognized authentication type", Some(AuthMechanism::Plain)),
    ] {
        let server = TestServer::builder().offer("AUTH PLAIN LOGIN").password(SECRET).start().await;
        server.once(At::AuthCommand, Action::Reply(reply));
        let mut builder = with_credentials(&server, SECRET);
        if let Some(configured) = configured {
            builder = builder.auth_mechanism(configured);
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some(reply)));
        assert!(!server.received_any("AUTH LOGIN"), "{reply}");
        assert_eq!(lines(&server).last().unwrap(), "QUIT", "{reply}");
    }
}

/// RFC 5321 section 4.1.1.10.
#[tokio::test]
async fn every_connection_in_sync_ends_with_quit() {
    type Case = (&'static str, Option<(At, Action)>, fn(SmtpBuilder) -> SmtpBuilder);
    let same: fn(SmtpBuilder) -> SmtpBuilder = |builder| builder;
    let cases: [Case; 12] = [
        ("the transport is dropped", None, same),
        ("there is no idle time", None, |builder| builder.idle_timeout(Duration::ZERO)),
        ("it was idle too long", None, |builder| builder.idle_timeout(Duration::from_millis(50))),
        ("it reached its message limit", None, |builder| builder.max_messages_per_connection(1)),
        ("it reached its age limit", None, |builder| builder.max_connection_age(Duration::ZERO)),
        ("the greeting refuses", Some((At::Greeting, Action::Reply("554 5.7.1 go away"))), same),
        ("EHLO is refused", Some((At::Ehlo, Action::Reply("550 5.7.1 go away"))), same),
        ("MAIL is a bad sequence", Some((At::Mail, Action::Reply("503 5.5.1 bad sequence"))), same),
        ("RCPT is a bad sequence", Some((At::Rcpt, Action::Reply("503 5.5.1 bad sequence"))), same),
        ("the message is a bad sequence", Some((At::EndOfData, Action::Reply("503 5.5.1 bad sequence"))), same),
        ("MAIL is refused, then dropped", Some((At::Mail, Action::Reply("550 5.7.1 no"))), same),
        ("the message is refused, then dropped", Some((At::EndOfData, Action::Reply("550 5.7.1 no"))), same),
    ];
    for pipelining in [false, true] {
        for (case, script, configure) in &cases {
            let server = TestServer::start(pipelining).await;
            if let Some((at, action)) = script {
                server.once(*at, action.clone());
            }
            let smtp = configure(builder(&server)).build().unwrap();
            assert_eq!(smtp.send(&mail()).await.is_err(), script.is_some(), "{case}");
            if *case == "it was idle too long" {
                server.wait_until_open(0).await;
            }
            drop(smtp);
            server.wait_until_open(0).await;
            let received = lines(&server);
            assert_eq!(
                received.last().map(String::as_str),
                Some("QUIT"),
                "{case}, pipelining: {pipelining}: {received:?}"
            );
        }
    }
}

/// Out of sync, the server could take a command for something else.
#[tokio::test]
async fn a_connection_out_of_sync_is_closed_without_quit() {
    let server = TestServer::start(true).await;
    let release = Arc::new(Notify::new());
    server.once(At::EndOfData, Action::Hold(Arc::clone(&release)));
    let smtp = smtp(&server);
    let mail = mail();
    tokio::select! {
        _ = smtp.send(&mail) => panic!("the call ended before the reply"),
        () = server.wait_until(|server| server.read() == 1) => {}
    }
    drop(smtp);
    release.notify_one();
    server.wait_until_open(0).await;
    assert!(!server.received_any("QUIT"));
}

/// Before the message is written, the server cannot have accepted it, and the call is marked as waiting.
#[tokio::test]
async fn a_call_is_waiting_until_the_message_is_written() {
    for (at, waits) in [
        (At::Greeting, true),
        (At::Ehlo, true),
        (At::Mail, true),
        (At::Rcpt, true),
        (At::Data, true),
        (At::EndOfData, false),
    ] {
        let server = TestServer::start(true).await;
        let release = Arc::new(Notify::new());
        server.once(at, Action::Hold(Arc::clone(&release)));
        let smtp = smtp(&server);
        let mail = mail();
        {
            let mut call = std::pin::pin!(smtp.send(&mail));
            tokio::select! {
                _ = &mut call => panic!("the call ended before the reply at {at:?}"),
                () = server.wait_until(|server| server.actions_left() == 0) => {}
            }
            assert_eq!(mail.is_waiting(), waits, "{at:?}");
            release.notify_one();
            call.await.unwrap();
        }
        assert!(!mail.is_waiting());
    }
    // A call that waits for a connection is waiting too.
    let server = TestServer::start(true).await;
    let release = Arc::new(Notify::new());
    server.once(At::EndOfData, Action::Hold(Arc::clone(&release)));
    let smtp = builder(&server).max_connections(1).build().unwrap();
    let (first, second) = (mail(), mail());
    let mut calls = std::pin::pin!(futures_util::future::join(smtp.send(&first), smtp.send(&second)));
    tokio::select! {
        _ = &mut calls => panic!("the call ended before the reply"),
        () = server.wait_until(|server| server.read() == 1) => {}
    }
    assert!(second.is_waiting() && !first.is_waiting());
}

#[tokio::test]
async fn user_rules_come_first() {
    let server = TestServer::start(true).await;
    server.times(2, At::Rcpt, Action::Reply("550 5.1.1 Points used up, try again in 90 seconds"));
    let default = smtp(&server).send(&mail()).await.unwrap_err();
    assert_eq!((default.class(), default.scope()), (Class::Permanent, Scope::Message));
    let rule = Rule::new(Class::Transient, Scope::Transport)
        .at(Stage::Recipient)
        .says("points used")
        .retry_after(Duration::from_secs(3600));
    let smtp = builder(&server).rule(rule.clone()).build().unwrap();
    let own = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((own.class(), own.scope(), own.is_sure()), (Class::Transient, Scope::Transport, true));
    assert_eq!(own.retry_after(), Some(Duration::from_secs(90)), "the wait in the reply takes precedence");

    let never = Rule::new(Class::Permanent, Scope::Message).says("points used").unless("try again");
    let smtp = builder(&server).rule(never).rule(rule).build().unwrap();
    let means = smtp.explain(Stage::Recipient, "550 5.1.1 Points used up, try again").unwrap();
    assert_eq!((means.class, means.retry_after), (Class::Transient, Some(Duration::from_secs(3600))));
    let means = smtp.explain(Stage::Mail, "550 5.1.1 Points used up").unwrap();
    assert_eq!((means.class, means.scope), (Class::Permanent, Scope::Message), "the first match decides");
}
