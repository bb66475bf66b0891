//! The memory that large mails take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Attachment, Email, Outbox};

use crate::harness::outbox;
use crate::support::fixture::ada;

/// A slow transport, and the largest number of calls that it had at one time.
fn slow() -> (Arc<AtomicUsize>, ScriptedTransport<Email>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let now = Arc::clone(&now);
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Receipt::new())
        }
    });
    (most, transport)
}

async fn enqueue_large(outbox: &Outbox<postrider::MemoryStore, ScriptedTransport<Email>>) {
    let text = "a line of a large mail\n".repeat(100_000 / 23);
    let mail = || Email::builder().from("a@example.com").to("b@example.com");
    let large = |part: usize| match part % 3 {
        0 => mail().text(text.clone()).build().unwrap(),
        1 => mail().html(text.clone()).build().unwrap(),
        _ => mail()
            .attach(Attachment::new("a.txt", "text/plain", text.clone().into_bytes()).unwrap())
            .text("")
            .build()
            .unwrap(),
    };
    outbox.enqueue_all((0..8).map(large)).await.unwrap();
}

#[tokio::test]
async fn the_memory_limit_bounds_large_mails_in_flight() {
    // A relay estimates six octets of memory for each stored octet.
    for (memory, expected) in [(u64::MAX, 8), (6 * 250_000, 3), (0, 1)] {
        let (most, transport) = slow();
        let outbox = outbox(transport);
        enqueue_large(&outbox).await;
        let summary = outbox.relay().concurrency(8).memory(memory).drain().await.unwrap();
        assert_eq!((summary.sent, most.load(Ordering::SeqCst)), (8, expected), "with {memory} octets");
    }
}

#[tokio::test]
async fn the_memory_limit_does_not_slow_small_mails() {
    let (most, transport) = slow();
    let outbox = outbox(transport);
    outbox.enqueue_all((0..64).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().concurrency(32).drain().await.unwrap();
    assert_eq!((summary.sent, most.load(Ordering::SeqCst)), (64, 32));
}
