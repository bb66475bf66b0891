//! Every fault at every stage: what it means, and that the next message is delivered.

use std::time::Duration;

use postrider_smtp::{Credentials, Smtp, SmtpError, Stage, Timeouts, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Class, Failure, Outgoing, Scope, Transport};

use crate::support::{
    Action, At, TestServer, assert_delivered, builder, count_copies, email, long_timeouts, mail, mail_to, outgoing,
    smtp,
};
use crate::tls::Authority;

/// The limit of a stage that stalls.
const SHORT: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Transient,
    Permanent,
    ShuttingDown,
    Close,
    Reset,
    Stall,
    NotAReply,
    MixedCodes,
    PartialReply,
    PartialReplyAndStall,
}

const FAULTS: [Fault; 10] = [
    Fault::Transient,
    Fault::Permanent,
    Fault::ShuttingDown,
    Fault::Close,
    Fault::Reset,
    Fault::Stall,
    Fault::NotAReply,
    Fault::MixedCodes,
    Fault::PartialReply,
    Fault::PartialReplyAndStall,
];

impl Fault {
    fn action(self) -> Action {
        match self {
            Self::Transient => Action::Reply("451 4.7.1 not now"),
            Self::Permanent => Action::Reply("550 5.7.1 not ever"),
            Self::ShuttingDown => Action::ReplyAndClose("421 4.3.2 closing"),
            Self::Close => Action::Close,
            Self::Reset => Action::Reset,
            Self::Stall => Action::Stall,
            Self::NotAReply => Action::Reply("I beg your pardon"),
            Self::MixedCodes => Action::Reply("250-yes\r\n550 no"),
            Self::PartialReply => Action::PartialReplyAndClose,
            Self::PartialReplyAndStall => Action::PartialReplyAndStall,
        }
    }

    fn is_stall(self) -> bool {
        matches!(self, Self::Stall | Self::PartialReplyAndStall)
    }
}

/// Class, scope, in doubt.
type Expected = (Class, Scope, bool);

fn expected(at: At, fault: Fault) -> Expected {
    use Scope::{Message, Sender, Transport};
    match (at, fault) {
        (_, Fault::ShuttingDown) => (Transient, Transport, false),
        (At::Greeting, _) => (Transient, Transport, false),
        (At::Ehlo | At::StartTls | At::Auth, Fault::Permanent) => (Permanent, Transport, false),
        (At::Ehlo | At::StartTls | At::Auth, _) => (Transient, Transport, false),
        // MAIL FROM names the sender only (RFC 5321 section 3.3).
        (At::Mail, Fault::Transient) => (Transient, Sender, false),
        (At::Mail, Fault::Permanent) => (Permanent, Sender, false),
        (_, Fault::Transient) => (Transient, Message, false),
        (_, Fault::Permanent) => (Permanent, Message, false),
        (At::EndOfData, _) => (Transient, Transport, true),
        _ => (Transient, Transport, false),
    }
}

/// Long timeouts, but a short one at the stage that stalls.
fn timeouts(at: At, fault: Fault) -> Timeouts {
    let mut timeouts = long_timeouts();
    if fault.is_stall() {
        *match at {
            At::Greeting => &mut timeouts.greeting,
            At::Ehlo | At::Helo | At::StartTls | At::Rset => &mut timeouts.hello,
            At::Auth | At::AuthCommand => &mut timeouts.auth,
            At::Mail => &mut timeouts.mail,
            At::Rcpt | At::RcptNumber(_) | At::RcptsFrom(_) => &mut timeouts.rcpt,
            At::Data => &mut timeouts.data,
            At::Body => &mut timeouts.block,
            At::EndOfData => &mut timeouts.accept,
            At::Quit | At::Idle => &mut timeouts.quit,
        } = SHORT;
    }
    timeouts
}

fn is_expected(failure: &Failure, expected: Expected) -> bool {
    (failure.class(), failure.scope(), failure.in_doubt()) == expected
}

async fn assert_next_delivered(server: &TestServer, smtp: &Smtp) {
    let next = mail_to(2);
    let receipt = smtp.send(&next).await.unwrap();
    assert!(receipt.refused.is_empty());
    assert_delivered(server, &next, &receipt, &["r0@example.org", "r1@example.org"]);
}

