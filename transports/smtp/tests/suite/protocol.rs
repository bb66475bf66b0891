//! Rules of the protocol, each by its section.

use std::sync::Arc;
use std::time::Duration;

use postrider_smtp::{AuthMechanism, Credentials, Rule, Smtp, SmtpBuilder, SmtpConfigError, Stage, Tls};
use postrider_transport::{Class, Scope, Transport};
use tokio::sync::Notify;

use crate::support::{Act, At, Peer, assert_carried, builder, mail, patient, smtp};

const SECRET: &str = "hunter2-and-more";

fn with_credentials(peer: &Peer, secret: &str) -> SmtpBuilder {
    let credentials = Credentials::new("ada@example.com", secret);
    Smtp::builder("127.0.0.1").port(peer.port()).tls(Tls::None).credentials(credentials).timeouts(patient())
}

fn lines(peer: &Peer) -> Vec<String> {
    peer.heard().into_iter().map(|heard| heard.line).collect()
}

/// RFC 5321 sections 3.2 and 4.3.2.
#[tokio::test]
async fn a_server_that_does_not_know_ehlo_is_greeted_by_helo() {
    for say in ["500 5.5.1 what?", "502 5.5.1 not implemented", "504 5.5.4 not implemented"] {
        let peer = Peer::builder().offer("PIPELINING").start().await;
        peer.once(At::Ehlo, Act::Say(say));
        let smtp = smtp(&peer);
        let mail = mail();
        let receipt = smtp.send(&mail).await.unwrap();
        assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        let heard = lines(&peer);
        assert!(heard[0].starts_with("EHLO ") && heard[1] == heard[0].replacen("EHLO", "HELO", 1), "{heard:?}");
        // Nothing was offered, so nothing is used.
        assert!(heard.iter().all(|line| !line.contains("SIZE=")), "{heard:?}");
        assert!(
            peer.heard()
                .iter()
                .all(|heard| !heard.with_more || heard.line.is_empty() || !heard.line.starts_with("MAIL"))
        );
    }
}

/// RFC 5321 section 4.1.4: what is refused there is the name or the client, and HELO would only repeat it.
#[tokio::test]
async fn a_refused_name_is_not_said_again() {
    for say in ["501 5.5.4 what a name", "550 5.7.1 not you", "554 5.7.1 go away", "451 4.3.0 later"] {
        let peer = Peer::start(true).await;
        peer.once(At::Ehlo, Act::Say(say));
        let failure = smtp(&peer).send(&mail()).await.unwrap_err();
        assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some(say)));
        assert!(!peer.heard_any("HELO"), "{say}");
        assert_eq!(lines(&peer).last().unwrap(), "QUIT", "{say}");
    }
}

/// A server that refuses HELO as well is told goodbye, and where encryption is required, HELO cannot bring it.
#[tokio::test]
async fn helo_is_no_way_around_encryption_or_a_second_refusal() {
    let peer = Peer::start(true).await;
    peer.once(At::Ehlo, Act::Say("500 5.5.1 what?"));
    peer.once(At::Helo, Act::Say("550 5.7.1 not you"));
    let failure = smtp(&peer).send(&mail()).await.unwrap_err();
    assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some("550 5.7.1 not you")));

    let peer = Peer::start(true).await;
    peer.once(At::Ehlo, Act::Say("500 5.5.1 what?"));
    let failure = builder(&peer).tls(Tls::Required).build().unwrap().send(&mail()).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Class::Permanent, Scope::Transport));
    assert!(!peer.heard_any("MAIL"));
}

/// RFC 4954 section 4.
#[tokio::test]
async fn a_response_too_long_for_the_command_goes_on_a_line_of_its_own() {
    let long: &'static str = "hunter2-".repeat(250).leak();
    for (offer, asked) in [("AUTH PLAIN", AuthMechanism::Plain), ("AUTH XOAUTH2", AuthMechanism::XOAuth2)] {
        for (secret, apart) in [(SECRET, false), (long, true)] {
            let peer = Peer::builder().offer(offer).password(secret).start().await;
            let smtp = with_credentials(&peer, secret).auth_mechanism(asked).build().unwrap();
            smtp.send(&mail()).await.unwrap();
            let heard = lines(&peer);
            let command = heard.iter().find(|line| line.starts_with("AUTH")).unwrap();
            assert!(command.len() + 2 <= 512, "the command has {} octets", command.len() + 2);
            assert_eq!(command == offer, apart, "{command}");
        }
    }
    let builder = |length| Smtp::builder("localhost").credentials(Credentials::new("ada", "x".repeat(length)));
    assert_eq!(builder(10_000).tls(Tls::None).build().unwrap_err(), SmtpConfigError::CredentialsTooLong);
    assert!(builder(9_000).tls(Tls::None).build().is_ok());
}

