//! The bytes of each attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::transport::{Outgoing, Receipt};
use postrider::{Attachment, Email, Failure, MemoryStore, Outbox, Scope, Transport};
use postrider_transport::Mime;

use crate::harness::eager;

/// Renders each mail as SMTP sends it, and fails.
#[derive(Clone, Default)]
struct Rendering(Arc<Mutex<Vec<Request>>>);

#[derive(PartialEq)]
struct Request {
    octets: Vec<u8>,
    idempotency_key: String,
}

impl Transport for Rendering {
    type Message = Email;

    fn name(&self) -> &str {
        "rendering"
    }

    async fn send(&self, outgoing: &Outgoing<Email>) -> Result<Receipt, Failure> {
        let octets = Mime::new().render(outgoing).unwrap();
        let request = Request { octets: octets.to_vec(), idempotency_key: outgoing.idempotency_key() };
        self.0.lock().unwrap().push(request);
        Err(Failure::transient(Scope::Message, "busy"))
    }
}

/// The Message-ID, the Date, the boundaries and the idempotency key do not change. Invariant 7.
#[tokio::test]
async fn every_attempt_sends_the_same_bytes() {
    let transport = Rendering::default();
    let outbox = Outbox::new(MemoryStore::new(), transport.clone());
    let file = Attachment::new("terms.txt", "text/plain", *b"terms").unwrap();
    let mail = Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").html("<p>Hello</p>");
    outbox.enqueue(mail.attach(file).build().unwrap()).await.unwrap();
    for _ in 0..3 {
        outbox.relay().retry(eager()).drain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sent = transport.0.lock().unwrap();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|attempt| *attempt == sent[0]), "two attempts differ");
}
