//! Each recipient has its own reply.

use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Class, Recipient, Refusal, Scope, Transport};

use crate::support::{Action, At, TestServer, assert_delivered, count_copies, email, mail, mail_to, outgoing, smtp};

fn summary(refused: &[Refusal]) -> Vec<(&str, Class, &str)> {
    refused.iter().map(|refusal| (refusal.recipient.as_str(), refusal.class, refusal.reply.as_str())).collect()
}

#[tokio::test]
async fn one_refused_recipient_does_not_stop_the_others() {
    for pipelining in [false, true] {
        for (reply, class) in [
            ("550 5.1.1 unknown", Permanent),
            ("450 4.2.0 greylisted", Transient),
            ("552 5.2.2 full", Permanent),
            ("530 5.7.0 not from you", Transient),
            ("550 5.1.8 not from this sender", Transient),
        ] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            server.once(At::RcptNumber(1), Action::Reply(reply));
            let mail = mail_to(3);
            let receipt = smtp.send(&mail).await.unwrap();
            assert_eq!(summary(&receipt.refused), [("r1@example.org", class, reply)]);
            assert_delivered(&server, &mail, &receipt, &["r0@example.org", "r2@example.org"]);
        }
    }
}

/// RFC 5321 section 4.5.3.1.10: the accepted recipients get the mail, and the rest goes into another transaction. Most of the rest is
/// not sent, since servers count recipients beyond their limit as errors.
#[tokio::test]
async fn too_many_recipients_leave_the_rest_for_another_transaction() {
    for (pipelining, reply, max_sent) in [
        (true, "452 4.5.3 Error: too many recipients", 300),
        (true, "552 too many recipients", 300),
        (true, "452 4.5.3 Your message has too many recipients.", 300),
        (false, "452 4.5.3 Error: too many recipients", 251),
        (false, "452 enough", 251),
    ] {
        let server = TestServer::start(pipelining).await;
        let smtp = smtp(&server);
        server.times(10_000, At::RcptsFrom(250), Action::Reply(reply));
        let mail = mail_to(1_000);
        let receipt = smtp.send(&mail).await.unwrap();
        assert_eq!(server.accepted()[0].recipients.len(), 250);
        assert_eq!(receipt.refused.len(), 750, "the refusals are not the recipients that were not accepted");
        assert!(receipt.refused.iter().all(|refusal| (refusal.class, refusal.sure) == (Transient, true)));
        let received = server.received().iter().filter(|received| received.line.starts_with("RCPT")).count();
        // Until the end of the group with the first refusal. The groups have MAIL and 99 recipients, and then 100 recipients each.
        assert!(received <= max_sent, "{received} recipients were sent after too many");
        let rest: Vec<Recipient> = receipt.refused.into_iter().map(|refusal| refusal.recipient).collect();
        assert_eq!(rest[0].as_str(), "r250@example.org");
        let rest = mail.with_recipients(rest);
        let receipt = smtp.send(&rest).await.unwrap();
        assert_eq!((server.accepted()[1].recipients.len(), receipt.refused.len()), (250, 500));
    }
}

/// The server accepts no recipient, so a further transaction would not help.
#[tokio::test]
async fn too_many_recipients_from_the_first_one_fails() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    server.times(10, At::Rcpt, Action::Reply("452 4.5.3 Error: too many recipients"));
    let failure = smtp.send(&mail_to(10)).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope(), failure.refused().len()), (Transient, Scope::Message, 10));
}

/// One call may have this many recipients. Its cost is linear in their number.
#[tokio::test]
async fn each_of_ten_thousand_refusals_is_named_once() {
    for reply in ["550 5.1.1 unknown", "450 4.2.0 greylisted"] {
        let server = TestServer::start(true).await;
        let smtp = smtp(&server);
        server.times(100_000, At::RcptsFrom(1), Action::Reply(reply));
        let receipt = smtp.send(&mail_to(10_000)).await.unwrap();
        assert_eq!(receipt.refused.len(), 9_999);
        assert!(
            receipt
                .refused
                .iter()
                .zip(1..)
                .all(|(refusal, number)| { refusal.recipient.as_str() == format!("r{number}@example.org") })
        );
    }
}

#[tokio::test]
async fn all_recipients_refused() {
    for pipelining in [false, true] {
        for (first, second, class, scope) in [
            ("550 5.1.1 a", "550 5.1.1 b", Permanent, Scope::Message),
            ("550 5.1.1 a", "450 4.2.0 b", Transient, Scope::Message),
            ("450 4.2.0 a", "550 5.1.1 b", Transient, Scope::Message),
            ("530 5.7.0 a", "530 5.7.0 b", Permanent, Scope::Transport),
            ("454 4.7.0 a", "454 4.7.0 b", Transient, Scope::Transport),
            ("530 5.7.0 a", "550 5.1.1 b", Transient, Scope::Message),
            ("550 5.1.8 a", "550 5.1.8 b", Permanent, Scope::Sender),
            ("550 5.1.8 a", "530 5.7.0 b", Transient, Scope::Message),
        ] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            server.once(At::RcptNumber(0), Action::Reply(first));
            server.once(At::RcptNumber(1), Action::Reply(second));
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!(
                (failure.class(), failure.scope(), failure.in_doubt()),
                (class, scope, false),
                "{first} {second}"
            );
            let replies: Vec<_> = failure.refused().iter().map(|refusal| refusal.reply.as_str()).collect();
            assert_eq!(replies, [first, second]);
            assert!(failure.refused().iter().zip([first, second]).all(|(refusal, reply)| {
                refusal.class == if reply.starts_with("550 5.1.1") { Permanent } else { Transient }
            }));
            // The transaction without recipients is reset.
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
            assert_eq!(server.connections(), 1);
        }
    }
}