/// RFC 4954 section 4: 504 is about the mechanism. Any other refusal is about the credentials, which are not shown a second time.
#[tokio::test]
async fn a_mechanism_that_is_not_taken_leaves_the_next_one() {
    let peer = Peer::builder().offer("AUTH PLAIN LOGIN").password(SECRET).start().await;
    peer.once(At::AuthCommand, Act::Say("504 5.5.4 Unrecognized authentication type"));
    with_credentials(&peer, SECRET).build().unwrap().send(&mail()).await.unwrap();
    assert!(peer.heard_any("AUTH PLAIN") && peer.heard_any("AUTH LOGIN"));

    for (say, asked) in [
        ("534 5.7.9 Application-specific password required", None),
        ("535 5.7.8 wrong", None),
        ("454 4.7.0 not now", None),
        ("504 5.5.4 Unrecognized authentication type", Some(AuthMechanism::Plain)),
    ] {
        let peer = Peer::builder().offer("AUTH PLAIN LOGIN").password(SECRET).start().await;
        peer.once(At::AuthCommand, Act::Say(say));
        let mut builder = with_credentials(&peer, SECRET);
        if let Some(asked) = asked {
            builder = builder.auth_mechanism(asked);
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.scope(), failure.reply()), (Scope::Transport, Some(say)));
        assert!(!peer.heard_any("AUTH LOGIN"), "{say}");
        assert_eq!(lines(&peer).last().unwrap(), "QUIT", "{say}");
    }
}

