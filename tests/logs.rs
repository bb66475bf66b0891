//! Redaction: logs and `Debug` name a delivery, and show no content and no address of it.
//!
//! The test has a program of its own. While a process has one subscriber, `tracing` asks only the first thread that reaches a callsite
//! whether anyone listens. If the thread of another test came first, the callsite would stay silent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Refusal};
use postrider::{Email, Failure, MemoryStore, NewDelivery, Outbox, RetryPolicy, Scope, WhenInDoubt};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;
    fn make_writer(&self) -> Log {
        self.clone()
    }
}

/// Invariant 10.
#[tokio::test]
async fn logs_name_the_delivery_and_hide_the_mail() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let answer = "550 5.1.1 <secret-person@example.com>: unknown";
    let refusal = || vec![Refusal::new("secret-person@example.com", Class::Transient, answer)];
    let transport = ScriptedTransport::new()
        .then(Err(Failure::permanent(Scope::Message, answer).with_reply(answer)))
        .then(Err(Failure::transient(Scope::Message, answer).with_refused(refusal())))
        .then(Err(Failure::maybe_accepted(answer).with_scope(Scope::Message)))
        .then(Ok(Receipt::new().with_reply(answer)))
        .then(Err(Failure::permanent(Scope::Transport, answer)));
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let email = Email::builder()
        .from("secret-sender@example.com")
        .to("Secret Name <secret-person@example.com>")
        .subject("Secret subject")
        .text("Secret body")
        .template_id("password-reset")
        .build()
        .unwrap();
    let (mut ids, mut shown) = (Vec::new(), String::new());
    for _ in 0..5 {
        let delivery = NewDelivery::new(email.clone()).when_in_doubt(WhenInDoubt::Hold).key("secret-key");
        ids.push(outbox.enqueue(NewDelivery::new(email.clone()).when_in_doubt(WhenInDoubt::Hold)).await.unwrap());
        shown.push_str(&format!("{delivery:?} {:?}", outbox.get(ids[0]).await.unwrap()));
    }
    let at_once =
        RetryPolicy::default().attempts(3).backoff(Duration::from_millis(1), Duration::from_millis(1)).jitter(0.0);
    let summary = outbox.relay().concurrency(1).retry(at_once).drain().await.unwrap();
    assert_eq!((summary.dead, summary.retried, summary.in_doubt, summary.sent, summary.released), (1, 1, 1, 1, 1));
    drop(guard);

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for id in ids {
        assert!(text.contains(&id.to_string()), "the log does not name a delivery");
    }
    for word in ["template_id=\"password-reset\"", "attempt=1", "cycle_attempt=1", "dead letter", "s***@example.com"] {
        assert!(text.contains(word), "{word} is not in the log:\n{text}");
    }
    for secret in ["secret-", "Secret", "subject", "body"] {
        assert!(!text.contains(secret), "{secret} is in the log:\n{text}");
    }
    for secret in ["secret-person", "secret-sender", "Secret"] {
        assert!(!shown.contains(secret), "{secret} is in the output of Debug:\n{shown}");
    }
}
