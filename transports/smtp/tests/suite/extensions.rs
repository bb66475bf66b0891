//! SIZE, SMTPUTF8, 8BITMIME, and the EHLO name.

use postrider_smtp::{SmtpConfigError, SmtpError};
use postrider_transport::Class::Permanent;
use postrider_transport::{Address, Attachment, Mime, Recipient, Scope, Transport, Unsupported};

use crate::support::{TestServer, assert_delivered, builder, email, mail, outgoing, smtp};

fn mail_line(server: &TestServer) -> String {
    server.received().into_iter().find(|received| received.line.starts_with("MAIL")).unwrap().line
}

#[tokio::test]
async fn size_is_sent_and_its_limit_respected() {
    let mail = mail();
    let size = Mime::new().render(&mail).unwrap().len();
    for (offer, sent) in [("SIZE 1000000", true), ("SIZE", true), ("SIZE 0", true), ("8BITMIME", false)] {
        let server = TestServer::builder().offer(offer).start().await;
        let receipt = smtp(&server).send(&mail).await.unwrap();
        assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
        assert_eq!(mail_line(&server).contains(&format!(" SIZE={size}")), sent, "{offer}");
    }
    let server = TestServer::builder().offer("SIZE 100").start().await;
    let smtp = smtp(&server);
    for _ in 0..2 {
        let failure = smtp.send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
        assert!(failure.downcast_ref::<SmtpError>().unwrap().to_string().contains(&size.to_string()));
        assert!(failure.is_unsupported(), "another server may take it");
    }
    assert!(!server.received_any("MAIL"));
    assert_eq!(server.connections(), 1, "no command was sent, so the connection is reusable");
}

#[tokio::test]
async fn addresses_outside_ascii_need_smtputf8() {
    let sender: Address = "пошта@example.com".parse().unwrap();
    let to_one = outgoing(email().to("пошта@example.org").build().unwrap());
    let from_one = outgoing(email().to("bob@example.org").envelope_from(sender).build().unwrap());
    for mail in [to_one, from_one] {
        let server = TestServer::start(true).await;
        let failure = smtp(&server).send(&mail).await.unwrap_err();
        assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
        assert!(failure.downcast_ref::<Unsupported>().is_some());
        assert!(!server.received_any("MAIL"));

        let server = TestServer::builder().offer("SMTPUTF8").offer("PIPELINING").start().await;
        let receipt = smtp(&server).send(&mail).await.unwrap();
        assert_delivered(&server, &mail, &receipt, &[mail.recipients()[0].as_str()]);
        assert!(mail_line(&server).contains(" SMTPUTF8"));
    }
}

/// An attached message must not be encoded (RFC 2046 section 5.2.1), so it may need 8BITMIME (RFC 6152).
#[tokio::test]
async fn an_attached_message_outside_ascii_needs_8bitmime() {
    let attached = Attachment::new("a.eml", "message/rfc822", "Subject: a\n\nGrüße\n.\n".as_bytes()).unwrap();
    let mail = outgoing(email().to("bob@example.org").attach(attached).build().unwrap());
    let server = TestServer::builder().without("8BITMIME").start().await;
    let failure = smtp(&server).send(&mail).await.unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
    assert!(failure.downcast_ref::<Unsupported>().unwrap().to_string().contains("8BITMIME"));
    assert!(failure.is_unsupported(), "another server may take it");
    assert!(!server.received_any("MAIL"));

    let server = TestServer::start(true).await;
    let receipt = smtp(&server).send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@example.org"]);
    assert!(mail_line(&server).contains(" BODY=8BITMIME") && !mail_line(&server).contains("SMTPUTF8"));
}

#[tokio::test]
async fn ascii_needs_no_extension() {
    let server = TestServer::builder().offer("SMTPUTF8").start().await;
    let mail = outgoing(email().to("bob@bücher.example").subject("Grüße").text("Grüße").build().unwrap());
    let receipt = smtp(&server).send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &["bob@xn--bcher-kva.example"]);
    assert_eq!(mail_line(&server), "MAIL FROM:<ada@example.com>");
}

#[tokio::test]
async fn quoted_and_literal_addresses_arrive_unchanged() {
    let server = TestServer::start(true).await;
    let addresses = ["o'hara+tag@example.org", "bob@[127.0.0.1]"];
    let mail = mail().with_recipients(addresses.map(Recipient::new).to_vec());
    let receipt = smtp(&server).send(&mail).await.unwrap();
    assert_delivered(&server, &mail, &receipt, &addresses);
}

#[tokio::test]
async fn the_ehlo_name_is_configured_or_qualified() {
    let server = TestServer::start(true).await;
    builder(&server).hello_name("out.example.com").build().unwrap().send(&mail()).await.unwrap();
    assert_eq!(server.received()[0].line, "EHLO out.example.com");
    for bad in ["", "a b", "a\r\nMAIL FROM:<>", "ü.example", "a\0"] {
        assert_eq!(builder(&server).hello_name(bad).build().map(|_| ()), Err(SmtpConfigError::HelloName), "{bad:?}");
    }
    smtp(&server).send(&mail()).await.unwrap();
    let own = server.received().into_iter().rfind(|received| received.line.starts_with("EHLO")).unwrap().line;
    let name = own.strip_prefix("EHLO ").unwrap();
    assert!(name.contains('.') && !name.contains(' '), "neither a qualified name nor an address: {name}");
}

#[test]
fn check_finds_an_unwritable_message_without_a_server() {
    let smtp = postrider_smtp::Smtp::builder("localhost").build().unwrap();
    assert_eq!(smtp.name(), "smtp");
    smtp.check(&email().to("bob@example.org").build().unwrap()).unwrap();
    // It must be sent without an encoding, which the NUL makes impossible.
    let odd = postrider_transport::Attachment::new("a", "message/rfc822", b"Subject: a\0\r\n".to_vec()).unwrap();
    let unwritable = email().to("bob@example.org").attach(odd).build().unwrap();
    let failure = smtp.check(&unwritable).unwrap_err();
    assert_eq!((failure.class(), failure.scope()), (Permanent, Scope::Message));
}
