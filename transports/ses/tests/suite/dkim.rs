//! Signed mail.

use postrider_transport::{Dkim, Transport};

use crate::support::{builder, mail, peer, raw};

#[tokio::test]
async fn what_ses_replaces_is_not_signed() {
    let peer = peer([]).await;
    let dkim = Dkim::ed25519("example.com", "test", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    builder(&peer).dkim(dkim).build().unwrap().send(&mail()).await.unwrap();
    let message = String::from_utf8(raw(&peer.seen()[0])).unwrap();
    let unfolded = message.replace("\r\n ", " ").replace("\r\n\t", " ");
    let signature = unfolded.lines().find(|line| line.starts_with("DKIM-Signature:")).unwrap();
    let signed = signature.split(';').find_map(|part| part.trim().strip_prefix("h=")).unwrap().to_ascii_lowercase();
    let signed: Vec<_> = signed.split(':').map(str::trim).collect();
    assert!(signed.contains(&"from") && signed.contains(&"subject"), "{signed:?}");
    assert!(!signed.contains(&"date") && !signed.contains(&"message-id"), "{signed:?}");
    assert!(message.contains("\r\nDate: ") && message.contains("\r\nMessage-ID: "), "{message}");
}
