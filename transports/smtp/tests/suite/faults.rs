//! Every stage, every way to fail: what it means, and that the next message is carried as if nothing had been.

use std::time::Duration;

use postrider_smtp::{Credentials, Smtp, SmtpError, Stage, Timeouts, Tls};
use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Class, Failure, Outgoing, Scope, Transport};

use crate::support::{Act, At, Peer, assert_carried, builder, copies, email, mail, mail_to, outgoing, patient, smtp};
use crate::tls::Authority;

/// For the stages that the script lets stall.
const SHORT: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Later,
    Never,
    ShuttingDown,
    Close,
    Reset,
    Stall,
    Garbage,
    TwoCodes,
    Half,
    HalfAndStall,
}

const FAULTS: [Fault; 10] = [
    Fault::Later,
    Fault::Never,
    Fault::ShuttingDown,
    Fault::Close,
    Fault::Reset,
    Fault::Stall,
    Fault::Garbage,
    Fault::TwoCodes,
    Fault::Half,
    Fault::HalfAndStall,
];

impl Fault {
    fn act(self) -> Act {
        match self {
            Self::Later => Act::Say("451 4.7.1 not now"),
            Self::Never => Act::Say("550 5.7.1 not ever"),
            Self::ShuttingDown => Act::SayAndClose("421 4.3.2 closing"),
            Self::Close => Act::Close,
            Self::Reset => Act::Reset,
            Self::Stall => Act::Stall,
            Self::Garbage => Act::Say("I beg your pardon"),
            Self::TwoCodes => Act::Say("250-yes\r\n550 no"),
            Self::Half => Act::Half,
            Self::HalfAndStall => Act::HalfAndStall,
        }
    }

    fn is_stall(self) -> bool {
        matches!(self, Self::Stall | Self::HalfAndStall)
    }
}

/// Class, scope, in doubt.
type Expected = (Class, Scope, bool);

/// The table, in one place.
fn expected(at: At, fault: Fault) -> Expected {
    use Scope::{Message, Sender, Transport};
    match (at, fault) {
        (_, Fault::ShuttingDown) => (Transient, Transport, false),
        (At::Greeting, _) => (Transient, Transport, false),
        (At::Ehlo | At::StartTls | At::Auth, Fault::Never) => (Permanent, Transport, false),
        (At::Ehlo | At::StartTls | At::Auth, _) => (Transient, Transport, false),
        // Nothing but the sender has been named yet (RFC 5321 section 3.3).
        (At::Mail, Fault::Later) => (Transient, Sender, false),
        (At::Mail, Fault::Never) => (Permanent, Sender, false),
        (_, Fault::Later) => (Transient, Message, false),
        (_, Fault::Never) => (Permanent, Message, false),
        (At::Dot, _) => (Transient, Transport, true),
        _ => (Transient, Transport, false),
    }
}

/// Only the stage at hand is in a hurry.
fn timeouts(at: At, fault: Fault) -> Timeouts {
    let mut timeouts = patient();
    if fault.is_stall() {
        *match at {
            At::Greeting => &mut timeouts.greeting,
            At::Ehlo | At::Helo | At::StartTls | At::Rset => &mut timeouts.hello,
            At::Auth | At::AuthCommand => &mut timeouts.auth,
            At::Mail => &mut timeouts.mail,
            At::Rcpt | At::RcptNo(_) | At::RcptFrom(_) => &mut timeouts.rcpt,
            At::Data => &mut timeouts.data,
            At::Body => &mut timeouts.block,
            At::Dot => &mut timeouts.accept,
            At::Quit | At::Idle => &mut timeouts.quit,
        } = SHORT;
    }
    timeouts
}

fn is_as_expected(failure: &Failure, expected: Expected) -> bool {
    (failure.class(), failure.scope(), failure.in_doubt()) == expected
}

async fn next_is_right(peer: &Peer, smtp: &Smtp) {
    let next = mail_to(2);
    let receipt = smtp.send(&next).await.unwrap();
    assert!(receipt.refused.is_empty());
    assert_carried(peer, &next, &receipt, &["r0@example.org", "r1@example.org"]);
}