/// RFC 2920 section 3.1: a server may accept DATA although it accepted no recipient.
#[tokio::test]
async fn all_recipients_refused_but_data_accepted() {
    for (dot, connections) in [(None, 1), (Some(Action::Reply("250 2.0.0 Ok")), 1), (Some(Action::Close), 2)] {
        let server = TestServer::start(true).await;
        let smtp = smtp(&server);
        server.once(At::Rcpt, Action::Reply("550 5.1.1 unknown"));
        server.once(At::Data, Action::Reply("354 go ahead"));
        if let Some(action) = dot {
            server.once(At::EndOfData, action);
        }
        let first = mail();
        let failure = smtp.send(&first).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Permanent, Scope::Message, false));
        assert_eq!(summary(failure.refused()), [("bob@example.org", Permanent, "550 5.1.1 unknown")]);
        assert_eq!(count_copies(&server, &first), 0);
        let next = mail();
        let receipt = smtp.send(&next).await.unwrap();
        assert_delivered(&server, &next, &receipt, &["bob@example.org"]);
        assert_eq!(server.connections(), connections);
    }
}

#[tokio::test]
async fn a_refused_message_names_each_recipient() {
    for at in [At::Data, At::EndOfData] {
        for (rcpt, end, class) in [
            ("450 4.2.0 greylisted", "550 5.7.1 spam", Transient),
            ("550 5.1.1 unknown", "451 4.7.1 later", Transient),
            ("550 5.1.1 unknown", "550 5.7.1 spam", Permanent),
        ] {
            let server = TestServer::start(true).await;
            let smtp = smtp(&server);
            server.once(At::RcptNumber(0), Action::Reply(rcpt));
            server.once(at, Action::Reply(end));
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!((failure.class(), failure.scope()), (class, Scope::Message));
            assert_eq!(failure.reply(), Some(end));
            let of = |reply: &str| if reply.starts_with('5') { Permanent } else { Transient };
            let expected = [("r0@example.org", of(rcpt), rcpt), ("r1@example.org", of(end), end)];
            assert_eq!(summary(failure.refused()), expected);
        }
    }
}

#[tokio::test]
async fn a_refused_recipient_is_named_after_a_later_failure() {
    for pipelining in [false, true] {
        for (at, action, scope, in_doubt) in [
            (At::RcptNumber(1), Action::Close, Scope::Transport, false),
            (At::Data, Action::ReplyAndClose("421 4.3.2 closing"), Scope::Transport, false),
            (At::Data, Action::Close, Scope::Transport, false),
            (At::Data, Action::Reply("250 what"), Scope::Transport, false),
            (At::EndOfData, Action::Reply("454 4.7.0 too fast"), Scope::Transport, false),
            (At::EndOfData, Action::Close, Scope::Transport, true),
            (At::EndOfData, Action::Reply("354 what"), Scope::Transport, true),
        ] {
            let server = TestServer::start(pipelining).await;
            let smtp = smtp(&server);
            server.once(At::RcptNumber(0), Action::Reply("550 5.1.1 unknown"));
            server.once(at, action);
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Transient, scope, in_doubt), "{at:?}");
            assert_eq!(summary(failure.refused()), [("r0@example.org", Permanent, "550 5.1.1 unknown")], "{at:?}");
        }
    }
}

#[tokio::test]
async fn bad_sequence_at_one_recipient_ends_the_connection_only() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    server.once(At::RcptNumber(0), Action::Reply("503 5.5.1 bad sequence"));
    let first = mail_to(2);
    let receipt = smtp.send(&first).await.unwrap();
    assert_eq!(summary(&receipt.refused), [("r0@example.org", Transient, "503 5.5.1 bad sequence")]);
    assert_delivered(&server, &first, &receipt, &["r1@example.org"]);
    smtp.send(&mail()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn the_envelope_has_remaining_recipients_and_the_null_reverse_path() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    let built = email().to("r0@example.org").cc("r1@example.org").bcc("r2@example.org").null_envelope_from();
    let mail = outgoing(built.build().unwrap()).with_recipients(vec![Recipient::new("r2@example.org")]);
    let receipt = smtp.send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["r2@example.org"]);
    let accepted = server.accepted().remove(0);
    assert_eq!(accepted.mail_from.split(' ').next_back(), Some("FROM:<>"));
    assert!(!String::from_utf8(accepted.data).unwrap().contains("r2@"), "the message shows a bcc recipient");
}

/// The syntax of RFC 5321 section 4.1.2.
#[tokio::test]
async fn an_unusual_address_arrives_unchanged() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    for address in
        ["Ada@example.org", "\"ada lovelace\"@example.org", "o'hara{x}@example.org", "ada@[IPv6:2001:db8::1]"]
    {
        let mail = outgoing(email().to(address).build().unwrap());
        let receipt = smtp.send(&mail).await.unwrap();
        assert_delivered(&server, &mail, &receipt, &[address]);
    }
}

#[tokio::test]
async fn a_recipient_cannot_inject_a_command() {
    let server = TestServer::start(true).await;
    let smtp = smtp(&server);
    for bad in ["bob@example.org>\r\nRCPT TO:<eve@example.org", "bob", "", "<bob@example.org>"] {
        let mail = mail().with_recipients(vec![Recipient::new(bad)]);
        let failure = smtp.send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
    }
    assert!(smtp.send(&mail().with_recipients(Vec::new())).await.is_err());
    assert_eq!(server.connections(), 0);
}
