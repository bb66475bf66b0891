//! The transport for development, which sends nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use postrider::transport::{Class, Outgoing, Recipient};
use postrider::{
    Attachment, DeliveryId, DevMailbox, DevMailboxError, Email, EmailError, EnqueueError, MemoryStore, Outbox, Outcome,
    RecipientState, Scope, State, Transport,
};

fn mail(recipients: &[&str]) -> Email {
    let mail = Email::builder().from("shop@example.com").subject("Hello").text("Hello!");
    recipients.iter().fold(mail, |mail, to| mail.to(*to)).build().unwrap()
}

fn unwritable() -> Result<Email, EmailError> {
    let message = Attachment::new("a.eml", "message/rfc822", *b"Subject: a\r\n\r\n\0")?;
    Email::builder().from("shop@example.com").to("ada@example.org").text("Hello!").attach(message).build()
}

#[tokio::test]
async fn a_mail_is_accepted_and_the_history_says_that_nothing_was_sent() {
    let outbox = Outbox::new(MemoryStore::new(), DevMailbox::new());
    let id = outbox.enqueue(mail(&["ada@example.org", "bob@example.org"])).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, 1));
    let attempt = &delivery.attempts[0];
    assert_eq!((attempt.transport.as_deref(), &attempt.provider_id), (Some("mailbox"), &None));
    assert!(attempt.reply.as_deref().unwrap().contains("nothing was sent"), "{:?}", attempt.reply);
}

#[tokio::test]
async fn each_domain_for_tests_gets_its_result() {
    let outbox = Outbox::new(MemoryStore::new(), DevMailbox::new());
    let cases = [
        (&["ada@refuse.invalid"][..], State::Dead),
        (&["ada@Defer.INVALID"], State::Pending),
        (&["ada@refuse.invalid", "bob@defer.invalid"], State::Pending),
        (&["ada@refuse.invalid", "bob@example.org"], State::Sent),
        (&["ada@defer.invalid", "bob@example.org"], State::Pending),
        // Only the whole domain counts.
        (&["refuse.invalid@example.org", "ada@mail.refuse.invalid"], State::Sent),
    ];
    let mut ids = Vec::new();
    for (recipients, _) in &cases {
        ids.push(outbox.enqueue(mail(recipients)).await.unwrap());
    }
    outbox.relay().drain().await.unwrap();
    for ((recipients, state), id) in cases.iter().zip(ids) {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.state, *state, "{recipients:?}: {delivery:?}");
        for status in &delivery.recipients {
            let of = |domain| status.recipient.as_str().to_lowercase().ends_with(&format!("@{domain}"));
            let expected = match *state {
                // A dead letter is checked by its state alone.
                State::Dead => continue,
                _ if of("refuse.invalid") => RecipientState::Refused,
                _ if of("defer.invalid") => RecipientState::Pending,
                _ => RecipientState::Sent,
            };
            assert_eq!(status.state, expected, "{recipients:?}: {status:?}");
        }
        let first = &delivery.attempts[0];
        if *state == State::Dead {
            assert_eq!((first.outcome, first.scope, first.sure), (Outcome::Permanent, Some(Scope::Message), true));
        }
        if *state == State::Pending && first.outcome != Outcome::Sent {
            assert_eq!((first.outcome, first.scope), (Outcome::Transient, Some(Scope::Message)));
        }
    }
}

/// A mail that cannot be written is refused when it is enqueued, and when it is sent if another program enqueued it.
#[tokio::test]
async fn a_mail_that_cannot_be_written_is_refused_as_by_smtp() {
    let store = MemoryStore::new();
    let outbox = Outbox::new(store.clone(), DevMailbox::new());
    let error = outbox.enqueue(unwritable().unwrap()).await.unwrap_err();
    assert!(matches!(&error, EnqueueError::Unsupported(failure) if failure.is_unsupported()), "{error}");
    let id = Outbox::enqueue_only(store).enqueue(unwritable().unwrap()).await.unwrap();
    outbox.relay().drain().await.unwrap();
    assert_eq!(outbox.get(id).await.unwrap().unwrap().state, State::Dead);
}

/// A call answers for the recipients that it is given, and for no others.
#[tokio::test]
async fn a_retry_answers_for_its_own_recipients() {
    let mailbox = DevMailbox::new();
    let email = mail(&["ada@example.org", "bob@refuse.invalid", "eve@defer.invalid"]);
    let outgoing = Outgoing::new(DeliveryId::new(), std::time::SystemTime::now(), email);
    let receipt = mailbox.send(&outgoing).await.unwrap();
    let refused: Vec<_> = receipt.refused.iter().map(|r| (r.recipient.as_str(), r.class)).collect();
    assert_eq!(refused, [("bob@refuse.invalid", Class::Permanent), ("eve@defer.invalid", Class::Transient)]);
    let rest = outgoing.clone().with_recipients(vec![Recipient::new("eve@defer.invalid")]);
    let failure = mailbox.send(&rest).await.unwrap_err();
    assert_eq!((failure.class(), failure.refused().len(), failure.in_doubt()), (Class::Transient, 1, false));
    let rest = outgoing.with_recipients(vec![Recipient::new("ada@example.org")]);
    assert!(mailbox.send(&rest).await.unwrap().refused.is_empty());
}

#[test]
fn urls_are_read() {
    for url in
        ["mailbox:", "MAILBOX:", " mailbox: ", "mailbox://", "mailbox://default", "mailbox:?", "mailbox://default?"]
    {
        assert!(DevMailbox::from_url(url).is_ok(), "{url}");
    }
    for (url, expected) in [
        ("", DevMailboxError::Scheme),
        ("mailbox", DevMailboxError::Scheme),
        ("smtp://ada:h0rse@mail.example.com", DevMailboxError::Scheme),
        ("mailbox://ada:h0rse@mail.example.com", DevMailboxError::Host),
        ("mailbox:h0rse", DevMailboxError::Host),
        ("mailbox:?h0rse", DevMailboxError::UnknownOption),
        ("mailbox:?check=h0rse", DevMailboxError::UnknownOption),
        ("mailbox:?CHECK_AS=h0rse", DevMailboxError::UnknownOption),
    ] {
        let error = DevMailbox::from_url(url).unwrap_err();
        assert_eq!(error, expected, "{url}");
        assert!(!format!("{error} {error:?}").contains("h0rse"), "{error}");
    }
}