async fn plain_case(pipelining: bool, at: At, fault: Fault) {
    let case = format!("{at:?} {fault:?} pipelining: {pipelining}");
    let peer = Peer::start(pipelining).await;
    let smtp = builder(&peer).timeouts(timeouts(at, fault)).build().unwrap();
    peer.once(at, fault.act());
    let first = mail();
    let failure = smtp.send(&first).await.expect_err(&case);
    assert!(is_as_expected(&failure, expected(at, fault)), "{case}: {failure:?}");
    assert!(copies(&peer, &first) <= usize::from(failure.in_doubt()), "{case}");
    assert_eq!(peer.rules_left(), 0, "{case}");
    next_is_right(&peer, &smtp).await;
}

#[tokio::test]
async fn every_stage_and_fault_of_a_plain_dialogue() {
    let mut cases = tokio::task::JoinSet::new();
    for pipelining in [false, true] {
        for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::Dot] {
            for fault in FAULTS {
                cases.spawn(plain_case(pipelining, at, fault));
            }
        }
    }
    assert_eq!(cases.join_all().await.len(), 120);
}

#[tokio::test]
async fn every_fault_of_encryption_and_authentication() {
    let authority = Authority::new();
    let mut cases = tokio::task::JoinSet::new();
    for at in [At::StartTls, At::Auth] {
        for fault in FAULTS {
            let authority = authority.clone();
            cases.spawn(async move {
                let case = format!("{at:?} {fault:?}");
                let peer = Peer::builder()
                    .starttls(authority.acceptor("localhost"))
                    .offer("AUTH PLAIN")
                    .password("hunter2")
                    .start()
                    .await;
                let smtp = Smtp::builder("localhost")
                    .port(peer.port())
                    .tls(Tls::Required)
                    .root_certificate(authority.pem())
                    .credentials(Credentials::new("ada", "hunter2"))
                    .timeouts(timeouts(at, fault))
                    .build()
                    .unwrap();
                peer.once(at, fault.act());
                let failure = smtp.send(&mail()).await.expect_err(&case);
                assert!(is_as_expected(&failure, expected(at, fault)), "{case}: {failure:?}");
                assert_eq!(peer.rules_left(), 0, "{case}");
                next_is_right(&peer, &smtp).await;
            });
        }
    }
    assert_eq!(cases.join_all().await.len(), 20);
}

/// A refusal keeps the connection where both sides are in step; anything else costs it.
#[tokio::test]
async fn a_connection_survives_a_refusal_and_nothing_else() {
    for pipelining in [false, true] {
        for at in [At::Mail, At::Rcpt, At::Data, At::Dot] {
            for (fault, connections) in
                [(Fault::Later, 1), (Fault::Never, 1), (Fault::ShuttingDown, 2), (Fault::Garbage, 2)]
            {
                let peer = Peer::start(pipelining).await;
                let smtp = smtp(&peer);
                peer.once(at, fault.act());
                smtp.send(&mail()).await.unwrap_err();
                next_is_right(&peer, &smtp).await;
                assert_eq!(peer.connections(), connections, "{at:?} {fault:?} pipelining: {pipelining}");
            }
        }
    }
}

#[tokio::test]
async fn out_of_step_means_a_new_connection() {
    for (at, scope) in [(At::Mail, Scope::Transport), (At::Data, Scope::Transport), (At::Dot, Scope::Transport)] {
        let peer = Peer::start(true).await;
        let smtp = smtp(&peer);
        peer.once(at, Act::Say("503 5.5.1 not now"));
        let failure = smtp.send(&mail()).await.unwrap_err();
        assert!(is_as_expected(&failure, (Transient, scope, false)), "{at:?}: {failure:?}");
        next_is_right(&peer, &smtp).await;
        assert_eq!(peer.connections(), 2, "{at:?}");
    }
}

/// Success where it makes no sense is no success.
#[tokio::test]
async fn positive_answers_out_of_turn() {
    for (at, say, expected) in [
        (At::Ehlo, "354 go", (Transient, Scope::Transport, false)),
        (At::Mail, "354 go", (Transient, Scope::Transport, false)),
        (At::Rcpt, "354 go", (Transient, Scope::Transport, false)),
        (At::Data, "250 fine", (Transient, Scope::Transport, false)),
        (At::Dot, "354 go", (Transient, Scope::Transport, true)),
    ] {
        for pipelining in [false, true] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            peer.once(at, Act::Say(say));
            let failure = smtp.send(&mail()).await.unwrap_err();
            assert!(is_as_expected(&failure, expected), "{at:?}: {failure:?}");
            next_is_right(&peer, &smtp).await;
        }
    }
}

