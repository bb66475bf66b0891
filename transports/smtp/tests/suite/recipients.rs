//! Each recipient has an answer of its own.

use postrider_transport::Class::{Permanent, Transient};
use postrider_transport::{Class, Recipient, Refusal, Scope, Transport};

use crate::support::{Act, At, Peer, assert_carried, copies, email, mail, mail_to, outgoing, smtp};

fn seen(refused: &[Refusal]) -> Vec<(&str, Class, &str)> {
    refused.iter().map(|refusal| (refusal.recipient.as_str(), refusal.class, refusal.reply.as_str())).collect()
}

#[tokio::test]
async fn one_refusal_does_not_cost_the_others_their_mail() {
    for pipelining in [false, true] {
        for (say, class) in [
            ("550 5.1.1 unknown", Permanent),
            ("450 4.2.0 greylisted", Transient),
            ("552 5.2.2 full", Permanent),
            ("530 5.7.0 not from you", Transient),
            ("550 5.1.8 not from this sender", Transient),
        ] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            peer.once(At::RcptNo(1), Act::Say(say));
            let mail = mail_to(3);
            let receipt = smtp.send(&mail).await.unwrap();
            assert_eq!(seen(&receipt.refused), [("r1@example.org", class, say)]);
            assert_carried(&peer, &mail, &receipt, &["r0@example.org", "r2@example.org"]);
        }
    }
}

/// RFC 5321 section 4.5.3.1.10: who was taken gets the mail; the rest is for another transaction, at once. A server counts what it is
/// asked for beyond its limit as errors, so that it is not asked for everybody.
#[tokio::test]
async fn a_full_envelope_leaves_the_rest_for_another_transaction() {
    for (pipelining, say, asked) in [
        (true, "452 4.5.3 Error: too many recipients", 300),
        (true, "552 too many recipients", 300),
        (true, "452 4.5.3 Your message has too many recipients.", 300),
        (false, "452 4.5.3 Error: too many recipients", 251),
        (false, "452 enough", 251),
    ] {
        let peer = Peer::start(pipelining).await;
        let smtp = smtp(&peer);
        peer.times(10_000, At::RcptFrom(250), Act::Say(say));
        let mail = mail_to(1_000);
        let receipt = smtp.send(&mail).await.unwrap();
        assert_eq!(peer.accepted()[0].recipients.len(), 250);
        assert_eq!(receipt.refused.len(), 750, "who is named was not taken, and nobody else");
        assert!(receipt.refused.iter().all(|refusal| (refusal.class, refusal.sure) == (Transient, true)));
        let heard = peer.heard().iter().filter(|heard| heard.line.starts_with("RCPT")).count();
        // Up to the end of the group of commands in which the first was refused: MAIL, and 99 recipients, and then 100 each.
        assert!(heard <= asked, "{heard} were asked for although the envelope was full");
        let rest: Vec<Recipient> = receipt.refused.into_iter().map(|refusal| refusal.recipient).collect();
        assert_eq!(rest[0].as_str(), "r250@example.org");
        let rest = mail.with_recipients(rest);
        let receipt = smtp.send(&rest).await.unwrap();
        assert_eq!((peer.accepted()[1].recipients.len(), receipt.refused.len()), (250, 500));
    }
}

/// One that says so to each recipient takes nobody, and to go on would be of no use.
#[tokio::test]
async fn an_envelope_that_is_full_from_the_start_takes_nobody() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    peer.times(10, At::Rcpt, Act::Say("452 4.5.3 Error: too many recipients"));
    let failure = smtp.send(&mail_to(10)).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope(), failure.refused().len()), (Transient, Scope::Message, 10));
}

/// A mailing of this size is one call; what it costs grows with it, not with its square.
#[tokio::test]
async fn ten_thousand_refusals_are_each_named_once() {
    for say in ["550 5.1.1 unknown", "450 4.2.0 greylisted"] {
        let peer = Peer::start(true).await;
        let smtp = smtp(&peer);
        peer.times(100_000, At::RcptFrom(1), Act::Say(say));
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
async fn nobody_is_taken() {
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
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            peer.once(At::RcptNo(0), Act::Say(first));
            peer.once(At::RcptNo(1), Act::Say(second));
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!(
                (failure.class(), failure.scope(), failure.in_doubt()),
                (class, scope, false),
                "{first} {second}"
            );
            let replies: Vec<_> = failure.refused().iter().map(|refusal| refusal.reply.as_str()).collect();
            assert_eq!(replies, [first, second]);
            assert!(failure.refused().iter().zip([first, second]).all(|(refusal, said)| {
                refusal.class == if said.starts_with("550 5.1.1") { Permanent } else { Transient }
            }));
            // And the transaction that nobody was left in is put away.
            let next = mail();
            let receipt = smtp.send(&next).await.unwrap();
            assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
            assert_eq!(peer.connections(), 1);
        }
    }
}