/// RFC 5321 section 4.1.1.10: QUIT before every close, whatever the reason, as long as both sides are in step.
#[tokio::test]
async fn every_connection_that_is_in_step_ends_with_quit() {
    type Case = (&'static str, Option<(At, Act)>, fn(SmtpBuilder) -> SmtpBuilder);
    let same: fn(SmtpBuilder) -> SmtpBuilder = |builder| builder;
    let cases: [Case; 12] = [
        ("the transport is dropped", None, same),
        ("no message waits", None, |builder| builder.idle_timeout(Duration::ZERO)),
        ("it waited too long", None, |builder| builder.idle_timeout(Duration::from_millis(50))),
        ("it carried enough", None, |builder| builder.max_messages_per_connection(1)),
        ("it is old", None, |builder| builder.max_connection_age(Duration::ZERO)),
        ("the greeting refuses", Some((At::Greeting, Act::Say("554 5.7.1 go away"))), same),
        ("EHLO is refused", Some((At::Ehlo, Act::Say("550 5.7.1 go away"))), same),
        ("MAIL is out of step", Some((At::Mail, Act::Say("503 5.5.1 out of step"))), same),
        ("RCPT is out of step", Some((At::Rcpt, Act::Say("503 5.5.1 out of step"))), same),
        ("the end is out of step", Some((At::Dot, Act::Say("503 5.5.1 out of step"))), same),
        ("MAIL is refused, then dropped", Some((At::Mail, Act::Say("550 5.7.1 no"))), same),
        ("the message is refused, then dropped", Some((At::Dot, Act::Say("550 5.7.1 no"))), same),
    ];
    for pipelining in [false, true] {
        for (case, script, configure) in &cases {
            let peer = Peer::start(pipelining).await;
            if let Some((at, act)) = script {
                peer.once(*at, act.clone());
            }
            let smtp = configure(builder(&peer)).build().unwrap();
            assert_eq!(smtp.send(&mail()).await.is_err(), script.is_some(), "{case}");
            if *case == "it waited too long" {
                peer.until_open(0).await;
            }
            drop(smtp);
            peer.until_open(0).await;
            let heard = lines(&peer);
            assert_eq!(heard.last().map(String::as_str), Some("QUIT"), "{case}, pipelining: {pipelining}: {heard:?}");
        }
    }
}

/// Where the two sides are not in step, whatever is said now could be read as something else.
#[tokio::test]
async fn a_connection_out_of_step_is_closed_without_a_word() {
    let peer = Peer::start(true).await;
    let release = Arc::new(Notify::new());
    peer.once(At::Dot, Act::Hold(Arc::clone(&release)));
    let smtp = smtp(&peer);
    let mail = mail();
    tokio::select! {
        _ = smtp.send(&mail) => panic!("the answer was held back"),
        () = peer.until(|peer| peer.read() == 1) => {}
    }
    drop(smtp);
    release.notify_one();
    peer.until_open(0).await;
    assert!(!peer.heard_any("QUIT"));
}

/// From the wait for a connection until the message itself goes out, nothing can have been accepted, and the call says so.
#[tokio::test]
async fn a_call_waits_until_the_message_itself_goes_out() {
    for (at, waits) in
        [(At::Greeting, true), (At::Ehlo, true), (At::Mail, true), (At::Rcpt, true), (At::Data, true), (At::Dot, false)]
    {
        let peer = Peer::start(true).await;
        let release = Arc::new(Notify::new());
        peer.once(at, Act::Hold(Arc::clone(&release)));
        let smtp = smtp(&peer);
        let mail = mail();
        {
            let mut call = std::pin::pin!(smtp.send(&mail));
            tokio::select! {
                _ = &mut call => panic!("the answer was held back at {at:?}"),
                () = peer.until(|peer| peer.rules_left() == 0) => {}
            }
            assert_eq!(mail.is_waiting(), waits, "{at:?}");
            release.notify_one();
            call.await.unwrap();
        }
        assert!(!mail.is_waiting());
    }
    // And one that waits for a place.
    let peer = Peer::start(true).await;
    let release = Arc::new(Notify::new());
    peer.once(At::Dot, Act::Hold(Arc::clone(&release)));
    let smtp = builder(&peer).max_connections(1).build().unwrap();
    let (first, second) = (mail(), mail());
    let mut calls = std::pin::pin!(futures_util::future::join(smtp.send(&first), smtp.send(&second)));
    tokio::select! {
        _ = &mut calls => panic!("the answer was held back"),
        () = peer.until(|peer| peer.read() == 1) => {}
    }
    assert!(second.is_waiting() && !first.is_waiting());
}

/// Rules of one's own come first, also where what follows hangs on them.
#[tokio::test]
async fn a_rule_of_ones_own_decides_before_ours() {
    let peer = Peer::start(true).await;
    peer.times(2, At::Rcpt, Act::Say("550 5.1.1 Points used up, try again in 90 seconds"));
    let ours = smtp(&peer).send(&mail()).await.unwrap_err();
    assert_eq!((ours.class(), ours.scope()), (Class::Permanent, Scope::Message));
    let rule = Rule::new(Class::Transient, Scope::Transport)
        .at(Stage::Recipient)
        .says("points used")
        .retry_after(Duration::from_secs(3600));
    let smtp = builder(&peer).rule(rule.clone()).build().unwrap();
    let own = smtp.send(&mail()).await.unwrap_err();
    assert_eq!((own.class(), own.scope(), own.is_sure()), (Class::Transient, Scope::Transport, true));
    assert_eq!(own.retry_after(), Some(Duration::from_secs(90)), "the reply's own wait comes before the rule's");

    let never = Rule::new(Class::Permanent, Scope::Message).says("points used").unless("try again");
    let smtp = builder(&peer).rule(never).rule(rule).build().unwrap();
    let means = smtp.explain(Stage::Recipient, "550 5.1.1 Points used up, try again").unwrap();
    assert_eq!((means.class, means.retry_after), (Class::Transient, Some(Duration::from_secs(3600))));
    let means = smtp.explain(Stage::Mail, "550 5.1.1 Points used up").unwrap();
    assert_eq!((means.class, means.scope), (Class::Permanent, Scope::Message), "the first rule that holds decides");
}
