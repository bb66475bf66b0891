//! The mails that the suite sends, and how it knows them again.

use std::time::SystemTime;

use super::{Accepted, ScriptedPeer};
use crate::{DeliveryId, Email, Failure, Outgoing, Receipt, Recipient, Transport};

pub(super) const SENDER: &str = "ada.lovelace@example.com";
pub(super) const RECIPIENTS: [&str; 3] = ["bob.builder@example.org", "eve.adams@example.net", "joe.bloggs@example.org"];

/// A mail that differs from all others in its subject, its text and its HTML.
pub(super) struct Letter {
    pub(super) outgoing: Outgoing<Email>,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

impl Letter {
    /// To one recipient.
    pub(super) fn new() -> Self {
        Self::to_the_first(1)
    }

    /// To as many of the recipients: one in each of To, Cc and Bcc.
    pub(super) fn to_the_first(count: usize) -> Self {
        let id = DeliveryId::new();
        let mark = id.as_uuid().simple().to_string();
        let (subject, text, html) = (format!("subject-{mark}"), format!("text-{mark}"), format!("<p>html-{mark}</p>"));
        let mut builder = Email::builder().from(SENDER).subject(&subject).text(&text).html(&html);
        for (index, recipient) in RECIPIENTS.into_iter().take(count).enumerate() {
            builder = match index {
                0 => builder.to(recipient),
                1 => builder.cc(recipient),
                _ => builder.bcc(recipient),
            };
        }
        let email = builder.build().expect("the mail is well formed");
        Self { outgoing: Outgoing::new(id, SystemTime::now(), email), subject, text, html }
    }

    pub(super) fn is_in(&self, accepted: &Accepted) -> bool {
        accepted.content.contains(&self.subject)
    }

    /// How often the peer accepted it.
    pub(super) fn copies(&self, peer: &impl ScriptedPeer) -> usize {
        peer.accepted().iter().filter(|accepted| self.is_in(accepted)).count()
    }

    /// Asserts that the peer accepted it once, complete, for exactly its recipients, and that the receipt is its own.
    pub(super) fn assert_carried(&self, peer: &impl ScriptedPeer, result: &Result<Receipt, Failure>) {
        let receipt = result.as_ref().expect("the peer accepts the message, and the transport says otherwise");
        let accepted: Vec<_> = peer.accepted().into_iter().filter(|accepted| self.is_in(accepted)).collect();
        assert_eq!(accepted.len(), 1, "a message that the transport calls accepted reached the peer so many times");
        assert!(accepted[0].content.contains(&self.text), "the message arrived without its text");
        assert!(accepted[0].content.contains(&self.html), "the message arrived without its HTML");
        assert_eq!(receipt.provider_id, accepted[0].provider_id, "the receipt is another message's");
        assert!(receipt.refused.is_empty(), "the peer refused nobody, and the receipt says otherwise");
        let mut recipients: Vec<_> =
            accepted[0].recipients.iter().map(|address| Recipient::new(address.as_str())).collect();
        let mut wanted = self.outgoing.recipients().to_vec();
        recipients.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(recipients, wanted, "others are addressed than the attempt is for");
    }
}

/// Sends one more message as if nothing had been, and asserts that it is carried.
pub(super) async fn next_is_right(transport: &impl Transport<Message = Email>, peer: &impl ScriptedPeer) {
    let next = Letter::to_the_first(2);
    let read = peer.read();
    let result = transport.send(&next.outgoing).await;
    next.assert_carried(peer, &result);
    assert_eq!(peer.read(), read + 1, "one call was not one request");
}