/// An answer too many must not become the answer to the next thing said.
#[tokio::test]
async fn an_answer_too_many() {
    for at in [At::Mail, At::Rcpt, At::Data] {
        for pipelining in [false, true] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            peer.once(at, Act::AlsoSay("250 2.0.0 and another thing"));
            peer.once(At::Dot, Act::Say("550 5.7.1 refused"));
            let first = mail();
            // Answers that are one behind may make a refusal look like another, but never like a success.
            smtp.send(&first).await.expect_err("carried what was refused, or might have been");
            assert_eq!(copies(&peer, &first), 0);
        }
    }
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    peer.once(At::Dot, Act::AlsoSay("250 2.0.0 and another thing"));
    let first = mail();
    let receipt = smtp.send(&first).await.unwrap();
    assert_carried(&peer, &first, &receipt, &["bob@example.org"]);
    next_is_right(&peer, &smtp).await;
    assert_eq!(peer.connections(), 2, "the connection was out of step and should not have been used again");
}

/// What happens at QUIT is of no concern to a message that was accepted.
#[tokio::test]
async fn faults_at_quit_harm_nothing() {
    for fault in FAULTS {
        let peer = Peer::start(true).await;
        let smtp = builder(&peer).max_messages_per_connection(1).timeouts(timeouts(At::Quit, fault)).build().unwrap();
        peer.once(At::Quit, fault.act());
        next_is_right(&peer, &smtp).await;
        next_is_right(&peer, &smtp).await;
        peer.until(|peer| peer.rules_left() == 0).await;
    }
}

#[tokio::test]
async fn nobody_listens() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    drop(peer);
    tokio::task::yield_now().await;
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert!(is_as_expected(&failure, (Transient, Scope::Transport, false)), "{failure:?}");
    assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::Connect);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let smtp = Smtp::builder("no-such-host.invalid").tls(Tls::None).timeouts(patient()).build().unwrap();
    let failure = smtp.send(&mail()).await.unwrap_err();
    assert!(is_as_expected(&failure, (Transient, Scope::Transport, false)), "{failure:?}");
}

/// Larger than what the buffers on the way hold, so that the message cannot have left as a whole.
fn large_mail() -> Outgoing<postrider_transport::Email> {
    let content = vec![b'x'; 12 << 20];
    let attachment = postrider_transport::Attachment::new("x.bin", "application/octet-stream", content).unwrap();
    outgoing(email().to("bob@example.org").attach(attachment).build().unwrap())
}

#[tokio::test]
async fn what_breaks_within_the_message_is_not_in_doubt() {
    let mail = large_mail();
    for (fault, expected) in
        [(Fault::Reset, (Transient, Scope::Transport, false)), (Fault::Stall, (Transient, Scope::Transport, false))]
    {
        let peer = Peer::start(true).await;
        let smtp = builder(&peer).timeouts(timeouts(At::Body, fault)).build().unwrap();
        peer.once(At::Body, fault.act());
        let failure = smtp.send(&mail).await.unwrap_err();
        assert!(is_as_expected(&failure, expected), "{fault:?}: {failure:?}");
        assert_eq!(failure.downcast_ref::<SmtpError>().unwrap().stage(), Stage::Body);
        assert_eq!(peer.accepted().len(), 0);
        next_is_right(&peer, &smtp).await;
    }
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    let receipt = smtp.send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
}

/// The text says where and what, and no more than that.
#[tokio::test]
async fn errors_name_the_stage_and_the_words_but_no_address() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    peer.once(At::Mail, Act::Say("530-5.7.0 <ada@example.com> Authentication\r\n530 5.7.0 required"));
    let failure = smtp.send(&mail()).await.unwrap_err();
    let error = failure.downcast_ref::<SmtpError>().unwrap();
    assert_eq!(error.to_string(), "MAIL FROM was refused: 530 5.7.0 <a***@example.com> Authentication 5.7.0 required");
    assert_eq!((error.stage(), error.code()), (Stage::Mail, Some(530)));
    assert!(!format!("{error:?} {failure:?} {failure}").contains("ada@"));
    assert_eq!(failure.reply(), Some("530-5.7.0 <ada@example.com> Authentication\n530 5.7.0 required"));
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Transport));
}
