//! Idempotency keys, recipients and `Debug`.

use std::time::UNIX_EPOCH;

use postrider_transport::{DeliveryId, Email, Message, Outgoing, Recipient};

use super::full;

#[test]
fn debug_shows_no_text_of_the_mail() {
    let email = full();
    let outgoing = Outgoing::new(DeliveryId::new(), UNIX_EPOCH, email.clone());
    let shown = format!("{email:?} {:?} {outgoing:?}", email.encode().unwrap());
    for secret in ["ada@", "secret", "Dear", "Hello", "Lovelace", "Gr"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn idempotency_keys_differ_by_cycle_and_recipients() {
    let first = Outgoing::new(DeliveryId::new(), UNIX_EPOCH, full());
    let again = first.clone().with_attempt(2, 1);
    let resent = first.clone().with_attempt(3, 2);
    let rest = first.clone().with_recipients(first.recipients()[1..].to_vec());
    assert_eq!(first.idempotency_key(), again.idempotency_key());
    assert_ne!(first.idempotency_key(), resent.idempotency_key());
    assert_ne!(first.idempotency_key(), rest.idempotency_key());
    assert!(rest.idempotency_key().len() <= 96);
}

/// A delivery may have other recipients than its mail names. Without one of them, it may still have as many as the mail.
#[test]
fn a_part_of_the_recipients_is_partial() {
    let mail = Email::builder().from("shop@example.com").to("ada@example.com").text("As ordered.").build().unwrap();
    let others = ["bob@example.com", "carol@example.com"].map(Recipient::new).to_vec();
    let whole = Outgoing::for_recipients(DeliveryId::new(), UNIX_EPOCH, mail, others.clone(), false);
    let rest = whole.clone().with_recipients(others[1..].to_vec());
    assert!(!whole.is_partial() && rest.is_partial());
    assert_ne!(whole.idempotency_key(), rest.idempotency_key());
    assert!(!whole.clone().with_recipients(others).is_partial());
}
