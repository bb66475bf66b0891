//! SIZE, SMTPUTF8, 8BITMIME, and the name for EHLO.

use postrider_smtp::{SmtpConfigError, SmtpError};
use postrider_transport::Class::Permanent;
use postrider_transport::{Address, Attachment, Mime, Recipient, Scope, Transport, Unsupported};

use crate::support::{Peer, assert_carried, builder, email, mail, outgoing, smtp};

fn mail_line(peer: &Peer) -> String {
    peer.heard().into_iter().find(|heard| heard.line.starts_with("MAIL")).unwrap().line
}

#[tokio::test]
async fn the_size_is_told_and_the_limit_is_kept() {
    let mail = mail();
    let size = Mime::new().render(&mail).unwrap().len();
    for (offer, told) in [("SIZE 1000000", true), ("SIZE", true), ("SIZE 0", true), ("8BITMIME", false)] {
        let peer = Peer::builder().offer(offer).start().await;
        let receipt = smtp(&peer).send(&mail).await.unwrap();
        assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
        assert_eq!(mail_line(&peer).contains(&format!(" SIZE={size}")), told, "{offer}");
    }
    let peer = Peer::builder().offer("SIZE 100").start().await;
    let smtp = smtp(&peer);
    for _ in 0..2 {
        let failure = smtp.send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
        assert!(failure.downcast_ref::<SmtpError>().unwrap().to_string().contains(&size.to_string()));
        assert!(failure.is_unsupported(), "another server may take it");
    }
    assert!(!peer.heard_any("MAIL"));
    assert_eq!(peer.connections(), 1, "nothing was said, so nothing was spoilt");
}

#[tokio::test]
async fn addresses_outside_ascii_need_smtputf8() {
    let sender: Address = "пошта@example.com".parse().unwrap();
    let to_one = outgoing(email().to("пошта@example.org").build().unwrap());
    let from_one = outgoing(email().to("bob@example.org").envelope_from(sender).build().unwrap());
    for mail in [to_one, from_one] {
        let peer = Peer::start(true).await;
        let failure = smtp(&peer).send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
        assert!(failure.downcast_ref::<Unsupported>().is_some());
        assert!(!peer.heard_any("MAIL"));

        let peer = Peer::builder().offer("SMTPUTF8").offer("PIPELINING").start().await;
        let receipt = smtp(&peer).send(&mail).await.unwrap();
        assert_carried(&peer, &mail, &receipt, &[mail.recipients()[0].as_str()]);
        assert!(mail_line(&peer).contains(" SMTPUTF8"));
    }
}

/// RFC 6152. An attached message travels as it is (RFC 2046 section 5.2.1), so that it may need 8bit, and cannot be encoded without it.
#[tokio::test]
async fn an_attached_message_outside_ascii_needs_8bitmime() {
    let attached = Attachment::new("a.eml", "message/rfc822", "Subject: a\n\nGrüße\n.\n".as_bytes()).unwrap();
    let mail = outgoing(email().to("bob@example.org").attach(attached).build().unwrap());
    let peer = Peer::builder().without("8BITMIME").start().await;
    let failure = smtp(&peer).send(&mail).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
    assert!(failure.downcast_ref::<Unsupported>().unwrap().to_string().contains("8BITMIME"));
    assert!(failure.is_unsupported(), "another server may take it");
    assert!(!peer.heard_any("MAIL"));

    let peer = Peer::start(true).await;
    let receipt = smtp(&peer).send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@example.org"]);
    assert!(mail_line(&peer).contains(" BODY=8BITMIME") && !mail_line(&peer).contains("SMTPUTF8"));
}

#[tokio::test]
async fn what_is_ascii_asks_for_nothing() {
    let peer = Peer::builder().offer("SMTPUTF8").start().await;
    let mail = outgoing(email().to("bob@bücher.example").subject("Grüße").text("Grüße").build().unwrap());
    let receipt = smtp(&peer).send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &["bob@xn--bcher-kva.example"]);
    assert_eq!(mail_line(&peer), "MAIL FROM:<ada@example.com>");
}

#[tokio::test]
async fn quoted_and_literal_addresses_arrive_as_they_are() {
    let peer = Peer::start(true).await;
    let addresses = ["o'hara+tag@example.org", "bob@[127.0.0.1]"];
    let mail = mail().with_recipients(addresses.map(Recipient::new).to_vec());
    let receipt = smtp(&peer).send(&mail).await.unwrap();
    assert_carried(&peer, &mail, &receipt, &addresses);
}

#[tokio::test]
async fn the_name_for_ehlo() {
    let peer = Peer::start(true).await;
    builder(&peer).hello_name("out.example.com").build().unwrap().send(&mail()).await.unwrap();
    assert_eq!(peer.heard()[0].line, "EHLO out.example.com");
    for bad in ["", "a b", "a\r\nMAIL FROM:<>", "ü.example", "a\0"] {
        assert_eq!(builder(&peer).hello_name(bad).build().map(|_| ()), Err(SmtpConfigError::HelloName), "{bad:?}");
    }
    smtp(&peer).send(&mail()).await.unwrap();
    let own = peer.heard().into_iter().rfind(|heard| heard.line.starts_with("EHLO")).unwrap().line;
    let name = own.strip_prefix("EHLO ").unwrap();
    assert!(name.contains('.') && !name.contains(' '), "neither a full name nor an address: {name}");
}

#[test]
fn what_can_be_checked_without_a_server_is() {
    let smtp = postrider_smtp::Smtp::builder("localhost").build().unwrap();
    assert_eq!(smtp.name(), "smtp");
    smtp.check(&email().to("bob@example.org").build().unwrap()).unwrap();
    // What has to travel as it is, and cannot.
    let odd = postrider_transport::Attachment::new("a", "message/rfc822", b"Subject: a\0\r\n".to_vec()).unwrap();
    let unwritable = email().to("bob@example.org").attach(odd).build().unwrap();
    let failure = smtp.check(&unwritable).unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
}
