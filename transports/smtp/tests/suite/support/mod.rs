//! What the tests share: a scripted peer, mails, and transports to it.

mod dialogue;
mod peer;
mod script;

use std::time::{Duration, SystemTime};

use postrider_smtp::{Smtp, SmtpBuilder, Timeouts};
use postrider_transport::{DeliveryId, Email, EmailBuilder, Mime, Outgoing, Receipt};

pub(crate) use dialogue::decode;
pub(crate) use peer::{Peer, PeerBuilder};
pub(crate) use script::{Act, At};

/// Far above what anything here takes, so that only a test that wants a time-out meets one.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn patient() -> Timeouts {
    Timeouts::at_most(PATIENCE)
}

/// A transport to the peer, in clear.
pub(crate) fn builder(peer: &Peer) -> SmtpBuilder {
    Smtp::builder("127.0.0.1").port(peer.port()).timeouts(patient())
}

pub(crate) fn smtp(peer: &Peer) -> Smtp {
    builder(peer).build().unwrap()
}

pub(crate) fn email() -> EmailBuilder {
    Email::builder().from("ada@example.com").subject("Hello").text("Hi!")
}

pub(crate) fn outgoing(email: Email) -> Outgoing<Email> {
    Outgoing::new(DeliveryId::new(), SystemTime::now(), email)
}

/// A mail to one recipient.
pub(crate) fn mail() -> Outgoing<Email> {
    outgoing(email().to("bob@example.org").build().unwrap())
}

/// A mail to `r0@example.org`, `r1@example.org` and so on.
pub(crate) fn mail_to(count: usize) -> Outgoing<Email> {
    let mut builder = email();
    for index in 0..count {
        builder = builder.bcc(format!("r{index}@example.org"));
    }
    outgoing(builder.build().unwrap())
}

/// Asserts that the peer accepted this mail once, complete, for these recipients, and that the receipt is that mail's own.
pub(crate) fn assert_carried(peer: &Peer, mail: &Outgoing<Email>, receipt: &Receipt, recipients: &[&str]) {
    let bytes = Mime::new().render(mail).unwrap();
    let accepted: Vec<_> = peer.accepted().into_iter().filter(|accepted| accepted.data == bytes).collect();
    assert_eq!(accepted.len(), 1, "the mail arrived {} times", accepted.len());
    assert_eq!(accepted[0].recipients, recipients);
    assert_eq!(receipt.provider_id.as_ref(), Some(&accepted[0].queue_id));
    assert!(receipt.reply.as_ref().unwrap().contains(&accepted[0].queue_id));
}

/// How often the peer accepted this mail.
pub(crate) fn copies(peer: &Peer, mail: &Outgoing<Email>) -> usize {
    let bytes = Mime::new().render(mail).unwrap();
    peer.accepted().iter().filter(|accepted| accepted.data == bytes).count()
}
