//! DKIM signatures.

use postrider_ses::Dkim;
use postrider_transport::Transport;

use crate::authenticator::Dns;
use crate::python::Python;
use crate::support::{builder, email, mail, outgoing, peer, raw_message};

#[tokio::test]
async fn headers_that_ses_replaces_are_not_signed() {
    let peer = peer([]).await;
    let dkim = Dkim::ed25519("example.com", "test", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    builder(&peer).dkim(dkim).build().unwrap().send(&mail()).await.unwrap();
    let message = String::from_utf8(raw_message(&peer.seen()[0])).unwrap();
    let unfolded = message.replace("\r\n ", " ").replace("\r\n\t", " ");
    let signature = unfolded.lines().find(|line| line.starts_with("DKIM-Signature:")).unwrap();
    let signed = signature.split(';').find_map(|part| part.trim().strip_prefix("h=")).unwrap().to_ascii_lowercase();
    let signed: Vec<_> = signed.split(':').map(str::trim).collect();
    assert!(signed.contains(&"from") && signed.contains(&"subject"), "{signed:?}");
    assert!(!signed.contains(&"date") && !signed.contains(&"message-id"), "{signed:?}");
    assert!(message.contains("\r\nDate: ") && message.contains("\r\nMessage-ID: "), "{message}");
}

/// SES replaces Date and Message-ID (developer guide, header fields) and adds other headers at the top.
#[tokio::test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
async fn signatures_verify_after_the_changes_of_ses() {
    let (dns, mut python) = (Dns::example(), Python::start());
    let rsa = include_str!("../../../core/tests/keys/rsa-pkcs1.pem");
    let ed25519 = include_str!("../../../core/tests/keys/ed25519.pem");
    for (selector, key) in [("rsa", rsa), ("ed25519", ed25519)] {
        for text in ["", "Hi!", "Grüße\n.\n\n"] {
            let peer = peer([]).await;
            let ses = builder(&peer).dkim(Dkim::new("example.com", selector, key).unwrap()).build().unwrap();
            let mail = email().to("bob@example.org").subject("Grüße, and more of it ".repeat(9)).text(text);
            ses.send(&outgoing(mail.build().unwrap())).await.unwrap();
            let sent = String::from_utf8(raw_message(&peer.seen()[0])).unwrap();
            let (mut carried, mut replaced) = ("Feedback-ID: 1:eu-west-1:AmazonSES\r\n".to_owned(), 0);
            for line in sent.split_inclusive("\r\n") {
                let own = ["Date: ", "Message-ID: "].into_iter().find(|name| line.starts_with(name));
                replaced += usize::from(own.is_some());
                carried.push_str(&own.map_or(line.to_owned(), |name| format!("{name}of its own\r\n")));
            }
            assert_eq!(replaced, 2, "{sent}");
            assert_eq!(dns.verify(carried.as_bytes()).await, ["pass"], "mail-auth:\n{carried}");
            assert_eq!(python.verify(carried.as_bytes(), &dns.0), ["pass"], "dkimpy:\n{carried}");
        }
    }
}
