//! Signed mail, verified as the server received it.

use std::collections::BTreeMap;

use postrider_smtp::Dkim;
use postrider_transport::{Attachment, Mime, Transport};

use crate::authenticator::Dns;
use crate::python::Python;
use crate::support::{TestServer, builder, email, mail, outgoing};

const RSA: &str = include_str!("../../../core/tests/keys/rsa-pkcs8.pem");
const ED25519: &str = include_str!("../../../core/tests/keys/ed25519.pem");

fn both() -> [Dkim; 2] {
    [Dkim::new("example.com", "rsa", RSA).unwrap(), Dkim::new("example.com", "ed25519", ED25519).unwrap()]
}

#[tokio::test]
async fn signing_adds_a_header_and_changes_nothing_else() {
    let server = TestServer::start(true).await;
    let [_, dkim] = both();
    let smtp = builder(&server).dkim(dkim).build().unwrap();
    let mail = mail();
    smtp.send(&mail).await.unwrap();
    let signed = String::from_utf8(server.accepted().remove(0).data).unwrap();
    let (signature, rest) = signed.split_at(signed.find("\r\nFrom").unwrap() + 2);
    assert!(signature.starts_with("DKIM-Signature: ") && signature.contains("d=example.com;"), "{signed}");
    assert_eq!(rest.as_bytes(), Mime::new().render(&mail).unwrap(), "signing changed the mail");
}

/// Verifies the octets that the server received, after it removed doubled dots and the end.
#[tokio::test]
#[ignore = "needs Python with dkimpy: scripts/servers/verifiers.sh"]
async fn a_signature_verifies_at_the_server() {
    let (dns, mut python) = (Dns::example(), Python::start());
    let server = TestServer::start(true).await;
    let file = |kind, content: &str| Attachment::new("a", kind, content.as_bytes().to_vec()).unwrap();
    let bodies =
        ["", ".", "..\n.\n", "Hi!", "Hi!\n", "\n\n\n", " \n", "a \n\n \n\n", "From me\n", "trüb\n.trüb", "a\0b\n"];
    for text in bodies {
        for dkim in both() {
            let smtp = builder(&server).dkim(dkim).build().unwrap();
            let one = email().to("bob@example.org").text(text);
            let two = one.clone().html("<p>.").attach(file("text/csv", "1\n.\n"));
            let forwarded = one.clone().attach(file("message/rfc822", "Subject: a\n\n.\nü\n..\n\n\n"));
            for mail in [one, two, forwarded] {
                smtp.send(&outgoing(mail.build().unwrap())).await.unwrap();
            }
        }
    }
    let accepted = server.accepted();
    assert_eq!(accepted.len(), bodies.len() * 6);
    for mail in accepted {
        let received = String::from_utf8_lossy(&mail.data).into_owned();
        assert_eq!(dns.verify(&mail.data).await, ["pass"], "mail-auth:\n{received}");
        assert_eq!(python.verify(&mail.data, &dns.0), ["pass"], "dkimpy:\n{received}");
    }
    assert_ne!(python.verify(b"DKIM-Signature: v=1\r\n\r\n", &BTreeMap::new()), ["pass"]);
}