async fn assert_fault(pipelining: bool, at: At, fault: Fault) {
    let case = format!("{at:?} {fault:?} pipelining: {pipelining}");
    let server = TestServer::start(pipelining).await;
    let smtp = builder(&server).timeouts(timeouts(at, fault)).build().unwrap();
    server.once(at, fault.action());
    let first = mail();
    let failure = smtp.send(&first).await.expect_err(&case);
    assert!(is_expected(&failure, expected(at, fault)), "{case}: {failure:?}");
    assert!(count_copies(&server, &first) <= usize::from(failure.in_doubt()), "{case}");
    assert_eq!(server.actions_left(), 0, "{case}");
    assert_next_delivered(&server, &smtp).await;
}

#[tokio::test]
async fn every_fault_at_every_stage_without_tls() {
    let mut cases = tokio::task::JoinSet::new();
    for pipelining in [false, true] {
        for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::EndOfData] {
            for fault in FAULTS {
                cases.spawn(assert_fault(pipelining, at, fault));
            }
        }
    }
    assert_eq!(cases.join_all().await.len(), 120);
}

#[tokio::test]
async fn every_fault_at_starttls_and_auth() {
    let authority = Authority::new();
    let mut cases = tokio::task::JoinSet::new();
    for at in [At::StartTls, At::Auth] {
        for fault in FAULTS {
            let authority = authority.clone();
            cases.spawn(async move {
                let case = format!("{at:?} {fault:?}");
                let server = TestServer::builder()
                    .starttls(authority.acceptor("localhost"))
                    .offer("AUTH PLAIN")
                    .password("hunter2")
                    .start()
                    .await;
                let smtp = Smtp::builder("localhost")
                    .port(server.port())
                    .tls(Tls::Required)
                    .root_certificate(authority.pem())
                    .credentials(Credentials::new("ada", "hunter2"))
                    .timeouts(timeouts(at, fault))
                    .build()
                    .unwrap();
                server.once(at, fault.action());
                let failure = smtp.send(&mail()).await.expect_err(&case);
                assert!(is_expected(&failure, expected(at, fault)), "{case}: {failure:?}");
                assert_eq!(server.actions_left(), 0, "{case}");
                assert_next_delivered(&server, &smtp).await;
            });
        }
    }
    assert_eq!(cases.join_all().await.len(), 20);
}

/// A refusal keeps both sides in sync. Anything else ends the connection.
#[tokio::test]
async fn a_connection_survives_a_refusal_and_nothing_else() {
    for pipelining in [false, true] {
        for at in [At::Mail, At::Rcpt, At::Data, At::EndOfData] {
            for (fault, connections) in
                [(Fault::Transient, 1), (Fault::Permanent, 1), (Fault::ShuttingDown, 2), (Fault::NotAReply, 2)]
            {
                let server = TestServer::start(pipelining).await;
                let smtp = smtp(&server);
                server.once(at, fault.action());
                smtp.send(&mail()).await.unwrap_err();
                assert_next_delivered(&server, &smtp).await;
                assert_eq!(server.connections(), connections, "{at:?} {fault:?} pipelining: {pipelining}");
            }
        }
    }
}

#[tokio::test]
async fn bad_sequence_ends_the_connection() {
    for (at, scope) in [(At::Mail, Scope::Transport), (At::Data, Scope::Transport), (At::EndOfData, Scope::Transport)] {
        let server = TestServer::start(true).await;
        let smtp = smtp(&server);
        server.once(at, Action::Reply("503 5.5.1 not now"));
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert!(is_expected(&failure, (Transient, scope, false)), "{at:?}: {failure:?}");
        assert_next_delivered(&server, &smtp).await;
        assert_eq!(server.connections(), 2, "{at:?}");
    }
}

#[tokio::test]
async fn an_unexpected_positive_reply_is_no_success() {
    for (at, reply, expected) in [
        (At::Ehlo, "354 go", (Transient, Scope::Transport, false)),
        (At::Mail, "354 go", (Transient, Scope::Transport, false)),
        (At::Rcpt, "354 go", (Transient, Scope::Transport, false)),
        (At::Data, "250 fine", (Transient, Scope::Transport, false)),
        (At::EndOfData, "354 go", (Transient, Scope::Transport, true)),
    ] {
        for pipelining in [false, true] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            server.once(at, Action::Reply(reply));
            let failure = smtp.send(&mail()).await.unwrap_err();
            assert!(is_expected(&failure, expected), "{at:?}: {failure:?}");
            assert_next_delivered(&server, &smtp).await;
        }
    }
}

