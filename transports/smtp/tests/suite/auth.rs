//! Authentication, and that nothing shows the credentials.

use postrider_smtp::{AuthMechanism, Credentials, Smtp, SmtpBuilder, SmtpConfigError, SmtpError, Stage, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Scope, Transport};

use crate::support::{Action, At, TestServer, assert_delivered, long_timeouts, mail};

const SECRET: &str = "hunter2-and-more";

fn to(server: &TestServer, secret: &str) -> SmtpBuilder {
    let credentials = Credentials::new("ada@example.com", secret);
    Smtp::builder("127.0.0.1").port(server.port()).tls(Tls::None).credentials(credentials).timeouts(long_timeouts())
}

async fn server(offer: &'static str) -> TestServer {
    TestServer::builder().offer(offer).password(SECRET).start().await
}

#[tokio::test]
async fn the_first_common_mechanism_is_used() {
    for (offer, configured, used) in [
        ("AUTH PLAIN LOGIN", None, "AUTH PLAIN "),
        ("AUTH LOGIN PLAIN XOAUTH2", None, "AUTH PLAIN "),
        ("AUTH LOGIN", None, "AUTH LOGIN"),
        ("AUTH=LOGIN", None, "AUTH LOGIN"),
        ("AUTH PLAIN LOGIN", Some(AuthMechanism::Login), "AUTH LOGIN"),
        ("AUTH PLAIN XOAUTH2", Some(AuthMechanism::XOAuth2), "AUTH XOAUTH2 "),
    ] {
        let server = server(offer).await;
        let mut builder = to(&server, SECRET);
        if let Some(mechanism) = configured {
            builder = builder.auth_mechanism(mechanism);
        }
        let smtp = builder.build().unwrap();
        let mail = mail();
        let receipt = smtp.send(&mail).await.unwrap();
        assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        assert!(server.received_any(used), "{offer}: {:?}", server.received());
    }
}

#[tokio::test]
async fn a_wrong_password_blames_the_transport_and_is_not_shown() {
    let wrong = "wrong-hunter2-password";
    for (offer, configured) in [
        ("AUTH PLAIN", AuthMechanism::Plain),
        ("AUTH LOGIN", AuthMechanism::Login),
        ("AUTH XOAUTH2", AuthMechanism::XOAuth2),
    ] {
        // The server expects another password, and repeats in its reply what it received.
        let server = server(offer).await;
        let smtp = to(&server, wrong).auth_mechanism(configured).build().unwrap();
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Permanent, Scope::Transport, false));
        let error = failure.downcast_ref::<SmtpError>().unwrap();
        assert_eq!((error.stage(), error.code()), (Stage::Auth, Some(535)));
        let shown = format!("{failure} {failure:?} {error} {error:?} {:?} {smtp:?}", failure.reply());
        assert!(!shown.contains(wrong), "{shown}");
        for word in shown.split([' ', '"', '(', ')', '\n']) {
            assert!(!crate::support::decode_base64(word).contains(wrong), "{word} in {shown}");
        }
        assert!(!server.received_any("MAIL"));
    }
}

#[tokio::test]
async fn a_silent_server_costs_one_timeout_for_all_calls() {
    let server = server("AUTH PLAIN").await;
    server.times(8, At::Greeting, Action::Stall);
    let mut timeouts = long_timeouts();
    timeouts.greeting = std::time::Duration::from_millis(300);
    let smtp = to(&server, SECRET).timeouts(timeouts).max_connections(8).build().unwrap();
    let mails: Vec<_> = (0..8).map(|_| mail()).collect();
    for send in futures_util::future::join_all(mails.iter().map(|mail| smtp.send(mail))).await {
        let error = send.unwrap_err();
        let error = error.downcast_ref::<SmtpError>().unwrap();
        assert!(error.is_timeout() && error.stage() == Stage::Greeting, "{error:?}");
    }
    assert_eq!(server.connections(), 1, "each call waited for its own timeout");
}

#[tokio::test]
async fn many_messages_cause_one_failed_login() {
    let server = server("AUTH PLAIN").await;
    let logins =
        |server: &TestServer| server.received().iter().filter(|received| received.line.starts_with("AUTH")).count();
    let wrong = to(&server, "wrong-hunter2-password").build().unwrap();
    for round in 1..=2 {
        let mails: Vec<_> = (0..20).map(|_| mail()).collect();
        let sends = futures_util::future::join_all(mails.iter().map(|mail| wrong.send(mail))).await;
        for failure in sends.into_iter().map(Result::unwrap_err) {
            assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
            assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().code(), Some(535));
        }
        assert_eq!(logins(&server), round, "a round of messages tried the password more than once");
    }
    // One connection tries the right password as well. The others follow.
    let right = to(&server, SECRET).max_connections(4).build().unwrap();
    let mails: Vec<_> = (0..20).map(|_| mail()).collect();
    for sent in futures_util::future::join_all(mails.iter().map(|mail| right.send(mail))).await {
        sent.unwrap();
    }
    assert!(logins(&server) <= 2 + 4);
}

#[tokio::test]
async fn no_common_mechanism_is_permanent() {
    for (offer, configured) in [
        ("AUTH CRAM-MD5 XOAUTH2", None),
        ("SIZE 1000000", None),
        ("AUTH PLAIN", Some(AuthMechanism::XOAuth2)),
        ("AUTH LOGIN", Some(AuthMechanism::Plain)),
    ] {
        let server = server(offer).await;
        let mut builder = to(&server, SECRET);
        if let Some(mechanism) = configured {
            builder = builder.auth_mechanism(mechanism);
        }
        let failure = builder.build().unwrap().send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport), "{offer}");
        assert!(!server.received_any("AUTH") && !server.received_any("MAIL"));
    }
}

#[tokio::test]
async fn a_transient_auth_failure_is_transient() {
    for reply in ["454 4.7.0 no directory", "432 4.7.12 change the password first", "451 4.3.0 later"] {
        let server = server("AUTH PLAIN").await;
        let smtp = to(&server, SECRET).build().unwrap();
        server.once(At::Auth, Action::Reply(reply));
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Transient, Scope::Transport), "{reply}");
        smtp.send(&mail()).await.unwrap();
    }
}

#[test]
fn credentials_with_control_characters_are_rejected() {
    for (username, secret) in [("", "b"), ("a\0b", "c"), ("a", "b\0c"), ("a", "b\u{1}auth=Bearer c"), ("a\r\n", "b")] {
        let built = Smtp::builder("localhost").credentials(Credentials::new(username, secret)).build();
        assert_eq!(built.map(|_| ()), Err(SmtpConfigError::Credentials));
    }
}

#[test]
fn debug_hides_credentials() {
    let shown = format!("{:?}", Credentials::new("ada@example.com", SECRET));
    assert!(!shown.contains("ada") && !shown.contains("hunter2"), "{shown}");
}
