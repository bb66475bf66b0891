//! The trace context of the request that enqueued a mail, and the span of each call.
//!
//! These tests are a program of their own, because the subscriber listens for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{
    Email, EnqueueOnly, Failure, MemoryStore, NewDelivery, Outbox, RetryPolicy, Scope, State, TraceParent,
};
use support::fixture::ada;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The fields of the spans `delivery`, by their ids.
static SPANS: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());

struct Fields;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Fields {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "delivery" {
            SPANS.lock().unwrap().push((id.into_u64(), format!("{attributes:?}")));
        }
    }
}

fn listen() {
    static LISTEN: Once = Once::new();
    LISTEN.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Fields)).unwrap());
}

fn parent(number: u8) -> TraceParent {
    TraceParent::new([number; 16], [number; 8], number & 1).unwrap()
}

/// A mail of the request with this number.
fn of(number: u8) -> NewDelivery<Email> {
    NewDelivery::new(ada()).traceparent(parent(number))
}

fn at_once() -> RetryPolicy {
    RetryPolicy::default().backoff(Duration::from_millis(1), Duration::from_millis(1)).jitter(0.0)
}

/// The links that a function records: the span and the context.
type Links = Arc<Mutex<Vec<(u64, TraceParent)>>>;

fn record(links: &Links) -> impl Fn(&tracing::Span, TraceParent) + Send + Sync + 'static {
    let links = Arc::clone(links);
    move |span, parent| links.lock().unwrap().push((span.id().expect("it is enabled").into_u64(), parent))
}

/// A batch is one call. Each further attempt is a call of its own.
#[tokio::test]
async fn each_call_is_linked_to_the_requests_of_its_messages() {
    listen();
    let busy = || Err(Failure::transient(Scope::Message, "busy"));
    let transport = ScriptedTransport::new().with_max_batch(8).then(busy());
    let outbox = Outbox::new(MemoryStore::new(), transport.clone());
    outbox.enqueue_all([of(1), of(2), of(1), NewDelivery::new(ada())]).await.unwrap();
    let links = Links::default();
    let run = || outbox.relay().retry(at_once()).link_spans(record(&links)).drain();
    assert_eq!(run().await.unwrap().retried, 1);
    let first: Vec<_> = std::mem::take(&mut *links.lock().unwrap());
    assert_eq!(first.iter().map(|(_, parent)| *parent).collect::<Vec<_>>(), [parent(1), parent(2)]);
    assert_eq!(first[0].0, first[1].0, "a batch has one span");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(run().await.unwrap().sent, 1);
    let second: Vec<_> = std::mem::take(&mut *links.lock().unwrap());
    assert_eq!(second.iter().map(|(_, parent)| *parent).collect::<Vec<_>>(), [parent(1)]);
    let parents: Vec<_> = transport.calls().iter().map(|call| call.traceparent).collect();
    assert_eq!(parents, [Some(parent(1)), Some(parent(2)), Some(parent(1)), None, Some(parent(1))]);
    let spans = SPANS.lock().unwrap();
    for ((span, _), attempt) in [&first[0], &second[0]].into_iter().zip(["attempt: 1", "attempt: 2"]) {
        let fields = &spans.iter().find(|(id, fields)| id == span && fields.contains(attempt)).expect("a span").1;
        assert!(fields.contains(&format!("traceparent: {}", parent(1))), "{fields}");
    }
}

#[tokio::test]
async fn a_function_that_panics_costs_no_mail() {
    listen();
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new());
    outbox.enqueue_all([of(3), of(4)]).await.unwrap();
    let relay = outbox.relay().link_spans(|_, _| panic!("no tracer"));
    assert_eq!(relay.drain().await.unwrap().sent, 2);
    assert!(outbox.transport().calls().iter().all(|call| call.attempt == 1));
}

/// The context of a delivery takes precedence over that of the function. The function is called once for each call, and not for each mail.
#[tokio::test]
async fn a_delivery_gets_the_context_of_the_request_in_progress() {
    tokio::task_local! { static REQUEST: TraceParent; }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new()).trace_context(move || {
        count.fetch_add(1, Ordering::SeqCst);
        REQUEST.try_get().ok()
    });
    let handle: Outbox<MemoryStore, EnqueueOnly<Email>> = outbox.clone().handle();
    let enqueued = REQUEST.scope(parent(5), async {
        let mut tx = outbox.store().begin();
        let mut ids = vec![outbox.enqueue(ada()).await.unwrap(), handle.enqueue(ada()).await.unwrap()];
        ids.push(outbox.enqueue_in(&mut tx, ada()).await.unwrap());
        ids.extend(outbox.enqueue_all([NewDelivery::new(ada()), of(6)]).await.unwrap());
        ids.extend(handle.enqueue_all_in(&mut tx, [ada()]).await.unwrap());
        tx.commit();
        ids
    });
    let ids = enqueued.await;
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    let outside = outbox.enqueue(ada()).await.unwrap();
    let mut parents = Vec::new();
    for id in ids.into_iter().chain([outside]) {
        let delivery = handle.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.state, State::Pending);
        parents.push(delivery.traceparent);
    }
    let five = Some(parent(5));
    assert_eq!(parents, [five, five, five, five, Some(parent(6)), five, None]);
}