/// An extra reply must not count as the reply to the next command.
#[tokio::test]
async fn an_extra_reply_never_counts_as_success() {
    for at in [At::Mail, At::Rcpt, At::Data] {
        for pipelining in [false, true] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            server.once(at, Action::ExtraReply("250 2.0.0 and another thing"));
            server.once(At::EndOfData, Action::Reply("550 5.7.1 refused"));
            let first = mail();
            // If each reply answers the command before, a refusal may become another refusal, but never a success.
            smtp.send(&first).await.expect_err("a refused message counted as sent");
            assert_eq!(count_copies(&server, &first), 0);
        }
    }
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    server.once(At::EndOfData, Action::ExtraReply("250 2.0.0 and another thing"));
    let first = mail();
    let receipt = smtp.send(&first).await.unwrap();
    assert_delivered(&server, &first, &receipt, &["bob@example.org"]);
    assert_next_delivered(&server, &smtp).await;
    assert_eq!(server.connections(), 2, "a connection out of sync was used again");
}

/// A fault at QUIT does not concern a message that was accepted.
#[tokio::test]
async fn faults_at_quit_do_no_harm() {
    for fault in FAULTS {
        let server = TestServer::start(true).await;
        let smtp = builder(&server).max_messages_per_connection(1).timeouts(timeouts(At::Quit, fault)).build().unwrap();
        server.once(At::Quit, fault.action());
        assert_next_delivered(&server, &smtp).await;
        assert_next_delivered(&server, &smtp).await;
        server.wait_until(|server| server.actions_left() == 0).await;
    }
}

#[tokio::test]
async fn connection_refused() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    drop(server);
    tokio::task::yield_now().await;
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert!(is_expected(&failure, (Transient, Scope::Transport, false)), "{failure:?}");
    assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::Connect);
}

#[tokio::test]
async fn an_unknown_host_name() {
    let smtp = Smtp::builder("no-such-host.invalid").tls(Tls::None).timeouts(long_timeouts()).build().unwrap();
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert!(is_expected(&failure, (Transient, Scope::Transport, false)), "{failure:?}");
}

/// Larger than the buffers between client and server, so that it cannot be written as a whole.
fn large_mail() -> Outgoing<postrider_transport::Email> {
    let content = vec![b'x'; 12 << 20];
    let attachment = postrider_transport::Attachment::new("x.bin", "application/octet-stream", content).unwrap();
    outgoing(email().to("bob@example.org").attach(attachment).build().unwrap())
}

#[tokio::test]
async fn a_failure_within_the_message_is_not_in_doubt() {
    let mail = large_mail();
    for (fault, expected) in
        [(Fault::Reset, (Transient, Scope::Transport, false)), (Fault::Stall, (Transient, Scope::Transport, false))]
    {
        let server = TestServer::start(true).await;
        let smtp = builder(&server).timeouts(timeouts(At::Body, fault)).build().unwrap();
        server.once(At::Body, fault.action());
        let failure = smtp.send(&mail).await.unwrap_err();
        assert!(is_expected(&failure, expected), "{fault:?}: {failure:?}");
        assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::Body);
        assert_eq!(server.accepted().len(), 0);
        assert_next_delivered(&server, &smtp).await;
    }
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    let receipt = smtp.send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
}

#[tokio::test]
async fn errors_show_the_stage_and_the_reply_but_no_address() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    server.once(At::Mail, Action::Reply("530-5.7.0 <ada@example.com> Authentication\r\n530 5.7.0 required"));
    let failure = smtp.send(&mail()).await.unwrap_err();
    let error = failure.downcast_ref::<SmtpError>().unwrap();
    assert_eq!(error.to_string(), "MAIL FROM was refused: 530 5.7.0 <a***@example.com> Authentication 5.7.0 required");
    assert_eq!((error.stage(), error.code()), (Stage::Mail, Some(530)));
    assert!(!format!("{error:?} {failure:?} {failure}").contains("ada@"));
    assert_eq!(failure.reply(), Some("530-5.7.0 <ada@example.com> Authentication\n530 5.7.0 required"));
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
}
