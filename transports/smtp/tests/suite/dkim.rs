//! Signed mail.

use postrider_transport::{Dkim, Mime, Transport};

use crate::support::{Peer, builder, mail};

#[tokio::test]
async fn a_signature_travels_with_the_mail_as_it_would_without() {
    let peer = Peer::start(true).await;
    let dkim = Dkim::ed25519("example.com", "test", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    let smtp = builder(&peer).dkim(dkim).build().unwrap();
    let mail = mail();
    smtp.send(&mail).await.unwrap();
    let signed = String::from_utf8(peer.accepted().remove(0).data).unwrap();
    assert!(signed.contains("DKIM-Signature:") && signed.contains("d=example.com; s=test;"), "{signed}");
    let plain = String::from_utf8(Mime::new().render(&mail).unwrap()).unwrap();
    assert!(plain.lines().all(|line| signed.lines().any(|other| other == line)), "signing changed the mail");
}
