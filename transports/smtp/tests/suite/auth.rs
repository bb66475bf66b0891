//! Credentials: shown in the way that the server understands, and to nobody else.

use postrider_smtp::{AuthMechanism, Credentials, Smtp, SmtpBuilder, SmtpConfigError, SmtpError, Stage, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Scope, Transport};

use crate::support::{Act, At, Peer, assert_carried, mail, patient};

const SECRET: &str = "hunter2-and-more";

fn to(peer: &Peer, secret: &str) -> SmtpBuilder {
    let credentials = Credentials::new("ada@example.com", secret);
    Smtp::builder("127.0.0.1").port(peer.port()).tls(Tls::None).credentials(credentials).timeouts(patient())
}

async fn peer(offer: &'static str) -> Peer {
    Peer::builder().offer(offer).password(SECRET).start().await
}

#[tokio::test]
async fn the_best_mechanism_that_both_know() {
    for (offer, asked, used) in [
        ("AUTH PLAIN LOGIN", None, "AUTH PLAIN "),
        ("AUTH LOGIN PLAIN XOAUTH2", None, "AUTH PLAIN "),
        ("AUTH LOGIN", None, "AUTH LOGIN"),
        ("AUTH=LOGIN", None, "AUTH LOGIN"),
        ("AUTH PLAIN LOGIN", Some(AuthMechanism::Login), "AUTH LOGIN"),
        ("AUTH PLAIN XOAUTH2", Some(AuthMechanism::XOAuth2), "AUTH XOAUTH2 "),
    ] {
        let peer = peer(offer).await;
        let mut builder = to(&peer, SECRET);
        if let Some(mechanism) = asked {
            builder = builder.auth_mechanism(mechanism);
        }
        let smtp = builder.build().unwrap();
        let mail = mail();
        let receipt = smtp.send(&mail).await.unwrap();
        assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        assert!(peer.heard_any(used), "{offer}: {:?}", peer.heard());
    }
}

#[tokio::test]
async fn a_wrong_password_is_the_transports_fault_and_is_not_repeated() {
    let wrong = "wrong-hunter2-password";
    for (offer, asked) in [
        ("AUTH PLAIN", AuthMechanism::Plain),
        ("AUTH LOGIN", AuthMechanism::Login),
        ("AUTH XOAUTH2", AuthMechanism::XOAuth2),
    ] {
        // The peer wants another one, and repeats in its answer what it was told.
        let peer = peer(offer).await;
        let smtp = to(&peer, wrong).auth_mechanism(asked).build().unwrap();
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Permanent, Scope::Transport, false));
        let error = failure.downcast_ref::<SmtpError>().unwrap();
        assert_eq!((error.stage(), error.code()), (Stage::Auth, Some(535)));
        let shown = format!("{failure} {failure:?} {error} {error:?} {:?} {smtp:?}", failure.reply());
        assert!(!shown.contains(wrong), "{shown}");
        for word in shown.split([' ', '"', '(', ')', '\n']) {
            assert!(!crate::support::decode(word).contains(wrong), "{word} in {shown}");
        }
        assert!(!peer.heard_any("MAIL"));
    }
}

#[tokio::test]
async fn who_waits_for_a_server_that_says_nothing_waits_once() {
    let peer = peer("AUTH PLAIN").await;
    peer.times(8, At::Greeting, Act::Stall);
    let mut timeouts = patient();
    timeouts.greeting = std::time::Duration::from_millis(300);
    let smtp = to(&peer, SECRET).timeouts(timeouts).max_connections(8).build().unwrap();
    let mails: Vec<_> = (0..8).map(|_| mail()).collect();
    for send in futures_util::future::join_all(mails.iter().map(|mail| smtp.send(mail))).await {
        let error = send.unwrap_err();
        let error = error.downcast_ref::<SmtpError>().unwrap();
        assert!(error.is_timeout() && error.stage() == Stage::Greeting, "{error:?}");
    }
    assert_eq!(peer.connections(), 1, "they wait behind each other's silence");
}

#[tokio::test]
async fn many_messages_do_not_make_many_wrong_passwords() {
    let peer = peer("AUTH PLAIN").await;
    let logins = |peer: &Peer| peer.heard().iter().filter(|heard| heard.line.starts_with("AUTH")).count();
    let wrong = to(&peer, "wrong-hunter2-password").build().unwrap();
    for round in 1..=2 {
        let mails: Vec<_> = (0..20).map(|_| mail()).collect();
        let sends = futures_util::future::join_all(mails.iter().map(|mail| wrong.send(mail))).await;
        for failure in sends.into_iter().map(Result::unwrap_err) {
            assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
            assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().code(), Some(535));
        }
        assert_eq!(logins(&peer), round, "each round of messages tries the password once");
    }
    // The right one is tried by one as well, and then by as many as there are.
    let right = to(&peer, SECRET).max_connections(4).build().unwrap();
    let mails: Vec<_> = (0..20).map(|_| mail()).collect();
    for sent in futures_util::future::join_all(mails.iter().map(|mail| right.send(mail))).await {
        sent.unwrap();
    }
    assert!(logins(&peer) <= 2 + 4);
}

#[tokio::test]
async fn no_mechanism_in_common() {
    for (offer, asked) in [
        ("AUTH CRAM-MD5 XOAUTH2", None),
        ("SIZE 1000000", None),
        ("AUTH PLAIN", Some(AuthMechanism::XOAuth2)),
        ("AUTH LOGIN", Some(AuthMechanism::Plain)),
    ] {
        let peer = peer(offer).await;
        let mut builder = to(&peer, SECRET);
        if let Some(mechanism) = asked {
            builder = builder.auth_mechanism(mechanism);
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport), "{offer}");
        assert!(!peer.heard_any("AUTH") && !peer.heard_any("MAIL"));
    }
}

#[tokio::test]
async fn temporary_trouble_with_the_directory_is_temporary() {
    for say in ["454 4.7.0 no directory", "432 4.7.12 change the password first", "451 4.3.0 later"] {
        let peer = peer("AUTH PLAIN").await;
        let smtp = to(&peer, SECRET).build().unwrap();
        peer.once(At::Auth, Act::Say(say));
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport), "{say}");
        smtp.send(&mail()).await.unwrap();
    }
}

#[test]
fn marks_of_the_mechanisms_are_not_taken_for_credentials() {
    for (username, secret) in [("", "b"), ("a\0b", "c"), ("a", "b\0c"), ("a", "b\u{1}auth=Bearer c"), ("a\r\n", "b")] {
        let built = Smtp::builder("localhost").credentials(Credentials::new(username, secret)).build();
        assert_eq!(built.map(|_| ()), Err(SmtpConfigError::Credentials));
    }
}

#[test]
fn credentials_show_nothing() {
    let shown = format!("{:?}", Credentials::new("ada@example.com", SECRET));
    assert!(!shown.contains("ada") && !shown.contains("hunter2"), "{shown}");
}
