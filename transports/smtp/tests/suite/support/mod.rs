//! Shared by the tests: a scripted server, mails, and transports to it.

mod script;
mod server;
mod server_session;
mod state;

use std::time::{Duration, SystemTime};

use postrider_smtp::{Smtp, SmtpBuilder, Timeouts};
use postrider_transport::{DeliveryId, Email, EmailBuilder, Mime, Outgoing, Receipt};

pub(crate) use script::{Action, At};
pub(crate) use server::{TestServer, TestServerBuilder};
pub(crate) use server_session::decode_base64;

/// Much longer than any step takes, so that no test times out by accident.
const LONG_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn long_timeouts() -> Timeouts {
    Timeouts::at_most(LONG_TIMEOUT)
}

/// A transport to the server, without TLS.
pub(crate) fn builder(server: &TestServer) -> SmtpBuilder {
    Smtp::builder("127.0.0.1").port(server.port()).timeouts(long_timeouts())
}

pub(crate) fn smtp(server: &TestServer) -> Smtp {
    builder(server).build().unwrap()
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

/// Asserts that the server accepted this mail once, complete and for these recipients, and that the receipt belongs to it.
pub(crate) fn assert_delivered(server: &TestServer, mail: &Outgoing<Email>, receipt: &Receipt, recipients: &[&str]) {
    let bytes = Mime::new().render(mail).unwrap();
    let accepted: Vec<_> = server.accepted().into_iter().filter(|accepted| accepted.data == bytes).collect();
    assert_eq!(accepted.len(), 1, "the mail arrived {} times", accepted.len());
    assert_eq!(accepted[0].recipients, recipients);
    assert_eq!(receipt.provider_id.as_ref(), Some(&accepted[0].queue_id));
    assert!(receipt.reply.as_ref().unwrap().contains(&accepted[0].queue_id));
}

/// How often the server accepted this mail.
pub(crate) fn count_copies(server: &TestServer, mail: &Outgoing<Email>) -> usize {
    let bytes = Mime::new().render(mail).unwrap();
    server.accepted().iter().filter(|accepted| accepted.data == bytes).count()
}