/// RFC 2920 section 3.1: a server may ask for the message although it took no recipient.
#[tokio::test]
async fn nobody_is_taken_and_the_message_is_wanted_all_the_same() {
    for (dot, connections) in [(None, 1), (Some(Act::Say("250 2.0.0 Ok")), 1), (Some(Act::Close), 2)] {
        let peer = Peer::start(true).await;
        let smtp = smtp(&peer);
        peer.once(At::Rcpt, Act::Say("550 5.1.1 unknown"));
        peer.once(At::Data, Act::Say("354 go ahead"));
        if let Some(act) = dot {
            peer.once(At::Dot, act);
        }
        let first = mail();
        let failure = smtp.send(&first).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Permanent, Scope::Message, false));
        assert_eq!(seen(failure.refused()), [("bob@example.org", Permanent, "550 5.1.1 unknown")]);
        assert_eq!(copies(&peer, &first), 0);
        let next = mail();
        let receipt = smtp.send(&next).await.unwrap();
        assert_carried(&peer, &next, &receipt, &["bob@example.org"]);
        assert_eq!(peer.connections(), connections);
    }
}

#[tokio::test]
async fn who_was_taken_and_then_refused_is_named_beside_the_others() {
    for at in [At::Data, At::Dot] {
        for (rcpt, end, class) in [
            ("450 4.2.0 greylisted", "550 5.7.1 spam", Transient),
            ("550 5.1.1 unknown", "451 4.7.1 later", Transient),
            ("550 5.1.1 unknown", "550 5.7.1 spam", Permanent),
        ] {
            let peer = Peer::start(true).await;
            let smtp = smtp(&peer);
            peer.once(At::RcptNo(0), Act::Say(rcpt));
            peer.once(at, Act::Say(end));
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!((failure.class(), failure.scope()), (class, Scope::Message));
            assert_eq!(failure.reply(), Some(end));
            let of = |said: &str| if said.starts_with('5') { Permanent } else { Transient };
            let expected = [("r0@example.org", of(rcpt), rcpt), ("r1@example.org", of(end), end)];
            assert_eq!(seen(failure.refused()), expected);
        }
    }
}

/// What was said to one recipient stands, whatever becomes of the others.
#[tokio::test]
async fn a_refusal_outlives_what_goes_wrong_later() {
    for pipelining in [false, true] {
        for (at, act, scope, in_doubt) in [
            (At::RcptNo(1), Act::Close, Scope::Transport, false),
            (At::Data, Act::SayAndClose("421 4.3.2 closing"), Scope::Transport, false),
            (At::Data, Act::Close, Scope::Transport, false),
            (At::Data, Act::Say("250 what"), Scope::Transport, false),
            (At::Dot, Act::Say("454 4.7.0 too fast"), Scope::Transport, false),
            (At::Dot, Act::Close, Scope::Transport, true),
            (At::Dot, Act::Say("354 what"), Scope::Transport, true),
        ] {
            let peer = Peer::start(pipelining).await;
            let smtp = smtp(&peer);
            peer.once(At::RcptNo(0), Act::Say("550 5.1.1 unknown"));
            peer.once(at, act);
            let failure = smtp.send(&mail_to(2)).await.unwrap_err();
            assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Transient, scope, in_doubt), "{at:?}");
            assert_eq!(seen(failure.refused()), [("r0@example.org", Permanent, "550 5.1.1 unknown")], "{at:?}");
        }
    }
}

#[tokio::test]
async fn out_of_step_at_one_recipient_costs_the_connection_but_not_the_mail() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    peer.once(At::RcptNo(0), Act::Say("503 5.5.1 out of step"));
    let first = mail_to(2);
    let receipt = smtp.send(&first).await.unwrap();
    assert_eq!(seen(&receipt.refused), [("r0@example.org", Transient, "503 5.5.1 out of step")]);
    assert_carried(&peer, &first, &receipt, &["r1@example.org"]);
    smtp.send(&mail()).await.unwrap();
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn the_envelope_goes_by_who_is_left_and_the_null_sender_is_kept() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    let built = email().to("r0@example.org").cc("r1@example.org").bcc("r2@example.org").null_envelope_from();
    let mail = outgoing(built.build().unwrap()).with_recipients(vec![Recipient::new("r2@example.org")]);
    let receipt = smtp.send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["r2@example.org"]);
    let accepted = peer.accepted().remove(0);
    assert_eq!(accepted.mail_from.split(' ').next_back(), Some("FROM:<>"));
    assert!(!String::from_utf8(accepted.data).unwrap().contains("r2@"), "bcc was shown");
}

/// All that RFC 5321 section 4.1.2 lets stand between the brackets.
#[tokio::test]
async fn an_unusual_address_is_named_as_it_is() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    for address in
        ["Ada@example.org", "\"ada lovelace\"@example.org", "o'hara{x}@example.org", "ada@[IPv6:2001:db8::1]"]
    {
        let mail = outgoing(email().to(address).build().unwrap());
        let receipt = smtp.send(&mail).await.unwrap();
        assert_carried(&peer, &mail, &receipt, &[address]);
    }
}

#[tokio::test]
async fn a_recipient_that_would_be_a_command_is_not_sent() {
    let peer = Peer::start(true).await;
    let smtp = smtp(&peer);
    for bad in ["bob@example.org>\r\nRCPT TO:<eve@example.org", "bob", "", "<bob@example.org>"] {
        let mail = mail().with_recipients(vec![Recipient::new(bad)]);
        let failure = smtp.send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
    }
    assert!(smtp.send(&mail().with_recipients(Vec::new())).await.is_err());
    assert_eq!(peer.connections(), 0);
}
