//! The trace context of a request goes through a database to another outbox, whose spans link to the request. OpenTelemetry's SDK records
//! the spans, and its propagator reads and writes the header `traceparent`.

#[path = "../src/traces.rs"]
mod traces;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, SpanData,
};
use postrider::testkit::ScriptedTransport;
use postrider::{Email, Failure, NewDelivery, Outbox, RetryPolicy, Scope, SqliteStore, TraceParent};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Records every span but those of unsampled requests.
#[derive(Debug, Clone)]
struct ByName;

impl ShouldSample for ByName {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: opentelemetry::TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        let dropped = name == "unsampled request";
        let decision = if dropped { SamplingDecision::Drop } else { SamplingDecision::RecordAndSample };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}

fn email(to: &str) -> Email {
    Email::builder().from("shop@example.com").to(to).text("Hello").build().unwrap()
}

/// A store with a pool of its own, as in another process.
async fn store(file: &Path) -> SqliteStore {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    SqliteStore::new(SqlitePool::connect_with(options).await.unwrap())
}

/// The context as OpenTelemetry's own propagator reads it from the header.
fn read_header(header: String) -> SpanContext {
    let headers = HashMap::from([("traceparent".to_owned(), header)]);
    TraceContextPropagator::new().extract(&headers).span().span_context().clone()
}

#[tokio::test]
async fn each_send_links_to_the_request_that_enqueued_it() {
    let spans = InMemorySpanExporter::default();
    let tracers = SdkTracerProvider::builder().with_sampler(ByName).with_simple_exporter(spans.clone()).build();
    Registry::default().with(tracing_opentelemetry::layer().with_tracer(tracers.tracer("shop"))).init();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outbox.db");

    // The process that takes requests.
    let shop = Outbox::enqueue_only(store(&file).await).trace_context(traces::current);
    shop.migrate().await.unwrap();
    let sampled = shop.enqueue(email("ada@example.com")).instrument(info_span!("request")).await.unwrap();
    let unsampled = shop.enqueue(email("bob@example.com")).instrument(info_span!("unsampled request")).await.unwrap();
    let outside = shop.enqueue(email("cy@example.com")).await.unwrap();
    let caller = info_span!("caller");
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&caller.context(), &mut headers);
    let header: TraceParent = headers["traceparent"].parse().unwrap();
    let forwarded = shop.enqueue(NewDelivery::new(email("dee@example.com")).traceparent(header));
    let forwarded = forwarded.instrument(info_span!("proxy")).await.unwrap();
    drop(caller);

    // The process that sends. The first mail needs two attempts.
    let transport = ScriptedTransport::<Email>::new().then(Err(Failure::transient(Scope::Message, "busy")));
    let sender = Outbox::new(store(&file).await, transport);
    let retry = RetryPolicy::default().backoff(Duration::from_millis(1), Duration::from_millis(1));
    for sent in [3, 1] {
        let relay = sender.relay().concurrency(1).retry(retry).link_spans(traces::link);
        assert_eq!(relay.drain().await.unwrap().sent, sent);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracers.force_flush().unwrap();

    let spans = spans.get_finished_spans().unwrap();
    let named = |name: &str| -> Vec<&SpanData> { spans.iter().filter(|span| span.name == name).collect() };
    let [request] = named("request")[..] else { panic!("{spans:?}") };
    let [caller] = named("caller")[..] else { panic!("{spans:?}") };
    assert!(named("unsampled request").is_empty());
    let sends = named("delivery");
    assert_eq!(sends.len(), 5);
    let links = |id: postrider::DeliveryId| -> Vec<SpanContext> {
        let is_of = |span: &&&SpanData| {
            span.attributes.iter().any(|pair| pair.key.as_str() == "id" && pair.value.as_str() == id.to_string())
        };
        sends.iter().filter(is_of).flat_map(|span| span.links.iter().map(|link| link.span_context.clone())).collect()
    };
    let ids = |context: &SpanContext| (context.trace_id(), context.span_id(), context.is_sampled());
    // Both attempts link to the request, in traces of their own.
    let of_request = links(sampled);
    assert_eq!(of_request.iter().map(ids).collect::<Vec<_>>(), vec![ids(&request.span_context); 2]);
    assert!(of_request.iter().all(SpanContext::is_remote));
    assert!(sends.iter().all(|send| send.span_context.trace_id() != request.span_context.trace_id()));
    // The ids of a request that was not recorded are kept, with the flag that says so.
    let stored = sender.get(unsampled).await.unwrap().unwrap().traceparent.expect("it is stored");
    assert!(!stored.is_sampled());
    let of_unsampled = links(unsampled);
    assert_eq!(of_unsampled.iter().map(ids).collect::<Vec<_>>(), [ids(&read_header(stored.to_string()))]);
    assert!(of_unsampled[0].is_valid() && !of_unsampled[0].is_sampled());
    // A header that was given comes before the current span.
    assert_eq!(links(forwarded).iter().map(ids).collect::<Vec<_>>(), [ids(&caller.span_context)]);
    assert_eq!(links(outside), []);
}

/// OpenTelemetry's propagator is laxer with texts that W3C's rules forbid, so only texts that it refuses, and valid ones, are compared.
#[test]
fn a_header_means_the_same_to_opentelemetry() {
    let ids = "4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331";
    let valid = ["00-{}-00", "00-{}-01", "00-{}-03", "00-{}-ff", "02-{}-09", "cc-{}-01-what-comes-later", "01-{}-09-"];
    for text in valid.map(|text| text.replace("{}", ids)) {
        let (ours, theirs) = (text.parse::<TraceParent>().unwrap(), read_header(text.clone()));
        assert!(theirs.is_valid(), "{text}");
        assert_eq!(ours.trace_id(), theirs.trace_id().to_bytes(), "{text}");
        assert_eq!(ours.parent_id(), theirs.span_id().to_bytes(), "{text}");
        assert_eq!(ours.is_sampled(), theirs.is_sampled(), "{text}");
        let again = read_header(ours.to_string());
        assert_eq!((again.trace_id(), again.span_id()), (theirs.trace_id(), theirs.span_id()), "{text}");
    }
    let (trace_id, span_id) = ids.split_once('-').unwrap();
    let zero = format!("00-{}-{span_id}-01", "0".repeat(32));
    let no_span = format!("00-{trace_id}-{}-01", "0".repeat(16));
    let texts = ["", "00", "00-{}", "00-{}-", "ff-{}-01", "qw-{}-01", "00-{}-qw", "00-{}-A1", "00-{}-01-more"];
    let texts = texts.map(|text| text.replace("{}", ids)).into_iter().chain([zero, no_span, ids.to_uppercase()]);
    for text in texts {
        assert!(text.parse::<TraceParent>().is_err(), "{text}");
        assert!(!read_header(text.clone()).is_valid(), "{text}");
    }
}

/// The manual shows the functions that this test uses.
#[test]
fn the_manual_has_these_functions() {
    let (manual, code) = (include_str!("../../../../docs/monitoring.md"), include_str!("../src/traces.rs"));
    let (_, code) = code.split_once("\n\n").unwrap();
    assert!(manual.contains(&code.replace("pub fn", "fn")), "docs/monitoring.md differs from src/traces.rs");
}
