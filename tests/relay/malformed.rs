//! Messages that cannot be read, or that the transport cannot send.

use std::time::Duration;

use postrider::store::NewRow;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{CodecError, Encoded, Outgoing, Receipt, Recipient, Unsupported};
use postrider::{
    AdminStore, DeliveryId, Email, EnqueueError, Failure, MemoryStore, Message, Outbox, State, Store, Transport,
};

use crate::harness::{eager, get, outbox};
use crate::support::fixture::ada;

/// Invariant 5.
#[tokio::test]
async fn a_malformed_message_becomes_a_dead_letter_and_stops_no_other() {
    let outbox = outbox(ScriptedTransport::new());
    let raw = |format: &str| {
        let message = Encoded::new(format, "{\"secret\": broken");
        NewRow::new(DeliveryId::new(), message, vec![Recipient::new("ada@example.com")])
    };
    let ids = outbox.store().insert(vec![raw("email/1"), raw("email/99")]).await.unwrap();
    let good = outbox.enqueue(ada()).await.unwrap();
    let summary = outbox.relay().retry(eager()).drain().await.unwrap();
    assert_eq!((summary.dead, summary.retried, summary.sent), (1, 1, 1));
    let damaged = get(&outbox, ids[0]).await;
    assert_eq!((damaged.state, damaged.attempts.len()), (State::Dead, 1));
    assert_eq!(damaged.attempts[0].transport, None, "the transport was called");
    assert!(damaged.reason.unwrap().starts_with("permanent: the stored mail is malformed"));
    // A newer release may know the format, so the message has its whole budget.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        outbox.relay().retry(eager()).drain().await.unwrap();
    }
    let unknown = get(&outbox, ids[1]).await;
    assert_eq!((unknown.state, unknown.attempts.len()), (State::Dead, 3));
    assert_eq!(get(&outbox, good).await.state, State::Sent);
}

/// Invariant 5.
#[tokio::test]
async fn a_message_type_that_panics_becomes_a_dead_letter_and_stops_no_other() {
    #[derive(Clone)]
    struct Poison(bool);
    impl Message for Poison {
        fn encode(&self) -> Result<Encoded, CodecError> {
            Ok(Encoded::new("poison/1", self.0.to_string()))
        }
        fn decode(encoded: &Encoded) -> Result<Self, CodecError> {
            assert_ne!(encoded.body, "true", "a panic in a message");
            Ok(Poison(false))
        }
        fn recipients(&self) -> Vec<Recipient> {
            vec![Recipient::new("somebody")]
        }
    }
    let transport = ScriptedTransport::<Poison>::new();
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let bad = outbox.enqueue(Poison(true)).await.unwrap();
    outbox.enqueue_all((0..5).map(|_| Poison(false))).await.unwrap();
    let mut sent = 0;
    for _ in 0..3 {
        sent += outbox.relay().retry(eager()).drain().await.unwrap().sent;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = outbox.get(bad).await.unwrap().unwrap();
    assert_eq!((sent, shown.state, shown.attempts.len()), (5, State::Dead, 3));
}

/// Invariant 5.
#[tokio::test]
async fn a_recipient_that_is_not_an_address_becomes_a_dead_letter() {
    let transport = ScriptedTransport::<Email>::new();
    let outbox = outbox(transport.clone());
    // Another program can write such rows in SQL.
    let row = |recipients: &[&str]| {
        let recipients = recipients.iter().map(|text| Recipient::new(*text)).collect();
        NewRow::new(DeliveryId::new(), Message::encode(&ada()).unwrap(), recipients)
    };
    let bad = ["ok@example.com", "x@example.com>\r\nRCPT TO:<y@z"];
    let ids = outbox.store().insert(vec![row(&bad), row(&["Ada@EXAMPLE.com", "ada@bücher.example"])]).await.unwrap();
    let summary = outbox.relay().drain().await.unwrap();
    assert_eq!((summary.dead, summary.sent, transport.calls().len()), (1, 1, 1));
    let reason = get(&outbox, ids[0]).await.reason;
    assert_eq!(reason.as_deref(), Some("permanent: recipient 2 of 2: the address has a control character"));
}

#[tokio::test]
async fn a_message_that_the_transport_cannot_express_is_not_enqueued() {
    struct Unsupporting;
    impl Transport for Unsupporting {
        type Message = Email;
        fn name(&self) -> &str {
            "picky"
        }
        async fn send(&self, _: &Outgoing<Email>) -> Result<Receipt, Failure> {
            Ok(Receipt::new())
        }
        fn check(&self, _: &Email) -> Result<(), Failure> {
            Err(Unsupported::new("mail at all").into())
        }
    }
    let outbox = Outbox::new(MemoryStore::new(), Unsupporting);
    let error = outbox.enqueue(ada()).await.unwrap_err();
    assert!(matches!(error, EnqueueError::Unsupported(_)), "{error:?}");
    assert_eq!(outbox.store().stats().await.unwrap().pending, 0);
}
