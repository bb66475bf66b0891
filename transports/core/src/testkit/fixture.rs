//! The mails that the suite sends.

use std::time::SystemTime;

use super::{Accepted, ScriptedPeer};
use crate::{DeliveryId, Email, Failure, Outgoing, Receipt, Recipient, Transport};

pub(super) const SENDER: &str = "ada.lovelace@example.com";
pub(super) const RECIPIENTS: [&str; 3] = ["bob.builder@example.org", "eve.adams@example.net", "joe.bloggs@example.org"];

/// A mail with a unique subject, text and HTML.
pub(super) struct TestMail {
    pub(super) outgoing: Outgoing<Email>,
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

impl TestMail {
    /// Creates a mail to one recipient.
    pub(super) fn new() -> Self {
        Self::with_recipients(1)
    }

    /// Creates a mail to the first `count` of [`RECIPIENTS`]: one each in To, Cc and Bcc.
    pub(super) fn with_recipients(count: usize) -> Self {
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

    /// How many copies the peer accepted.
    pub(super) fn copies(&self, peer: &impl ScriptedPeer) -> usize {
        peer.accepted().iter().filter(|accepted| self.is_in(accepted)).count()
    }

    /// Asserts that the peer accepted it once, complete, for exactly its recipients, and that the receipt belongs to it.
    pub(super) fn assert_accepted(&self, peer: &impl ScriptedPeer, result: &Result<Receipt, Failure>) {
        let receipt = result.as_ref().expect("an accepted message was reported as failed");
        let accepted: Vec<_> = peer.accepted().into_iter().filter(|accepted| self.is_in(accepted)).collect();
        assert_eq!(accepted.len(), 1, "the peer did not accept the message exactly once");
        assert!(accepted[0].content.contains(&self.text), "the message arrived without its text");
        assert!(accepted[0].content.contains(&self.html), "the message arrived without its HTML");
        assert_eq!(receipt.provider_id, accepted[0].provider_id, "the receipt belongs to another message");
        assert!(receipt.refused.is_empty(), "the receipt has refusals that the peer did not send");
        let mut recipients: Vec<_> =
            accepted[0].recipients.iter().map(|address| Recipient::new(address.as_str())).collect();
        let mut wanted = self.outgoing.recipients().to_vec();
        recipients.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(recipients, wanted, "the peer got other recipients than those of the attempt");
    }
}

/// Sends another message and asserts that it is accepted, with one request.
pub(super) async fn assert_next_is_accepted(transport: &impl Transport<Message = Email>, peer: &impl ScriptedPeer) {
    let next = TestMail::with_recipients(2);
    let read = peer.read();
    let result = transport.send(&next.outgoing).await;
    next.assert_accepted(peer, &result);
    assert_eq!(peer.read(), read + 1, "one call did not make exactly one request");
}
